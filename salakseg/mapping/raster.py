"""Reading an orthomosaic: where it lies, its colours as 8 bits, which pixels are valid.

Axes: C red, green, blue; H rows from the top; W columns from the left.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.errors import RasterError
from salakseg.mapping.geodesy import pixel_size
from salakseg.mapping.opening import SourceOptions, open_dataset, told_bands
from salakseg.mapping.stretch import percentile_stretch
from salakseg.mapping.validity import valid_mask

GDAL_CACHE_BYTES = 128 * 2**20

_PART = 2048
"""Side of the windows in which a whole file is gone through, pixels."""


class Orthomosaic:
    """An open orthomosaic. Use it as a context manager; one thread at a time may read from it.

    Args:
        path: The file, in any format that GDAL reads.
        options: How it is to be read. A stretch that is still to be found is found by `settle_stretch`.

    Attributes:
        path: The file.
        options: How it is read.
        finds_stretch: Whether the range of its values is found by `settle_stretch`.
        crs: Coordinate reference system, a `rasterio.crs.CRS`; None if the file names none.
        transform: From (column, row) to coordinates, an `affine.Affine`.
        height: Rows.
        width: Columns.
        bands: One-based indices of the red, green and blue bands.
        pixel_m: Metres on the ground from column to column and from row to row; None if the CRS is unknown.
        gsd_m: Ground sampling distance, the geometric mean of the two; None if the CRS is unknown.
        guess: A sentence for the user where nobody says which bands are red, green and blue; else None.
        bad_blocks: Blocks that could not be read so far and were skipped: row, column, height, width in pixels.

    Raises:
        RasterError: The file is missing, no raster, not RGB, of another depth, or not georeferenced.
    """

    def __init__(self, path: Path, options: SourceOptions | None = None) -> None:
        self.path = path
        self.options = options or SourceOptions()
        self.finds_stretch = self.options.stretch == "percentile"
        self._dataset, self.bands = open_dataset(path, self.options)
        self.guess: str | None = None
        if self.options.bands is None and told_bands(self._dataset) is None:
            self.guess = (
                f"{path} does not say which of its {self._dataset.count} bands are red, green and blue; bands "
                f"{','.join(map(str, self.bands))} are taken for them, other ones by --bands."
            )
        self.crs: Any = self._dataset.crs or None
        self.transform: Any = self._dataset.transform
        self.height: int = self._dataset.height
        self.width: int = self._dataset.width
        self.pixel_m = pixel_size(self.crs, self.transform, self.height, self.width)
        self.gsd_m = None if self.pixel_m is None else math.sqrt(self.pixel_m[0] * self.pixel_m[1])
        self.bad_blocks: set[tuple[int, int, int, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._dataset.close()

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Reads a window, which may lie partly or wholly beyond the raster.

        Args:
            row: First row; may be negative.
            col: First column; may be negative.
            height: Rows of the window.
            width: Columns of the window.

        Returns:
            image_CHW [3, height, width] uint8, red green blue, 0 beyond the raster; and valid_HW [height, width],
            False beyond the raster and where the file marks no data (alpha 0, nodata in all bands, mask) or holds
            values that are not numbers.

        Raises:
            RasterError: A part of the file cannot be read.
        """
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.height), min(col + width, self.width)
        if (top, left, bottom, right) == (row, col, row + height, col + width):  # nothing beyond: no need to copy
            values_CHW, valid_HW = self._read_window(Window(left, top, width, height))
            return self._to_8_bit(values_CHW), valid_HW
        image_CHW = np.zeros((3, height, width), np.uint8)
        valid_HW = np.zeros((height, width), np.bool_)
        if top < bottom and left < right:
            inside = (slice(top - row, bottom - row), slice(left - col, right - col))
            values_CHW, valid_HW[inside] = self._read_window(Window(left, top, right - left, bottom - top))
            image_CHW[:, *inside] = self._to_8_bit(values_CHW)
        return image_CHW, valid_HW

    def state(self) -> dict[str, str]:
        """Size and time of last change of the files that it consists of, as text by name."""
        found = {self._told(file): file.stat() for file in self.files}
        return {name: f"{one.st_size} bytes, changed {one.st_mtime_ns}" for name, one in found.items()}

    @property
    def changed_ns(self) -> int:
        """When the last of these files was changed, nanoseconds as the system counts them."""
        return max((file.stat().st_mtime_ns for file in self.files), default=0)

    @property
    def files(self) -> list[Path]:
        """What it consists of, without overviews and the statistics that QGIS leaves beside: they change no pixel."""
        files = (Path(file) for file in self._dataset.files)
        return sorted(file for file in files if file.is_file() and not file.name.lower().endswith((".ovr", ".aux.xml")))

    def _told(self, file: Path) -> str:
        """The name of one of its files: parts of a VRT may have the same in different folders."""
        try:
            return Path(os.path.relpath(file, self.path.parent)).as_posix()
        except ValueError:  # another drive
            return file.as_posix()

    def read_small(self, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Reads the whole raster at another size, at most its own.

        Returns:
            image_CHW [3, height, width] and valid_HW [height, width] as `read`.

        Raises:
            RasterError: A part of the file cannot be read.
        """
        try:
            values_CHW, valid_HW = self._read(Window(0, 0, self.width, self.height), (height, width))
        except RasterError:
            if not self.options.skip_bad_blocks:
                raise
            values_CHW, valid_HW = self._read_parts(height, width)
        return self._to_8_bit(values_CHW), valid_HW

    def settle_stretch(self) -> None:
        """Finds the range of values for "percentile" by reading the whole file twice, and keeps it in `options`.

        Raises:
            RasterError: A part of the file cannot be read, or it has no range of values.
        """
        if self.options.stretch != "percentile":
            return

        def values() -> Iterator[NDArray[np.generic]]:
            for window in self._windows():
                values_CHW, valid_HW = self._read_window(window)
                yield values_CHW[:, valid_HW]

        try:
            self.options = replace(self.options, stretch=percentile_stretch(values))
        except ValueError as error:
            raise RasterError(f"{self.path} gives no range for --scale percentile: {error}.") from error

    def _windows(self) -> Iterator[Window]:
        for row in range(0, self.height, _PART):
            for col in range(0, self.width, _PART):
                yield Window(col, row, min(_PART, self.width - col), min(_PART, self.height - row))

    def _to_8_bit(self, values_CHW: NDArray[np.generic]) -> NDArray[np.uint8]:
        stretch = self.options.stretch
        assert stretch != "percentile", "settle_stretch comes first"
        return values_CHW.astype(np.uint8, copy=False) if stretch is None else stretch.apply(values_CHW)

    def _read_window(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        try:
            return self._read(window)
        except RasterError:
            if not self.options.skip_bad_blocks:
                raise
            return self._read_good_blocks(window)

    def _read(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        image_shape = None if shape is None else (3, *shape)
        resampling = Resampling.nearest if shape is None else Resampling.average
        try:
            values_CHW = self._dataset.read(self.bands, window=window, out_shape=image_shape, resampling=resampling)
            valid_HW = valid_mask(self._dataset, window, shape)
        except RasterioError as error:
            self._reopen()
            raise RasterError(
                f"{self.path} cannot be read at row {window.row_off}, column {window.col_off}; the file is damaged or "
                "incomplete: copy or export it again, or map the rest with --skip-bad-blocks."
            ) from error
        if values_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(values_CHW).all(axis=0)
        return values_CHW, valid_HW

    def _reopen(self) -> None:
        """A virtual raster fails only once over a part that is missing, and then reads zeros there."""
        self._dataset.close()
        self._dataset = open_dataset(self.path, self.options)[0]

    def _read_good_blocks(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Reads a window block by block; what cannot be read is not valid."""
        dtype = np.result_type(*(self._dataset.dtypes[band - 1] for band in self.bands))
        values_CHW = np.zeros((3, window.height, window.width), dtype)
        valid_HW = np.zeros((window.height, window.width), np.bool_)
        block_height, block_width = self._dataset.block_shapes[self.bands[0] - 1]
        bottom, right = window.row_off + window.height, window.col_off + window.width
        for top in range(window.row_off // block_height * block_height, bottom, block_height):
            for left in range(window.col_off // block_width * block_width, right, block_width):
                whole = (top, left, min(block_height, self.height - top), min(block_width, self.width - left))
                if whole in self.bad_blocks:
                    continue
                row, col = max(top, window.row_off), max(left, window.col_off)
                height, width = min(top + block_height, bottom) - row, min(left + block_width, right) - col
                above, before = row - window.row_off, col - window.col_off
                there = slice(above, above + height), slice(before, before + width)
                try:
                    values_CHW[:, *there], valid_HW[there] = self._read(Window(col, row, width, height))
                except RasterError:
                    self.bad_blocks.add(whole)
        return values_CHW, valid_HW

    def _read_parts(self, height: int, width: int) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """As `_read` of the whole file at another size, by the nearest pixels, part by part around bad blocks."""
        rows = ((np.arange(height) + 0.5) * self.height / height).astype(int)
        cols = ((np.arange(width) + 0.5) * self.width / width).astype(int)
        values_CHW = np.zeros((3, height, width), self._dataset.dtypes[self.bands[0] - 1])
        valid_HW = np.zeros((height, width), np.bool_)
        for window in self._windows():
            row = np.nonzero((rows >= window.row_off) & (rows < window.row_off + window.height))[0]
            col = np.nonzero((cols >= window.col_off) & (cols < window.col_off + window.width))[0]
            part_CHW, part_HW = self._read_window(window)
            picked = np.ix_(rows[row] - window.row_off, cols[col] - window.col_off)
            values_CHW[:, row[:, None], col], valid_HW[np.ix_(row, col)] = part_CHW[:, *picked], part_HW[picked]
        return values_CHW, valid_HW


def gdal_settings() -> rasterio.Env:
    """GDAL's settings while rasters are read and written, a context manager.

    Within it GDAL's own warnings go to the log instead of straight to the terminal, and its block cache, by default a
    share of the machine's memory, holds as much as a row of tiles needs.
    """
    return rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES)


def reduced_shape(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Height and width of a raster reduced to at most `max_side` pixels a side; never enlarged, never below one."""
    factor = min(1.0, max_side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
