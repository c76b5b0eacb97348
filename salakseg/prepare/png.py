"""Patches as PNG files, in memory. Axes: C red, green, blue; H rows; W columns; K classes.

An encoder of our own, because cutting spends its time here: every row less the one above it, and zlib's first level.
Drone pictures are noise to zlib, so that higher levels cost two to four times the time for two parts in a hundred;
choosing among PNG's filters row by row, as Pillow does at any level, costs as much again as compressing.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX, ClassMap, Color

LEVEL = 1
"""Of zlib, for pictures."""

MASK_LEVEL = 6
"""Of zlib, for masks: large areas of one value, for which it is as fast and makes them half as large."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB, _PALETTE = 2, 3  # colour types
_UP = 2  # filter of a row: less the row above it


def encode_image(image_CHW: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file.

    Args:
        image_CHW: uint8 [3, H, W], red green blue.
    """
    _, height, width = image_CHW.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _UP
    # the bytes after each row's filter, as pixels; a plain reshape would copy
    pixels_HWC = np.lib.stride_tricks.as_strided(rows[:, 1:], (height, width, 3), (rows.strides[0], 3, 1))
    image_HWC = image_CHW.transpose(1, 2, 0)
    pixels_HWC[0] = image_HWC[0]
    np.subtract(image_HWC[1:], image_HWC[:-1], out=pixels_HWC[1:])
    return _file(height, width, _RGB, [], zlib.compress(rows.data, LEVEL))


def encode_label(label_HW: NDArray[np.uint8], class_map: ClassMap) -> bytes:
    """A mask as a palette PNG file: the index is the class id, the colours are there to be looked at.

    Args:
        label_HW: uint8 [H, W], 0 to K - 1, and 255, which is transparent, where nobody labelled.
        class_map: The K classes.
    """
    height, width = label_HW.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # filter 0: none, which is best for indices
    rows[:, 1:] = label_HW
    palette = np.empty((256, 3), np.uint8)
    palette[:] = _no_class_color(class_map)
    palette[: len(class_map)] = class_map.colors
    alpha = np.full(256, 255, np.uint8)
    alpha[IGNORE_INDEX] = 0
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", alpha.tobytes())]
    return _file(height, width, _PALETTE, chunks, zlib.compress(rows.data, MASK_LEVEL))


def _no_class_color(class_map: ClassMap) -> Color:
    """A colour that no class has, for the entries of the palette that are no class."""
    taken = {land_class.color for land_class in class_map.classes}
    return next((grey, grey, grey) for grey in range(255, -1, -1) if (grey, grey, grey) not in taken)


def _file(height: int, width: int, color_type: int, chunks: list[tuple[bytes, bytes]], packed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    parts = [_SIGNATURE]
    for name, content in [(b"IHDR", header), *chunks, (b"IDAT", packed), (b"IEND", b"")]:
        check = zlib.crc32(content, zlib.crc32(name))
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", check)]
    return b"".join(parts)
