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
from salakseg.mapping.resampled import ResampledOrthomosaic


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
    read = (
        orthomosaic.read
        if plan.to_model.identity
        else ResampledOrthomosaic(orthomosaic, plan.to_model.rows, plan.to_model.cols).read
    )
    image_CHW, valid_HW = read(top, left, side, side)
    empty = not valid_HW.any()
    if not empty:
        fill_invalid(image_CHW, valid_HW)
    return Tile(row, col, image_CHW, valid_HW, empty)


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
