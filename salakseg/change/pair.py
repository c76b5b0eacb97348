"""Two maps on one grid: that of the coarser one, where both of them lie.

Axes: H rows from the top, W columns from the left, K classes.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import RasterError
from salakseg.evaluate.strata import LandCover, open_land_cover
from salakseg.mapping.areas import pixel_areas
from salakseg.mapping.opening import without_place
from salakseg.mapping.raster import gdal_settings

STRIP = 512
"""Rows that are read at once."""

_MAJORITY_FROM = 1.5  # times as fine a map must be for the most frequent class of a coarse pixel to be asked for
_OUTLINE = 33  # points along each side, since a straight edge is bent in another reference system


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two maps and the grid that they are compared on.

    Attributes:
        old, new: The maps.
        class_map: The classes, those of the old map, K; the new one's are found by name.
        crs: Reference system of the grid, a `rasterio.crs.CRS`; None if neither map names one.
        transform: From (column, row) of the grid to coordinates.
        height: Rows of the grid.
        width: Columns of the grid.
        grid_of: "old" or "new": whose pixels it has.
        area_H: Square metres of a pixel in each row; None where the maps do not say where they lie.
    """

    old: LandCover
    new: LandCover
    class_map: ClassMap
    crs: Any
    transform: Any
    height: int
    width: int
    grid_of: str
    area_H: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Some rows of both maps.

    Attributes:
        row: The first row.
        old_HW, new_HW: Class ids of the pair's classes, uint8, 255 where nothing is known.
        confidence_HW: The lesser of both maps' confidence in percent, uint8, 255 where it is not known; None without
            rasters of it.
    """

    row: int
    old_HW: NDArray[np.uint8]
    new_HW: NDArray[np.uint8]
    confidence_HW: NDArray[np.uint8] | None


def open_pair(old: Path, new: Path, class_mapping: ClassMap | None = None) -> Pair:
    """Finds the grid on which two maps can be compared.

    Args:
        old: Map of class ids, uint8, 255 where nothing is known.
        new: Another one.
        class_mapping: Classes of both, where the maps do not tell them themselves.

    Raises:
        SampleError: One is missing, is no land-cover map or does not tell its classes.
        RasterError: They have other classes, only one says where it lies, or they do not overlap.
    """
    first, second = (open_land_cover(path, class_mapping) for path in (old, new))
    _refuse_other_classes(first, second)
    if (first.crs is None) != (second.crs is None):
        lost = first if first.crs is None else second
        raise RasterError(f"{lost.path} does not say where it lies, so it cannot be laid over the other map.")
    if first.crs is None and not first.grid.almost_equals(second.grid):
        raise RasterError(f"{old} and {new} lie at different places and name no reference system; give them their CRS.")
    base, other, grid_of = first, second, "old"
    if _pixel(second) > _pixel(first) * (1 + 1e-9):
        base, other, grid_of = second, first, "new"
    row, col, height, width = _overlap(base, other)
    transform = base.grid @ Affine.translation(col, row)
    area_H = None if base.crs is None else pixel_areas(base.crs, transform, height, width)
    return Pair(first, second, first.class_map, base.crs, transform, height, width, grid_of, area_H)


def strips(pair: Pair, old_confidence: Path | None = None, new_confidence: Path | None = None) -> Iterator[Strip]:
    """Goes through both maps from the top.

    Args:
        pair: The maps.
        old_confidence: Raster of percent, 255 where not known, as ``predict --confidence`` writes it.
        new_confidence: The same of the new map.

    Raises:
        RasterError: A file cannot be read.
    """
    to_old = [list(pair.class_map.names).index(name) for name in pair.new.class_map.names]
    lookup = np.full(256, IGNORE_INDEX, np.uint8)
    lookup[: len(to_old)] = to_old
    paths = [pair.old.path, pair.new.path, *(path for path in (old_confidence, new_confidence) if path is not None)]
    reading = paths[0]
    with gdal_settings(), without_place(), ExitStack() as stack:
        try:
            rasters = []
            for number, path in enumerate(paths):
                reading = path
                rasters.append(stack.enter_context(_on_grid(stack, pair, path, is_map=number < 2)))
            for row in range(0, pair.height, STRIP):
                window = Window(0, row, pair.width, min(STRIP, pair.height - row))
                found = []
                for path, raster in zip(paths, rasters, strict=True):
                    reading = path
                    found.append(raster.read(1, window=window))
                for path, percent_HW in zip(paths[2:], found[2:], strict=True):
                    _refuse_beyond_percent(path, percent_HW)
                confidence_HW = np.min(found[2:], axis=0) if len(found) > 2 else None
                if confidence_HW is not None:  # where one is not known, neither is the lesser
                    confidence_HW[np.any([one == IGNORE_INDEX for one in found[2:]], axis=0)] = IGNORE_INDEX
                yield Strip(row, found[0], lookup[found[1]], confidence_HW)
        except RasterioError as error:
            raise RasterError(f"{reading} cannot be read to its end ({error}); copy it again.") from error


def _on_grid(stack: ExitStack, pair: Pair, path: Path, is_map: bool) -> Any:  # noqa: ANN401
    """A raster as it looks on the pair's grid."""
    if not path.exists():
        raise RasterError(f"{path} does not exist; check its name.")
    dataset = stack.enter_context(rasterio.open(path))
    if not is_map and (dataset.dtypes != ("uint8",) or dataset.colorinterp[0] is ColorInterp.palette):
        raise RasterError(f"{path} is no raster of confidence in percent; name what predict --confidence has written.")
    if pair.crs is None:
        return WarpedLess(dataset, pair)
    coarse = _times_finer(dataset, pair) >= _MAJORITY_FROM
    many = Resampling.mode if is_map else Resampling.average
    return WarpedVRT(
        dataset,
        crs=pair.crs,
        transform=pair.transform,
        height=pair.height,
        width=pair.width,
        resampling=many if coarse else Resampling.nearest,
        src_nodata=IGNORE_INDEX,
        nodata=IGNORE_INDEX,
        src_crs=dataset.crs or pair.crs,
    )


