"""Reading an orthomosaic at another ground sampling distance.

Axes: C red, green, blue; H rows from the top; W columns from the left.
"""

import numpy as np
from numpy.typing import NDArray

from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.resample import AxisResampler, resample

MAX_WINDOW = 4096 * 4096
"""Pixels of the orthomosaic that are resampled at once."""


class ResampledOrthomosaic:
    """An orthomosaic on a grid of other pixels from the same corner.

    Args:
        orthomosaic: Stays open, and its caller's to close.
        rows: From its rows to the grid's.
        cols: From its columns to the grid's.
    """

    def __init__(self, orthomosaic: Orthomosaic, rows: AxisResampler, cols: AxisResampler) -> None:
        self._orthomosaic = orthomosaic
        self._rows, self._cols = rows, cols

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As `Orthomosaic.read`, but in pixels of the grid and from its first row and column on."""
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
