"""Reading pictures and masks from disk as arrays.

A mask is an index picture (one channel, or three equal ones), a palette picture or an RGB picture in the colours of the
class map. Whatever cannot be understood becomes ignore and is counted; it never becomes background.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import IGNORE_INDEX, ClassMap, Color
from salakseg.errors import ClassIndexError, DataError, UnreadableError

T = TypeVar("T")

_BLACK = 0


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask as labels.

    Attributes:
        label_HW: Class ids, uint8 [H, W]; 255 where nobody labelled or the colour is in no class.
        unknown: Colours in no class with their pixel counts; these pixels are 255 in `label_HW`.
    """

    label_HW: NDArray[np.uint8]
    unknown: Counter[Color] = field(default_factory=Counter)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads a picture as RGB.

    Args:
        path: PNG, JPEG or TIFF with 8 bits a channel; grey and palette pictures become RGB, alpha is dropped.

    Returns:
        uint8 [H, W, 3], red green blue.

    Raises:
        DataError: The file is missing, truncated, no picture, or has more than 8 bits a channel.
    """
    return decode(path, lambda picture: image_array(picture, path))


def read_mask(path: Path, class_map: ClassMap) -> Mask:
    """Reads a mask as class ids.

    Args:
        path: PNG or TIFF mask.
        class_map: Classes; their colours decide how RGB and palette masks are read.

    Raises:
        DataError: The file is missing, truncated or no picture, or an index is no class.
    """
    return decode(path, lambda picture: mask_of(picture, class_map, path))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header alone.

    Raises:
        DataError: The file is missing or no picture.
    """
    return decode(path, lambda picture: (picture.height, picture.width))


def decode(path: Path, use: Callable[[Image.Image], T]) -> T:
    """Opens a picture for a function that reads what it needs of it.

    Args:
        path: The file.
        use: Gets the picture, whose pixels are not read yet.

    Raises:
        UnreadableError: The file is missing, truncated or no picture.
        DataError: What `use` refuses.
    """
    try:
        with Image.open(path) as picture:
            return use(picture)
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} does not exist; was it moved after the patches were indexed?") from error
    # Pillow reports a damaged picture with one of these, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path} is no readable picture ({error}); copy it anew or remove it.") from error


def image_array(picture: Image.Image, path: Path) -> NDArray[np.uint8]:
    """An opened picture as RGB, uint8 [H, W, 3].

    Raises:
        DataError: It has more than 8 bits a channel.
    """
    if is_deep(picture):
        raise DataError(f"{path} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits first.")
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def is_deep(picture: Image.Image) -> bool:
    """Whether an opened picture, whose pixels are not read yet, has more than 8 bits a channel."""
    # Of a 16-bit RGB picture Pillow keeps the upper byte and says nothing: one of 12 bits would become black
    return picture.mode.startswith(("I", "F")) or any(";16" in str(tile.args) for tile in getattr(picture, "tile", ()))


def mask_of(picture: Image.Image, class_map: ClassMap, path: Path) -> Mask:
    """An opened mask as class ids.

    Raises:
        ClassIndexError: An index is no class.
        DataError: The picture is of a kind that no mask has.
    """
    if picture.mode == "P":
        return _from_palette(picture, class_map, path)
    if picture.mode in ("RGB", "RGBA", "LA") and is_deep(picture):  # Pillow would keep the upper byte: all background
        raise DataError(f"{path} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits first.")
    if picture.mode in ("RGB", "RGBA"):
        values = np.asarray(picture)
        if picture.mode == "RGB":
            return _from_rgb(values, class_map, path)
        seen_HW = values[..., 3] > 0
        return _spread(_from_rgb(values[None, seen_HW, :3], class_map, path), seen_HW)
    if picture.mode == "LA":
        values = np.asarray(picture)
        seen_HW = values[..., 1] > 0
        return _spread(Mask(_check_indices(values[None, seen_HW, 0], class_map, path)), seen_HW)
    if picture.mode in ("L", "1", "I", "I;16"):
        return Mask(_check_indices(np.asarray(picture), class_map, path))
    raise DataError(f"{path} is a mask of mode {picture.mode}; save it as an index PNG or in the class colours.")


def _spread(mask: Mask, seen_HW: NDArray[np.bool_]) -> Mask:
    """A mask of the pixels that are seen, put where they are; the others, wholly transparent, say nothing."""
    label_HW = np.full(seen_HW.shape, IGNORE_INDEX, np.uint8)
    label_HW[seen_HW] = mask.label_HW[0]
    return Mask(label_HW, mask.unknown)


