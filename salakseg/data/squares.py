"""A grid of square blocks over ground, and which of them are neighbours. Axes: N patches, B blocks, O neighbours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REACH = 2
"""Rows and columns to either side that a block can have anything to do with.

The box around a block's patches reaches half a footprint beyond its square, at the most half a side. Where the buffer
is no wider than a side either, a footprint of the third square away is never nearer than the buffer."""


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """Blocks that hold a patch.

    Attributes:
        side_m: Side of a block in metres.
        block_N: Number of each patch's block, int64 [N].
        cell_B3: Site, row and column of each block, int64 [B, 3], in ascending order; rows are counted southwards,
            columns eastwards, both from the origin of the site's plane.
        box_B4: Box around the footprints of each block, as those of the patches, float64 [B, 4].
    """

    side_m: float
    block_N: NDArray[np.int64]
    cell_B3: NDArray[np.int64]
    box_B4: NDArray[np.float64]


def square_blocks(box_N4: NDArray[np.float64], site_N: NDArray[np.int64], side_m: float) -> Squares:
    """Groups patches by the square that their centre lies in.

    Args:
        box_N4: Least x, least y, greatest x and greatest y of each footprint in metres [N, 4].
        site_N: Number of the plane that the coordinates are in [N].
        side_m: Side of a square, above 0.
    """
    centre_N2 = (box_N4[:, :2] + box_N4[:, 2:]) / 2
    row_N, col_N = np.floor(-centre_N2[:, 1] / side_m), np.floor(centre_N2[:, 0] / side_m)
    cell_N3 = np.stack([site_N, row_N.astype(np.int64), col_N.astype(np.int64)], axis=1)
    cell_B3, block_N = np.unique(cell_N3, axis=0, return_inverse=True)
    box_B4 = np.full((len(cell_B3), 4), np.inf)
    for side, sign in enumerate((1, 1, -1, -1)):
        np.minimum.at(box_B4[:, side], block_N, sign * box_N4[:, side])
    return Squares(side_m, block_N, cell_B3, box_B4 * (1, 1, -1, -1))


def neighbours(squares: Squares) -> NDArray[np.int64]:
    """Numbers of the blocks up to `REACH` rows and columns away, int64 [B, O]; -1 where there is none."""
    span = range(-REACH, REACH + 1)
    offsets = [(row, col) for row in span for col in span if (row, col) != (0, 0)]
    number = {tuple(cell): block for block, cell in enumerate(squares.cell_B3.tolist())}
    found = [
        [number.get((site, row + down, col + right), -1) for down, right in offsets]
        for site, row, col in squares.cell_B3.tolist()
    ]
    return np.array(found, np.int64).reshape(len(squares.cell_B3), len(offsets))
