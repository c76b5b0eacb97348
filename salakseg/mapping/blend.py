"""Mixing the probabilities of overlapping tiles, a row of tiles at a time.

Memory holds one row of tiles of one panel, however high and wide the raster is: as soon as no further tile can reach a
row of pixels, it leaves. Axes: K classes, H rows, W columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salakseg.mapping.tiling import TileGrid


@dataclass(frozen=True, slots=True)
class BlendedRows:
    """Rows of the model's grid to which no tile can add any more.

    Attributes:
        tile_row: The row of tiles that completed them.
        row: The first of them.
        prob_KHW: Class probabilities, float32, summing to one over K where every tile over the pixel was added; to be
            used before the next rows are asked for.
        valid_HW: Valid pixels of the tiles that were added; likewise.
    """

    tile_row: int
    row: int
    prob_KHW: NDArray[np.float32]
    valid_HW: NDArray[np.bool_]


class Blender:
    """Adds up weighted probabilities for a panel of columns and hands out the rows that are finished.

    Tiles must come in ascending grid rows; tiles without a valid pixel may be left out. The sum at a pixel is taken in
    the order of the tiles, whatever the panel and the first row: it is the same to the bit.

    Args:
        grid: The tiles of the raster.
        classes: Number of classes, K.
        start: First column of the panel.
        stop: Column after the panel's last.
        first: Row of tiles to begin with. Rows of pixels that an earlier one reaches come out incomplete.
    """

    def __init__(self, grid: TileGrid, classes: int, start: int, stop: int, first: int = 0) -> None:
        self._grid = grid
        self._start, self._stop = start, stop
        self._row = first  # grid row that the buffers begin with
        tile = grid.rows.tile
        self._sum_KHW = np.zeros((classes, tile, stop - start), np.float32)
        self._valid_HW = np.zeros((tile, stop - start), np.bool_)

    def finished_before(self, row: int) -> Iterator[BlendedRows]:
        """Yields the rows that grid row `row` and those below do not reach; to be called before `add` goes there.

        `row` may be the number of grid rows: then all that is left comes out, down to the raster's last row.
        """
        rows = self._grid.rows
        while self._row < row:
            start = rows.start(self._row)
            last = self._row == rows.count - 1
            height = rows.size - start if last else rows.stride
            yield BlendedRows(self._row, start, self._sum_KHW[:, :height], self._valid_HW[:height])
            self._move_up(height)

    def add(self, row: int, col: int, prob_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> None:
        """Adds a tile.

        Args:
            row: Grid row of the tile, the one that `finished_before` was last told.
            col: Grid column of the tile, one that touches the panel.
            prob_KHW: Class probabilities [K, tile, tile].
            valid_HW: Valid pixels [tile, tile].
        """
        assert row == self._row, f"tile row {row} after {self._row}"
        tile = self._grid.cols.tile
        offset = self._grid.cols.start(col) - self._start
        there = slice(max(0, offset), min(self._stop - self._start, offset + tile))
        here = slice(there.start - offset, there.stop - offset)
        weights = self._grid.weights(row, col)[:, here]
        for sum_HW, prob_HW in zip(self._sum_KHW, prob_KHW, strict=True):  # class by class stays in the cache
            sum_HW[:, there] += prob_HW[:, here] * weights
        self._valid_HW[:, there] |= valid_HW[:, here]

    def _move_up(self, height: int) -> None:
        kept = self._valid_HW.shape[0] - height
        self._sum_KHW[:, :kept] = self._sum_KHW[:, height:]
        self._sum_KHW[:, kept:] = 0.0
        self._valid_HW[:kept] = self._valid_HW[height:]
        self._valid_HW[kept:] = False
        self._row += 1