def _from_palette(picture: Image.Image, class_map: ClassMap, path: Path) -> Mask:
    """A palette mask: its colours are meant if they are class colours, else its indices."""
    index_HW = np.asarray(picture)
    palette = np.zeros((256, 3), np.uint8)
    stored = np.frombuffer(bytes(picture.getpalette("RGB") or []), np.uint8).reshape(-1, 3)
    palette[: len(stored)] = stored
    classes = _pack(class_map.colors)
    blank = _is_transparent(picture, IGNORE_INDEX) or is_filler(_pack(palette), classes)
    blank_HW = index_HW == IGNORE_INDEX if blank else np.zeros(index_HW.shape, np.bool_)
    used = _pack(palette[np.unique(index_HW[~blank_HW])])
    grey_ramp = bool((palette[: len(class_map)] == np.arange(len(class_map))[:, None]).all())
    telling = np.isin(_pack(stored), classes[classes != _BLACK]).any()  # black alone says nothing: every palette has it
    if not grey_ramp and (telling or np.isin(used, classes).all()):
        mask = _from_colors(palette[index_HW[~blank_HW]], class_map)
        label_HW = np.full(index_HW.shape, IGNORE_INDEX, np.uint8)
        label_HW[~blank_HW] = mask.label_HW
        return Mask(label_HW, mask.unknown)
    return Mask(_check_indices(index_HW, class_map, path))


def is_filler(palette_N: NDArray[Any], classes_K: NDArray[Any]) -> bool:
    """Whether the last entry of a palette, 255, has a class's colour only because unused entries have it, mostly black.

    It then stands for what is ignored, as in index masks.

    Args:
        palette_N: Colours of the 256 entries, as numbers.
        classes_K: Those of the classes.
    """
    last = palette_N[IGNORE_INDEX]
    return bool((classes_K == last).any() and (palette_N[:IGNORE_INDEX] == last).any())


def _is_transparent(picture: Image.Image, entry: int) -> bool:
    """Whether an entry of a palette is wholly transparent, as that of unlabelled pixels is in masks of ours.

    Index 0 is another matter: tools make it transparent to show a mask over its picture, and it is a class here.
    """
    alpha = picture.info.get("transparency")
    if isinstance(alpha, bytes):
        return entry < len(alpha) and alpha[entry] == 0
    return bool(alpha == entry)


def _from_rgb(rgb_HWC: NDArray[np.uint8], class_map: ClassMap, path: Path) -> Mask:
    grey = bool((rgb_HWC[..., 0] == rgb_HWC[..., 1]).all() and (rgb_HWC[..., 0] == rgb_HWC[..., 2]).all())
    if not grey:
        return _from_colors(rgb_HWC, class_map)
    # Three equal channels: an index picture stored as RGB, or a picture that shows grey classes only. A wholly black
    # one is read as a colour, because black is not always a class and must not become background unseen.
    used = np.unique(rgb_HWC[..., 0])
    as_colors = np.isin(_pack(np.repeat(used[:, None], 3, axis=1)), _pack(class_map.colors)).all()
    if as_colors or (used == _BLACK).all():
        return _from_colors(rgb_HWC, class_map)
    return Mask(_check_indices(rgb_HWC[..., 0], class_map, path))


def _from_colors(rgb_HWC: NDArray[np.uint8], class_map: ClassMap) -> Mask:
    code_HW = _pack(rgb_HWC)
    label_HW = np.full(code_HW.shape, IGNORE_INDEX, np.uint8)
    for class_id, code in enumerate(_pack(class_map.colors)):
        label_HW[code_HW == code] = class_id
    unknown: Counter[Color] = Counter()
    strangers = ~np.isin(code_HW, _pack(class_map.colors))
    if strangers.any():
        for code, count in zip(*np.unique(code_HW[strangers], return_counts=True), strict=True):
            value = int(code)
            unknown[(value >> 16, value >> 8 & 255, value & 255)] = int(count)
    return Mask(label_HW, unknown)


def _check_indices(index_HW: NDArray[np.generic], class_map: ClassMap, path: Path) -> NDArray[np.uint8]:
    values = np.unique(index_HW).astype(np.int64)
    wrong = [int(v) for v in values if not (0 <= v < len(class_map) or v == IGNORE_INDEX)]
    if wrong:
        raise ClassIndexError(
            f"{path} holds the index {wrong[0]}, but the class map has the ids 0 to {len(class_map) - 1} "
            f"(and {IGNORE_INDEX} for ignore); mend the mask or name the right --class-mapping."
        )
    return np.array(index_HW, dtype=np.uint8)


def _pack(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """One integer a colour: red, green and blue in its three lowest bytes."""
    parts = rgb.astype(np.int32)
    packed: NDArray[np.int32] = parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]
    return packed
