"""Mixing the probabilities of overlapping tiles, a stripe of rows at a time.

Memory holds one tile row of one panel, however high and wide the raster is: as soon as no further tile can reach a
row, its most probable classes leave as a `Stripe`. Axes: K classes, H rows, W columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX
from salakseg.mapping.tiling import TileGrid


@dataclass(frozen=True, slots=True)
class Stripe:
    """Finished rows of a map.

    Attributes:
        row: First row on the raster.
        col: First column on the raster.
        label_HW: Class ids, uint8; 255 where the orthomosaic is not valid.
    """

    row: int
    col: int
    label_HW: NDArray[np.uint8]


class StripeBlender:
    """Adds up weighted probabilities for a panel of columns and hands out each stripe that is finished.

    Tiles must come in ascending grid rows; tiles without a valid pixel may be left out.

    Args:
        grid: The tiles of the raster.
        classes: Number of classes, K.
        start: First column of the panel.
        stop: Column after the panel's last.
    """

    def __init__(self, grid: TileGrid, classes: int, start: int, stop: int) -> None:
        self._grid = grid
        self._start, self._stop = start, stop
        self._row = 0  # grid row that the buffers begin with
        tile = grid.rows.tile
        self._sum_KHW = np.zeros((classes, tile, stop - start), np.float32)
        self._valid_HW = np.zeros((tile, stop - start), np.bool_)

    def finished_before(self, row: int) -> Iterator[Stripe]:
        """Yields the stripes that grid row `row` and those below do not reach; to be called before `add` goes there."""
        while self._row < row:
            yield self._release(self._grid.rows.stride)

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
        self._sum_KHW[:, :, there] += prob_KHW[:, :, here] * self._grid.weights(row, col)[:, here]
        self._valid_HW[:, there] |= valid_HW[:, here]

    def finish(self) -> Iterator[Stripe]:
        """Yields all that is left, down to the raster's last row."""
        yield from self.finished_before(self._grid.rows.count - 1)
        yield self._release(self._grid.rows.size - self._grid.rows.start(self._row))

    def _release(self, height: int) -> Stripe:
        """Takes the upper `height` rows out of the buffers and moves the rest up."""
        label_HW = _strongest(self._sum_KHW[:, :height])
        label_HW[~self._valid_HW[:height]] = IGNORE_INDEX
        stripe = Stripe(self._grid.rows.start(self._row), self._start, label_HW)
        kept = self._valid_HW.shape[0] - height
        self._sum_KHW[:, :kept] = self._sum_KHW[:, height:]
        self._sum_KHW[:, kept:] = 0.0
        self._valid_HW[:kept] = self._valid_HW[height:]
        self._valid_HW[kept:] = False
        self._row += 1
        return stripe


def _strongest(sum_KHW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The argmax over classes, class by class: numpy's own copies the whole array and counts in int64."""
    best_HW = sum_KHW[0].copy()
    label_HW = np.zeros(best_HW.shape, np.uint8)
    for class_id in range(1, len(sum_KHW)):
        np.copyto(label_HW, np.uint8(class_id), where=sum_KHW[class_id] > best_HW)
        np.maximum(best_HW, sum_KHW[class_id], out=best_HW)
    return label_HW
