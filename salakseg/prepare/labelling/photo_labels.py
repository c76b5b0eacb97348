"""Labels that are kept in a picture's own pixels: mask pictures, and shapes from labelling tools.

Pixel (row, column) covers x from column to column + 1 and y from row to row + 1, and is of a shape that holds its
centre. Labels are taken in the order in which the source's pixels are read: where its EXIF data tells viewers to turn
it and it is read unturned, labels of the turned picture are refused because of their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import ClassMap
from salakseg.data.masks import read_mask
from salakseg.prepare.labelling.frame import Frame, check_size
from salakseg.prepare.labelling.label_facts import LabelFacts, Stranger
from salakseg.prepare.labelling.label_lookup import IGNORED, UNLABELLED, ClassLookup, layering
from salakseg.prepare.labelling.nearest import affine_map
from salakseg.prepare.labelling.shapes import burn, clean_polygons


@dataclass(frozen=True, slots=True)
class Drawn:
    """A shape that was drawn on a picture.

    Attributes:
        class_id: Its class, or `IGNORED`.
        polygons: Shapely polygons that it consists of, in the picture's pixels; where `mask_HW` is None.
        mask_HW: bool [H, W], the pixels that it consists of; None for polygons.
        top: Row of the mask's first row.
        left: Column of the mask's first column.
    """

    class_id: int
    polygons: tuple[Any, ...] = ()
    mask_HW: NDArray[np.bool_] | None = None
    top: int = 0
    left: int = 0


class PictureLabels:
    """Labels in a source's own pixels, on a grid that may be another.

    Args:
        label_HW: uint8 [H, W] in the source's pixels: classes, `IGNORED`, `UNLABELLED`.
        frame: The source's pixels.
    """

    def __init__(self, label_HW: NDArray[np.uint8], frame: Frame) -> None:
        self._label_HW = label_HW
        self._plain = frame.to_source.is_identity
        self._map = affine_map(frame.to_source)

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        """Labels of a window within the grid, by the nearest pixel, uint8 [height, width]."""
        if self._plain:
            return self._label_HW[row : row + height, col : col + width]
        row_HW, col_HW = self._map(row, col, height, width)
        rows, cols = self._label_HW.shape
        inside_HW = (row_HW >= 0) & (row_HW < rows) & (col_HW >= 0) & (col_HW < cols)
        label_HW = np.full((height, width), UNLABELLED, np.uint8)
        label_HW[inside_HW] = self._label_HW[row_HW[inside_HW], col_HW[inside_HW]]
        return label_HW

    def close(self) -> None:
        """Nothing is open."""


def open_mask(path: Path, frame: Frame, source: Path, class_map: ClassMap) -> tuple[PictureLabels, LabelFacts]:
    """Opens a mask picture as labels: all its pixels are labelled but the transparent ones.

    Raises:
        DataError: The mask cannot be read, is not of the source's size, or holds an index that is no class.
    """
    mask = read_mask(path, class_map)
    check_size(path, "the mask", mask.label_HW.shape, frame, source)
    label_HW = np.where(mask.label_HW == UNLABELLED, np.uint8(IGNORED), mask.label_HW)
    with Image.open(path) as picture:
        if picture.mode in ("RGBA", "LA"):
            label_HW[np.asarray(picture.getchannel("A")) == 0] = UNLABELLED
    facts = LabelFacts(path, "mask pictures")
    facts.strangers = {color: Stranger(pixels, "") for color, pixels in mask.unknown.items()}
    return PictureLabels(label_HW, frame), facts


def paint(
    drawn: Sequence[Drawn],
    frame: Frame,
    lookup: ClassLookup,
    priority: Sequence[str],
    facts: LabelFacts,
    all_touched: bool = False,
) -> NDArray[np.uint8] | None:
    """Paints shapes, later ones over earlier ones.

    Args:
        drawn: Shapes in the order in which they were drawn.
        frame: The picture's pixels.
        lookup: The classes.
        priority: Classes from bottom to top; see `LabelOptions`.
        facts: Gets the counts of shapes.
        all_touched: Burn all pixels that a polygon touches.

    Returns:
        uint8 [H, W] with `UNLABELLED` where there is no shape; None if no shape could be used.
    """
    label_HW = np.full((frame.height, frame.width), UNLABELLED, np.uint8)
    used = 0
    for position in layering(np.array([shape.class_id for shape in drawn], np.uint8), priority, lookup).tolist():
        shape = drawn[position]
        if shape.mask_HW is None:
            cleaned = clean_polygons(np.array(shape.polygons, object))
            if len(cleaned.parts_P) == 0:
                facts.left_out["without area"] += 1
                continue
            facts.mended += cleaned.mended > 0
            area = sum(polygon.area for polygon in cleaned.parts_P)
            facts.slivers += area < 1
            burn(label_HW, cleaned.parts_P, np.full(len(cleaned.parts_P), shape.class_id, np.uint8), 0, 0, all_touched)
        else:
            _stamp(label_HW, shape.mask_HW, shape.top, shape.left, shape.class_id)
        facts.shapes[lookup.name(shape.class_id)] += 1
        used += 1
    return label_HW if used else None


def _stamp(label_HW: NDArray[np.uint8], mask_HW: NDArray[np.bool_], top: int, left: int, class_id: int) -> None:
    bottom, right = min(top + mask_HW.shape[0], label_HW.shape[0]), min(left + mask_HW.shape[1], label_HW.shape[1])
    first_row, first_col = max(top, 0), max(left, 0)
    if first_row < bottom and first_col < right:
        part_HW = mask_HW[first_row - top : bottom - top, first_col - left : right - left]
        label_HW[first_row:bottom, first_col:right][part_HW] = class_id
