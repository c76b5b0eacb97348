"""Getting tiles ready for a model: read ahead in a thread, resampled, with every pixel that is not valid filled in.

A model sees the colours beneath a transparent pixel like any other. They are arbitrary (white, black, leftovers of
compression), so they are replaced by a mirror image of the valid pixels nearby and never change a valid pixel's class.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from salakseg.mapping.plan import MapPlan
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.resample import resample

MAX_WINDOW = 4096 * 4096
"""Pixels of the orthomosaic that are resampled at once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile that has been read.

    Attributes:
        row: Row in the grid of tiles.
        col: Column in the grid of tiles.
        image_CHW: Red, green, blue [3, tile, tile], uint8, filled where not valid.
        valid_HW: Valid pixels [tile, tile].
        empty: Whether no pixel is valid; there is nothing to infer then.
    """

    row: int
    col: int
    image_CHW: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]
    empty: bool


def read_ahead(
    orthomosaic: Orthomosaic, plan: MapPlan, positions: Iterable[tuple[int, int]], reader: Executor, depth: int
) -> Iterator[Tile]:
    """Reads and fills tiles in the background, while the caller is busy with the ones before.

    Args:
        orthomosaic: Read by the reader only as long as this runs: a GDAL handle serves one thread at a time.
        plan: Where the tiles lie.
        positions: Grid row and grid column of each tile.
        reader: An executor with exactly one worker, to be shut down before the orthomosaic is closed.
        depth: Tiles that may wait.

    Yields:
        The tiles in the order of `positions`.

    Raises:
        RasterError: A part of the file cannot be read.
    """
    waiting: deque[Future[Tile]] = deque()
    for row, col in positions:
        waiting.append(reader.submit(read_tile, orthomosaic, plan, row, col))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def read_tile(orthomosaic: Orthomosaic, plan: MapPlan, row: int, col: int) -> Tile:
    """Reads one tile and fills its pixels that are not valid.

    Raises:
        RasterError: A part of the file cannot be read.
    """
    side = plan.grid.rows.tile
    top, left = plan.grid.rows.start(row), plan.grid.cols.start(col)
    read = orthomosaic.read if plan.to_model.identity else _Resampled(orthomosaic, plan).read
    image_CHW, valid_HW = read(top, left, side, side)
    empty = not valid_HW.any()
    if not empty:
        fill_invalid(image_CHW, valid_HW)
    return Tile(row, col, image_CHW, valid_HW, empty)


class _Resampled:
    """An orthomosaic on the model's grid."""

    def __init__(self, orthomosaic: Orthomosaic, plan: MapPlan) -> None:
        self._orthomosaic = orthomosaic
        self._rows, self._cols = plan.to_model.rows, plan.to_model.cols

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As `Orthomosaic.read`, but in pixels of the model's grid and from its first row and column on."""
        image_CHW = np.zeros((3, height, width), np.uint8)
        valid_HW = np.zeros((height, width), np.bool_)
        bottom, right = min(row + height, self._rows.size_out), min(col + width, self._cols.size_out)
        wide = self._cols.step * (right - col) + 2
        part = max(1, int(MAX_WINDOW / wide / self._rows.step))
        for top in range(row, bottom, part):
            here = (slice(top - row, min(top + part, bottom) - row), slice(0, right - col))
            image_CHW[:, *here], valid_HW[here] = self._read_part(top, min(top + part, bottom), col, right)
        return image_CHW, valid_HW

    def _read_part(self, top: int, bottom: int, left: int, right: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The mean of the valid pixels only, so that no colour of a transparent one bleeds in."""
        row, row_end = self._rows.needed(top, bottom)
        col, col_end = self._cols.needed(left, right)
        source_CHW, valid_HW = self._orthomosaic.read(row, col, row_end - row, col_end - col)
        if not valid_HW.any():
            shape = bottom - top, right - left
            return np.zeros((3, *shape), np.uint8), np.zeros(shape, np.bool_)
        rows, cols = self._rows.matrix(top, bottom), self._cols.matrix(left, right)
        weight_HW = resample(valid_HW.astype(np.float32), rows, cols)
        known_HW = weight_HW > 1e-6
        safe_HW = np.where(known_HW, weight_HW, np.float32(1))
        image_CHW = np.empty((3, *known_HW.shape), np.uint8)
        for band, band_HW in enumerate(source_CHW):
            mean_HW = resample(np.where(valid_HW, band_HW, 0).astype(np.float32), rows, cols) / safe_HW
            image_CHW[band] = np.rint(mean_HW).clip(0, 255)
        return image_CHW, known_HW


def fill_invalid(image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> None:
    """Fills pixels that are not valid, in place, from the valid ones alone.

    Each takes the pixel that lies as far behind the nearest valid pixel as it lies before it (a mirror image, which
    keeps the texture up to the border), or the nearest valid pixel itself where the mirror shows no valid one.

    Args:
        image_CHW: Any number of bands [C, H, W]; changed.
        valid_HW: Valid pixels [H, W]; at least one.
    """
    if valid_HW.all():
        return
    nearest = ndimage.distance_transform_edt(~valid_HW, return_distances=False, return_indices=True)
    hole = np.nonzero(~valid_HW)
    near_rows, near_cols = nearest[0][hole], nearest[1][hole]
    rows, cols = 2 * near_rows - hole[0], 2 * near_cols - hole[1]
    height, width = valid_HW.shape
    usable = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    usable[usable] = valid_HW[rows[usable], cols[usable]]
    rows, cols = np.where(usable, rows, near_rows), np.where(usable, cols, near_cols)
    image_CHW[:, hole[0], hole[1]] = image_CHW[:, rows, cols]
