"""Pictures for a page: label maps in the colours of the class map, shares as shades, photos as they are.

Axes: H row, W column, C channel.
"""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.evaluate.examples import Picture

CONFIDENCE_COLORS = "viridis"
DISAGREEMENT_COLORS = "magma"
"""Names of matplotlib's colour maps for shares; both run from dark to light."""

_HATCH = ((150, 150, 150), (205, 205, 205))  # greys in stripes: no class of a single colour looks like them
_HATCH_IDS = (254, 255)  # free in a palette, since a class map ends at 253
_STRIPE = 4  # pixels
_STEP = 4  # percent; finer shades look the same and take twice the room
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class View:
    """One picture of a patch.

    Attributes:
        key: "photo", "label", "prediction", "confidence" or "disagreement".
        title: The same for people.
        uri: The picture as a data URI.
    """

    key: str
    title: str
    uri: str


def views_of(picture: Picture, class_map: ClassMap) -> tuple[View, ...]:
    """Every view of a patch.

    Args:
        picture: The patch.
        class_map: Whose colours the label and the prediction get.
    """
    views = [
        View("photo", "Photo", _uri("jpeg", jpeg_bytes(picture.image_HWC))),
        View("label", "Label", _uri("png", class_png(picture.label_HW, class_map))),
        View("prediction", "Prediction", _uri("png", class_png(picture.prediction_HW, class_map))),
        View("confidence", "Confidence", _uri("png", share_png(picture.confidence_HW, CONFIDENCE_COLORS))),
    ]
    if picture.disagreement_HW is not None:
        png = share_png(picture.disagreement_HW, DISAGREEMENT_COLORS)
        views.append(View("disagreement", "Dissent", _uri("png", png)))
    return tuple(views)


def jpeg_bytes(image_HWC: NDArray[np.uint8]) -> bytes:
    """A photo as a JPEG file.

    Args:
        image_HWC: uint8 [H, W, 3].
    """
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def class_png(class_HW: NDArray[np.uint8], class_map: ClassMap) -> bytes:
    """A map of classes as a PNG file with exactly the class map's colours.

    Args:
        class_HW: Class ids, 255 where nobody labelled, which becomes grey stripes.
        class_map: The classes.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(class_map)] = class_map.colors
    palette[list(_HATCH_IDS)] = _HATCH
    row_HW, col_HW = np.indices(class_HW.shape)
    stripe_HW = np.where((row_HW + col_HW) // _STRIPE % 2, *_HATCH_IDS)
    return _palette_png(np.where(class_HW == IGNORE_INDEX, stripe_HW, class_HW).astype(np.uint8), palette)


def share_png(percent_HW: NDArray[np.uint8], colors: str) -> bytes:
    """A map of shares as a PNG file, in steps of 4 percent.

    Args:
        percent_HW: 0 to 100.
        colors: Name of a colour map of matplotlib.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[:101] = shades(colors, 101)
    return _palette_png((percent_HW // _STEP * _STEP).astype(np.uint8), palette)


def shades(colors: str, count: int) -> NDArray[np.uint8]:
    """Colours from 0 to 1, uint8 [count, 3].

    Args:
        colors: Name of a colour map of matplotlib.
        count: How many.
    """
    from matplotlib import colormaps

    found: NDArray[np.uint8] = colormaps[colors](np.linspace(0, 1, count), bytes=True)[:, :3]
    return found


def _palette_png(index_HW: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(index_HW)  # greys, which then become places in the palette
    picture.putpalette(palette.tobytes())
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