def _times_finer(dataset: Any, pair: Pair) -> float:  # noqa: ANN401
    """Root of the number of a raster's pixels in a pixel of the grid's middle."""
    col, row = pair.width / 2, pair.height / 2
    x, y = _apply(pair.transform, np.array([col, col + 1, col]), np.array([row, row, row + 1]))
    if dataset.crs is not None and dataset.crs != pair.crs:
        x, y = (np.asarray(values) for values in transform_points(pair.crs, dataset.crs, x, y))
    col_3, row_3 = _apply(~dataset.transform, x, y)
    right, down = (np.array([col_3[n] - col_3[0], row_3[n] - row_3[0]]) for n in (1, 2))
    return math.sqrt(abs(right[0] * down[1] - right[1] * down[0]))


def _refuse_beyond_percent(path: Path, percent_HW: NDArray[np.uint8]) -> None:
    beyond = percent_HW[(percent_HW > 100) & (percent_HW != IGNORE_INDEX)]
    if beyond.size:
        raise RasterError(
            f"{path} holds {beyond[0]}, and confidence is 0 to 100 percent; name what predict --confidence has written."
        )


class WarpedLess:
    """A raster without a place, which has the grid itself."""

    def __init__(self, dataset: Any, pair: Pair) -> None:  # noqa: ANN401
        if (dataset.height, dataset.width) != (pair.height, pair.width):
            raise RasterError(
                f"{dataset.name} has {dataset.width} x {dataset.height} pixels, the grid {pair.width} x {pair.height}, "
                "and neither says where it lies; give maps with a CRS."
            )
        self._dataset = dataset

    def __enter__(self) -> "WarpedLess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, band: int, window: Window) -> NDArray[np.uint8]:
        """As rasterio's."""
        found: NDArray[np.uint8] = self._dataset.read(band, window=window)
        return found


def _refuse_other_classes(old: LandCover, new: LandCover) -> None:
    names = [set(one.class_map.names) for one in (old, new)]
    if names[0] == names[1]:
        return
    only = ((old, names[0] - names[1]), (new, names[1] - names[0]))
    told = [f"only {one.path} has {', '.join(sorted(own))}" for one, own in only if own]
    raise RasterError(
        f"The maps tell other classes apart: {'; '.join(told)}. Make both with models of the same classes."
    )


def _pixel(land_cover: LandCover) -> float:
    """Mean square metres of a pixel; 1 where the map does not say where it lies."""
    if land_cover.crs is None:
        return 1.0
    area_H = pixel_areas(land_cover.crs, land_cover.grid, land_cover.height, land_cover.width)
    return 1.0 if area_H is None else float(area_H.mean())


def _overlap(base: LandCover, other: LandCover) -> tuple[int, int, int, int]:
    """Row, column, height and width of the part of a map's grid in which the other one lies."""
    if base.crs is None:
        return 0, 0, base.height, base.width
    steps = np.linspace(0, 1, _OUTLINE)
    col = np.concatenate([steps, steps, 0 * steps, 0 * steps + 1]) * other.width
    row = np.concatenate([0 * steps, 0 * steps + 1, steps, steps]) * other.height
    x, y = _apply(other.grid, col, row)
    if other.crs != base.crs:
        x, y = (np.asarray(values) for values in transform_points(other.crs, base.crs, x, y))
    col, row = _apply(~base.grid, x, y)
    if not (np.isfinite(col).all() and np.isfinite(row).all()):  # beyond where the other map's system has values
        raise RasterError(f"{other.path} and {base.path} show different ground; nothing can be compared.")
    # Corners that are off by rounding alone do not open another row
    first_col, last_col = max(0, math.floor(col.min() + 1e-6)), min(base.width, math.ceil(col.max() - 1e-6))
    first_row, last_row = max(0, math.floor(row.min() + 1e-6)), min(base.height, math.ceil(row.max() - 1e-6))
    if first_col >= last_col or first_row >= last_row:
        raise RasterError(f"{other.path} and {base.path} show different ground; nothing can be compared.")
    return first_row, first_col, last_row - first_row, last_col - first_col


def _apply(
    transform: Any,  # noqa: ANN401
    x_N: NDArray[np.float64],
    y_N: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return transform.a * x_N + transform.b * y_N + transform.c, transform.d * x_N + transform.e * y_N + transform.f
