"""Polygons to pixels.

Polygons are in pixel coordinates here: x columns from the left edge, y rows from the top edge, so that pixel
(row, column) covers x from column to column + 1 and its centre is at column + 0.5, row + 0.5.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio import features

from salakseg.prepare.labelling.label_lookup import UNLABELLED

BLOCK_HEIGHT, BLOCK_WIDTH = 512, 2048
"""Rows and columns that are burned at once: a block is burned for many patches, and a row of blocks fits in memory."""

_MANY = 64
"""Vertices from which on it pays to drop those that a block does not need."""

_POLYGONAL = (3, 6)
_COLLECTION = 7


@dataclass(slots=True)
class Cleaned:
    """Polygons that can be burned.

    Attributes:
        parts_P: Polygons without parts, [P].
        shape_P: Which of the given shapes each is from, ascending, [P].
        left_out: Shapes that gave no polygon, by reason.
        mended: Shapes that were not valid.
    """

    parts_P: NDArray[Any]
    shape_P: NDArray[np.intp]
    left_out: Counter[str]
    mended: int


def clean_polygons(shapes_N: NDArray[Any]) -> Cleaned:
    """Mends what is not valid and takes polygons apart.

    An outline that crosses itself encloses all that it goes around, and parts that overlap are one.

    Args:
        shapes_N: Shapely geometries of any kind, or None, [N].
    """
    left_out: Counter[str] = Counter()
    shapes_N = shapely.force_2d(shapes_N)
    empty = shapely.is_missing(shapes_N) | shapely.is_empty(shapes_N)
    left_out["without geometry"] = int(empty.sum())
    kind = shapely.get_type_id(shapes_N)
    lines = ~empty & ~np.isin(kind, (*_POLYGONAL, _COLLECTION))
    left_out["that are points or lines"] = int(lines.sum())
    points, of = shapely.get_coordinates(shapes_N, return_index=True)
    endless = ~empty & ~lines & np.isin(np.arange(len(shapes_N)), of[~np.isfinite(points).all(axis=1)])
    left_out["with coordinates that are no numbers"] = int(endless.sum())
    usable = np.flatnonzero(~empty & ~lines & ~endless)
    valid = shapely.is_valid(shapes_N[usable])
    whole = shapes_N[usable].copy()
    whole[~valid] = shapely.make_valid(whole[~valid], method="structure", keep_collapsed=False)
    parts, index = shapely.get_parts(whole, return_index=True)
    while (shapely.get_type_id(parts) > _POLYGONAL[0]).any():  # collections within collections
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    keep = (shapely.get_type_id(parts) == _POLYGONAL[0]) & (shapely.area(parts) > 0)
    parts, index = parts[keep], usable[index[keep]]
    left_out["without area"] = len(usable) - len(np.unique(index))
    return Cleaned(parts, index, +left_out, int((~valid).sum()))


class ShapeLabels:
    """Polygons as labels on a grid, burned block by block; later ones cover earlier ones.

    A pixel is of a polygon that holds its centre. What is burned does not depend on the block: polygons are moved by
    whole pixels alone and none of their edges is cut.

    Args:
        parts_P: Valid polygons without parts in the grid's pixel coordinates, the bottom one first, [P].
        class_ids_P: What each burns, uint8 [P].
        height: Rows of the grid.
        width: Columns of the grid.
        all_touched: Burn all pixels that a polygon touches.
    """

    def __init__(
        self, parts_P: NDArray[Any], class_ids_P: NDArray[np.uint8], height: int, width: int, all_touched: bool = False
    ) -> None:
        self._parts_P, self._class_ids_P = parts_P, class_ids_P
        self._height, self._width, self._all_touched = height, width, all_touched
        self._tree = shapely.STRtree(parts_P)
        self._blocks: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._kept = 4 + 2 * (width // BLOCK_WIDTH + 1)  # patches that overlap lie on two rows of blocks

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        """What is burned in a window within the grid, uint8 [height, width]; `UNLABELLED` elsewhere."""
        label_HW = np.full((height, width), UNLABELLED, np.uint8)
        bottom, right = row + height, col + width
        for top in range(row // BLOCK_HEIGHT * BLOCK_HEIGHT, bottom, BLOCK_HEIGHT):
            for left in range(col // BLOCK_WIDTH * BLOCK_WIDTH, right, BLOCK_WIDTH):
                block_HW = self._block(top, left)
                rows = slice(max(row, top), min(bottom, top + block_HW.shape[0]))
                cols = slice(max(col, left), min(right, left + block_HW.shape[1]))
                label_HW[rows.start - row : rows.stop - row, cols.start - col : cols.stop - col] = block_HW[
                    rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
                ]
        return label_HW

    def close(self) -> None:
        """Forgets what was burned."""
        self._blocks.clear()

    def _block(self, top: int, left: int) -> NDArray[np.uint8]:
        block_HW = self._blocks.pop((top, left), None)
        if block_HW is None:
            height, width = min(BLOCK_HEIGHT, self._height - top), min(BLOCK_WIDTH, self._width - left)
            inside = np.sort(self._tree.query(shapely.box(left - 1, top - 1, left + width + 1, top + height + 1)))
            block_HW = np.full((height, width), UNLABELLED, np.uint8)
            burn(block_HW, self._parts_P[inside], self._class_ids_P[inside], top, left, self._all_touched)
            while len(self._blocks) >= self._kept:
                self._blocks.popitem(last=False)
        self._blocks[top, left] = block_HW
        return block_HW


def burn(
    label_HW: NDArray[np.uint8],
    parts_P: NDArray[Any],
    class_ids_P: NDArray[np.uint8],
    top: int = 0,
    left: int = 0,
    all_touched: bool = False,
) -> None:
    """Burns polygons into a window, the first one first.

    Args:
        label_HW: uint8 [H, W], changed in place.
        parts_P: Polygons without parts in pixel coordinates, [P].
        class_ids_P: uint8 [P].
        top: The window's first row.
        left: The window's first column.
        all_touched: Burn all pixels that a polygon touches.
    """
    height, width = label_HW.shape
    reach = (left - 1, top - 1, left + width + 1, top + height + 1)
    shapes = []
    for polygon, class_id in zip(parts_P, class_ids_P.tolist(), strict=True):
        rings = [
            needed_vertices(shapely.get_coordinates(ring), *reach) for ring in (polygon.exterior, *polygon.interiors)
        ]
        rings = [ring for ring in rings if len(ring) > 3]
        if rings:
            shapes.append(({"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]}, class_id))
    if shapes:
        features.rasterize(shapes, out=label_HW, transform=Affine.translation(left, top), all_touched=all_touched)


def needed_vertices(
    ring_V2: NDArray[np.float64], left: float, top: float, right: float, bottom: float
) -> NDArray[np.float64]:
    """A ring without the vertices that say nothing within a box.

    A run of vertices that all lie to the left of the box (or to its right, above or below it) may go straight from its
    first to its last one: the same pixels of the box are within. Edges that reach the box stay as they are to the last
    bit, which clipping would not grant, so that every window burns the same.

    Args:
        ring_V2: Closed ring, x and y, [V, 2].
        left: Box.
        top: Box.
        right: Box.
        bottom: Box.

    Returns:
        Closed ring, at most [V, 2]; empty if no part is needed.
    """
    if len(ring_V2) < _MANY:
        return ring_V2
    x, y = ring_V2[:-1, 0], ring_V2[:-1, 1]
    side = np.select([y < top, y > bottom, x < left, x > right], [1, 2, 3, 4], 0)
    needed = (side == 0) | (side != np.roll(side, 1)) | (side != np.roll(side, -1))
    if not needed.any():
        return ring_V2[:0]
    # By the turn at its lowest vertex, of several the rightmost, GDAL tells which way round a ring runs, and by that
    # which of the edges that lead exactly through centres it fills; where that is not one turn, by the whole ring
    lowest = np.flatnonzero(y == y.min())
    turn = int(lowest[np.argmax(x[lowest])])
    three = [turn - 1, turn, (turn + 1) % len(needed)]
    (one_x, two_x), (one_y, two_y) = np.diff(x[three]), np.diff(y[three])
    if one_x * two_y == two_x * one_y or np.count_nonzero(x[lowest] == x[turn]) > 1:
        return ring_V2
    needed[three] = True
    kept = ring_V2[:-1][needed]
    return np.concatenate([kept, kept[:1]])


def read_within(
    read: Callable[[int, int, int, int], NDArray[np.uint8]],
    shape: tuple[int, int],
    row: int,
    col: int,
    height: int,
    width: int,
) -> NDArray[np.uint8]:
    """Reads a window that may lie partly or wholly beyond a grid, where it is `UNLABELLED`.

    Args:
        read: Reads a window within the grid.
        shape: Rows and columns of the grid.
        row: First row; may be negative.
        col: First column; may be negative.
        height: Rows of the window.
        width: Columns of the window.

    Returns:
        uint8 [height, width], not shared with anybody.
    """
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + height, shape[0]), min(col + width, shape[1])
    label_HW = np.full((height, width), UNLABELLED, np.uint8)
    if top < bottom and left < right:
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        label_HW[inside] = read(top, left, bottom - top, right - left)
    return label_HW
