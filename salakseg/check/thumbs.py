"""Small pictures of the examples, as data URIs: the photo, and the mask in the colours of the classes."""

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from salakseg.check.finding import Finding
from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.data.masks import decode, read_mask
from salakseg.data.patches import IMAGE_SUFFIXES
from salakseg.errors import DataError

SIDE = 160
"""Longest side in pixels."""

_QUALITY = 80
_HATCH = ((150, 150, 150), (205, 205, 205))  # greys in stripes: no class of a single colour looks like them
_STRIPE = 4  # pixels


@dataclass(frozen=True, slots=True)
class Thumb:
    """A small picture.

    Attributes:
        title: The file, relative to the root.
        uri: The picture as a data URI.
        width: Pixels.
        height: Pixels.
    """

    title: str
    uri: str
    width: int
    height: int


def thumbs_of(root: Path, finding: Finding, class_map: ClassMap) -> tuple[tuple[Thumb, ...], ...]:
    """Small pictures for each example of a finding; none for what is no file or cannot be read.

    Args:
        root: The data root.
        finding: Whose examples are shown. Of a mask, the photo is shown beside.
        class_map: Colours of the masks.
    """
    shown = []
    for path, other in finding.pairs:
        files = [name for name in (path, other) if name]
        found: list[Thumb] = []
        for name in files:
            if _is_mask(name):
                photo = None if other else _photo_of(root, name)  # two masks of one photo speak for themselves
                found += [t for t in (photo and _photo(root, photo), _mask(root, name, class_map)) if t]
            elif thumb := _photo(root, name):
                found.append(thumb)
        shown.append(tuple(found))
    return tuple(shown)


def _is_mask(name: str) -> bool:
    return Path(name).parent.name == "masks"


def _photo_of(root: Path, mask: str) -> str | None:
    images = Path(mask).parent.parent / "images"
    names = (images / (Path(mask).stem + suffix) for suffix in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)))
    return next((name.as_posix() for name in names if (root / name).is_file()), None)


def _photo(root: Path, name: str) -> Thumb | None:
    path = root / name
    if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
        return None
    try:
        return decode(path, lambda picture: _jpeg(picture, name))
    except DataError:
        return None


def _jpeg(picture: Image.Image, name: str) -> Thumb:
    picture.draft("RGB", (SIDE, SIDE))  # JPEG: decoded no larger than needed
    if picture.mode.startswith(("I", "F")):  # more than 8 bits: shown from its darkest to its brightest
        values = np.asarray(picture).astype(np.float64)
        spread = max(float(np.ptp(values)), 1.0)
        picture = Image.fromarray(((values - values.min()) * (255 / spread)).astype(np.uint8))
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return _thumb(small, name, "JPEG", quality=_QUALITY)


def _mask(root: Path, name: str, class_map: ClassMap) -> Thumb | None:
    try:
        label_HW = read_mask(root / name, class_map).label_HW
    except DataError:
        return None
    whole = Image.fromarray(label_HW)
    width, height = (max(1, round(side * min(1.0, SIDE / max(whole.size)))) for side in whole.size)
    label_HW = np.asarray(whole.resize((width, height), Image.Resampling.NEAREST))  # classes cannot be averaged
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(class_map)] = class_map.colors
    row_HW, col_HW = np.indices(label_HW.shape)
    stripe_HW = (row_HW + col_HW) // _STRIPE % 2
    rgb_HWC = np.where((label_HW == IGNORE_INDEX)[..., None], np.array(_HATCH, np.uint8)[stripe_HW], colors[label_HW])
    return _thumb(Image.fromarray(rgb_HWC), name, "PNG", optimize=True)


def _thumb(picture: Image.Image, name: str, kind: str, **settings: int | bool) -> Thumb:
    buffer = BytesIO()
    picture.save(buffer, kind, **settings)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumb(name, f"data:image/{kind.lower()};base64,{text}", *picture.size)
