"""Which pixel of another raster the centre of a pixel falls into."""

from collections.abc import Callable
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling.placing import project, to_coordinates, to_pixels

PixelMap = Callable[[int, int, int, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""From a window (row, column, height, width) to the rows and columns of the other raster's pixels, int64
[height, width] each; they may lie beyond it, and are -1 where there is no way. What is found of a pixel does not depend
on the window."""

_NUDGE = 1e-5
"""Pixels; a centre that lies on an edge but for rounding always falls to the same side, not to either at random."""

_STEP = 16
"""Pixels between the points that are really projected. Between them a projection is straight to far below a hundredth
of a pixel, and they are the same for every window."""


def affine_map(transform: Affine) -> PixelMap:
    """The map where columns and rows follow from columns and rows.

    Args:
        transform: From the grid's (column, row) to the other raster's.
    """

    def pixels(row: int, col: int, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        y_H1 = np.arange(row, row + height)[:, None] + 0.5
        x_1W = np.arange(col, col + width)[None] + 0.5
        return (
            _whole(transform.d * x_1W + (transform.e * y_H1 + transform.f)),
            _whole(transform.a * x_1W + (transform.b * y_H1 + transform.c)),
        )

    return pixels


def projected_map(grid: Grid, crs: Any, transform: Affine) -> PixelMap:  # noqa: ANN401
    """The map to a raster in another reference system.

    Args:
        grid: The grid, with a reference system.
        crs: That of the other raster, a `rasterio.crs.CRS`.
        transform: Its own, from (column, row) to coordinates.
    """

    def pixels(row: int, col: int, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        nodes_y = np.arange(row // _STEP, (row + height) // _STEP + 2)
        nodes_x = np.arange(col // _STEP, (col + width) // _STEP + 2)
        node_x, node_y = np.meshgrid(nodes_x * float(_STEP), nodes_y * float(_STEP))
        nodes_N2 = to_coordinates(np.stack([node_x.ravel(), node_y.ravel()], axis=1), grid.transform)
        there_N2 = to_pixels(project(nodes_N2, grid.crs, crs), transform)
        there_YX2 = there_N2.reshape(*node_x.shape, 2)
        at_y, at_x = (np.arange(row, row + height) + 0.5) / _STEP, (np.arange(col, col + width) + 0.5) / _STEP
        i, j = np.floor(at_y).astype(np.int64), np.floor(at_x).astype(np.int64)
        down_H11, right_1W1 = (at_y - i)[:, None, None], (at_x - j)[None, :, None]
        i, j = i - nodes_y[0], j - nodes_x[0]
        above = there_YX2[i][:, j] * (1 - right_1W1) + there_YX2[i][:, j + 1] * right_1W1
        below = there_YX2[i + 1][:, j] * (1 - right_1W1) + there_YX2[i + 1][:, j + 1] * right_1W1
        found = above * (1 - down_H11) + below * down_H11
        return _whole(found[..., 1]), _whole(found[..., 0])

    return pixels


def _whole(at_HW: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.nan_to_num(np.floor(at_HW + _NUDGE), nan=-1.0, posinf=-1.0, neginf=-1.0).clip(-1, 2**40).astype(np.int64)
