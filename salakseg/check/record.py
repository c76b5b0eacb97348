"""What is kept of a picture and of a mask once both have been looked at: plain numbers, some 160 bytes a patch.

Axes: H row, W column, C red green blue.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import IGNORE_INDEX, ClassMap, Color
from salakseg.data.masks import decode, image_array, mask_of
from salakseg.errors import ClassIndexError, DataError, UnreadableError
from salakseg.prepare.parts.exif import damaged_exif_says_nothing

FINE, UNREADABLE, UNUSABLE, BAD_INDEX = range(4)
"""States of a file. Unusable: a picture of more than 8 bits, a mask of a kind that no mask has."""

GRID = 9
"""Side of the coarse grey picture that near-duplicates are told by."""

MODES = ("L", "P", "RGB", "RGBA", "LA", "PA", "1", "CMYK", "I", "I;16", "F")
"""Pillow's modes by number; one that is not listed has the number `len(MODES)`."""

PICTURE = np.dtype(
    [
        ("state", "u1"),
        ("mode", "u1"),
        ("height", "u4"),
        ("width", "u4"),
        ("grey", "?"),  # three equal channels, or one
        ("constant", "?"),  # one colour
        ("transparent", "?"),  # at least one pixel that is not opaque
        ("turned", "?"),  # EXIF tells viewers to turn or mirror it
        ("sum", "i8", 3),  # of each channel, over the pixels
        ("squares", "i8", 3),
        ("digest", "u8", 2),  # of size and pixels
        ("grid", "u1", (GRID, GRID)),  # grey, averaged
    ]
)

MASK = np.dtype(
    [
        ("state", "u1"),
        ("mode", "u1"),
        ("height", "u4"),
        ("width", "u4"),
        ("labelled", "i8"),  # pixels of a class
        ("ignored", "i8"),  # pixels that are 255, not counting unknown colours
        ("unknown", "i8"),  # pixels in colours of no class
        ("reversed", "i8"),  # those of them whose colour read backwards is a class's
        ("digest", "u8"),  # of the class ids
    ]
)

Record = NDArray[np.void]

_EXIF_ORIENTATION = 0x0112
_MOST_COLOURS = 64  # of one mask; a blurred one has thousands
_VALUES = np.arange(256, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a mask holds.

    Attributes:
        pixels_K: Pixels of each class, int64 [K].
        unknown: The most frequent colours in no class, with their pixels.
    """

    pixels_K: NDArray[np.int64]
    unknown: Counter[Color]


def look_at_picture(path: Path, record: Record) -> str:
    """Reads a picture into a record.

    Args:
        path: The picture.
        record: One element of an array of `PICTURE`, filled.

    Returns:
        Why it cannot be used, empty if it can.
    """
    try:
        decode(path, lambda picture: _fill_picture(picture, path, record))
    except UnreadableError as error:
        record["state"] = UNREADABLE
        return str(error)
    except DataError as error:
        record["state"] = UNUSABLE
        return str(error)
    return ""


def look_at_mask(path: Path, class_map: ClassMap, record: Record) -> tuple[Counts | None, str]:
    """Reads a mask into a record.

    Args:
        path: The mask.
        class_map: Classes.
        record: One element of an array of `MASK`, filled.

    Returns:
        What it holds, None if it cannot be used; and why not, empty if it can.
    """
    try:
        return decode(path, lambda picture: _fill_mask(picture, path, class_map, record)), ""
    except DataError as error:
        kinds: dict[type[DataError], int] = {UnreadableError: UNREADABLE, ClassIndexError: BAD_INDEX}
        record["state"] = kinds.get(type(error), UNUSABLE)
        return None, str(error)


def _fill_picture(picture: Image.Image, path: Path, record: Record) -> None:
    _fill_header(picture, record)
    # Only JPEG, MPO if it has a preview inside: of a PNG, Pillow would read all pixels for it, and cameras write none
    with damaged_exif_says_nothing():
        record["turned"] = picture.format in ("JPEG", "MPO") and picture.getexif().get(_EXIF_ORIENTATION, 1) != 1
    image_HWC = image_array(picture, path)
    # From here on in Pillow, whose loops over pixels run outside Python's lock
    rgb = picture if picture.mode == "RGB" else Image.fromarray(image_HWC)
    histogram = np.array(rgb.histogram(), np.int64).reshape(3, 256)
    record["sum"] = histogram @ _VALUES
    record["squares"] = histogram @ _VALUES**2
    record["constant"] = bool((histogram > 0).sum() == 3)
    record["grey"] = bool(
        (histogram[0] == histogram[1]).all()
        and (histogram[0] == histogram[2]).all()
        and (image_HWC[..., 0] == image_HWC[..., 1]).all()
        and (image_HWC[..., 0] == image_HWC[..., 2]).all()
    )
    record["transparent"] = picture.has_transparency_data and _lowest_alpha(picture) < 255
    digest = hashlib.blake2b(f"{picture.width} x {picture.height}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image_HWC).data)
    record["digest"] = np.frombuffer(digest.digest(), np.uint64)
    record["grid"] = np.asarray(rgb.convert("L").resize((GRID, GRID), Image.Resampling.BOX))


def _fill_mask(picture: Image.Image, path: Path, class_map: ClassMap, record: Record) -> Counts:
    _fill_header(picture, record)
    mask = mask_of(picture, class_map, path)
    histogram = np.bincount(mask.label_HW.ravel(), minlength=IGNORE_INDEX + 1).astype(np.int64)
    pixels_K = histogram[: len(class_map)]
    unknown = mask.unknown.total()
    record["labelled"] = pixels_K.sum()
    record["unknown"] = unknown
    record["ignored"] = histogram[IGNORE_INDEX] - unknown
    record["reversed"] = reversed_pixels(mask.unknown, class_map)
    digest = hashlib.blake2b(np.ascontiguousarray(mask.label_HW).data, digest_size=8).digest()
    record["digest"] = np.frombuffer(digest, np.uint64)[0]
    return Counts(pixels_K, Counter(dict(mask.unknown.most_common(_MOST_COLOURS))))


def reversed_pixels(unknown: Counter[Color], class_map: ClassMap) -> int:
    """Pixels in colours of no class that are a class's once red and blue change places."""
    classes = {c.color for c in class_map.classes}
    return sum(count for (red, green, blue), count in unknown.items() if (blue, green, red) in classes)


def _fill_header(picture: Image.Image, record: Record) -> None:
    record["mode"] = MODES.index(picture.mode) if picture.mode in MODES else len(MODES)
    record["height"], record["width"] = picture.height, picture.width


def _lowest_alpha(picture: Image.Image) -> int:
    lowest, _ = picture.convert("RGBA").getchannel("A").getextrema()
    assert isinstance(lowest, (int, float))
    return int(lowest)
