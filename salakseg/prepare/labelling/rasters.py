"""Label rasters: class indices, palettes and pictures in class colours, with a grid of their own."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.classes import ClassMap
from salakseg.errors import DataError
from salakseg.mapping.opening import without_place
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling.frame import check_size, source_frame
from salakseg.prepare.labelling.label_facts import LabelFacts
from salakseg.prepare.labelling.label_lookup import UNLABELLED
from salakseg.prepare.labelling.nearest import PixelMap, affine_map, projected_map
from salakseg.prepare.labelling.placing import place, to_coordinates
from salakseg.prepare.labelling.raster_codes import Decoder, survey

_LARGEST = 2**26
"""Label pixels that are held at once; labels far finer than the source are read in parts."""


class RasterLabels:
    """A label raster on the grid of a source, by the nearest pixel.

    A pixel of the source takes the label of the label pixel that its centre falls into; where both have the same grid,
    labels are taken as they are. What has no data in the file, or lies beyond it, is unlabelled.

    The whole file is gone through once when it is opened: whether it holds indices or colours shows on all its pixels
    alone, and a value that is no class is told before the work instead of in its midst.

    Args:
        path: The file, in any format that GDAL reads.
        grid: The source's pixels.
        source: The source, whose pixels a raster that names no place must match.
        class_map: The classes.

    Attributes:
        facts: What was found.
        placed: Whether the file says where it lies.

    Raises:
        DataError: The file cannot be read, does not say where it lies and is not of the source's size, or holds what
            is no label.
    """

    def __init__(self, path: Path, grid: Grid, source: Path, class_map: ClassMap) -> None:
        self._path = path
        self._dataset = _open(path)
        try:
            self._map, self.placed = _pixel_map(self._dataset, path, grid, source)
            self.facts = LabelFacts(path, "a label raster")
            self._decoder: Decoder = survey(self._dataset, path, class_map, self.facts)
        except BaseException:
            self._dataset.close()
            raise
        self._grid = grid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._dataset.close()

    def reaches(self) -> bool:
        """Whether the raster and the source share any ground."""
        if not self.placed:
            return True
        transform, width, height = self._dataset.transform, self._dataset.width, self._dataset.height
        outline_N2 = to_coordinates(np.array([(0.0, 0), (width, 0), (width, height), (0, height)]), transform)
        crs = None if self._dataset.crs == self._grid.crs else self._dataset.crs
        return len(place(np.array([shapely.Polygon(outline_N2)]), crs, self._grid)[0]) > 0

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        """Labels of a window within the grid, uint8 [height, width]: classes, `IGNORED` or `UNLABELLED`."""
        label_HW = np.full((height, width), UNLABELLED, np.uint8)
        row_HW, col_HW = self._map(row, col, height, width)
        inside_HW = self._inside(row_HW, col_HW)
        if not inside_HW.any():
            return label_HW
        rows, cols = row_HW[inside_HW], col_HW[inside_HW]
        top, left, bottom, right = int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1
        if (bottom - top) * (right - left) > _LARGEST and height * width > 1:
            half_height, half_width = (height // 2, width) if height >= width else (height, width // 2)
            label_HW[:half_height, :half_width] = self.read(row, col, half_height, half_width)
            if height >= width:
                label_HW[half_height:] = self.read(row + half_height, col, height - half_height, width)
            else:
                label_HW[:, half_width:] = self.read(row, col + half_width, height, width - half_width)
            return label_HW
        stored_HW = self._decoder.read(self._dataset, self._path, Window(left, top, right - left, bottom - top))
        label_HW[inside_HW] = stored_HW[rows - top, cols - left]
        return label_HW

    def _inside(self, row_HW: NDArray[np.int64], col_HW: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (
            (row_HW >= 0) & (row_HW < self._dataset.height) & (col_HW >= 0) & (col_HW < self._dataset.width)
        )
        return inside


def _open(path: Path) -> Any:  # noqa: ANN401
    try:
        with without_place():
            return rasterio.open(path)
    except RasterioError as error:
        raise DataError(f"{path} is no raster that can be read, or it is damaged ({error}); export it anew.") from error


def _pixel_map(
    dataset: Any,  # noqa: ANN401
    path: Path,
    grid: Grid,
    source: Path,
) -> tuple[PixelMap, bool]:
    """The map to the raster's pixels, and whether it follows from where both lie."""
    placed = dataset.crs is not None and not dataset.transform.is_identity
    if grid.crs is not None and placed:
        if dataset.crs == grid.crs:
            return affine_map(_between(dataset.transform, grid.transform)), True
        return projected_map(grid, dataset.crs, dataset.transform), True
    if grid.crs is None and dataset.crs is None and not (dataset.transform.is_identity or grid.transform.is_identity):
        return affine_map(_between(dataset.transform, grid.transform)), True
    frame = source_frame(grid, source)
    if grid.crs is not None and (dataset.height, dataset.width) != (frame.height, frame.width):
        raise DataError(
            f"{path} does not say where it lies, and its {dataset.height} x {dataset.width} pixels are not the "
            f"{frame.height} x {frame.width} of {source.name}; georeference it, or export it on that grid."
        )
    check_size(path, "the mask", (dataset.height, dataset.width), frame, source)
    return affine_map(frame.to_source), False


def _between(label: Affine, grid: Affine) -> Affine:
    """From the grid's column and row to those of the label raster."""
    # Their origins are taken apart before anything is divided: coordinates have seven digits before the point.
    moved = Affine(grid.a, grid.b, grid.c - label.c, grid.d, grid.e, grid.f - label.f)
    between: Affine = ~Affine(label.a, label.b, 0.0, label.d, label.e, 0.0) @ moved
    return between
