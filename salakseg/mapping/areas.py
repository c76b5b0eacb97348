"""How much ground each class of a land-cover map covers, in true hectares.

A pixel of a map in degrees or in web Mercator stands for less ground the farther it lies from the equator, so areas are
summed row by row there. Axes: H rows from the top, K classes.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.files import write_whole
from salakseg.mapping.geodesy import is_mercator, mercator_scale, metres_a_radian
from salakseg.mapping.opening import without_place

SQUARE_METRES_A_HECTARE = 10_000.0
COLUMNS = ("map", "class_id", "class_name", "pixels", "hectares", "share")
"""The columns of the file that `write_areas` writes."""


@dataclass(frozen=True, slots=True)
class ClassArea:
    """What one class covers in a map.

    Attributes:
        class_id: The class's value in the map.
        class_name: Its name.
        pixels: Number of pixels.
        hectares: True area; None if the map does not say where it lies.
        share: Part of the valid area, 0 to 1; of the valid pixels where the area is unknown, 0 where none is valid.
    """

    class_id: int
    class_name: str
    pixels: int
    hectares: float | None
    share: float


def pixel_areas(crs: Any, transform: Any, height: int, width: int) -> NDArray[np.float64] | None:  # noqa: ANN401
    """The ground that one pixel of each row stands for.

    Degrees are taken on the WGS 84 ellipsoid, and so are Mercator projections of all kinds, web Mercator among them,
    which overstate areas by about 1 / cos(latitude) squared. Every other projection is taken at face value: UTM is
    within 0.2 % of the truth in its own zone, an equal-area projection exact.

    Args:
        crs: A `rasterio.crs.CRS`, or None.
        transform: From (column, row) to coordinates, an `affine.Affine`; it may be rotated or run northwards.
        height: Rows, H.
        width: Columns; the areas are those in the middle column.

    Returns:
        Square metres, [H]; None without a CRS or with the identity transform, which says nothing of the place.
    """
    if not crs or transform.is_identity:
        return None
    map_units = abs(float(transform.determinant))
    unit = float(crs.units_factor[1])
    x_H, y_H = _row_centres(transform, height, width)
    if crs.is_geographic:  # the unit is an angle here
        east_H, north_H = metres_a_radian(np.clip(y_H * unit, -np.pi / 2, np.pi / 2))
        return east_H * north_H * (map_units * unit**2)
    if is_mercator(crs):
        east_H, north_H = mercator_scale(crs, x_H, y_H)
        return map_units * east_H * north_H
    return np.full(height, map_units * unit**2)


def areas_of(land_cover: Path, class_map: ClassMap) -> tuple[ClassArea, ...]:
    """Sums what each class covers in a land-cover map, reading block by block.

    Args:
        land_cover: The map: one band of class ids, uint8, 255 where nothing is known.
        class_map: The classes, K.

    Returns:
        One row for each class, in the order of the ids; classes that are absent have 0 pixels.

    Raises:
        RasterError: The map cannot be read, is no land-cover map, or holds ids that the class map does not name.
    """
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    square_metres = np.zeros(IGNORE_INDEX + 1)
    try:
        with without_place():  # a map without a place is counted in pixels
            with rasterio.open(land_cover) as dataset:
                if dataset.dtypes != ("uint8",):
                    raise RasterError(f"{land_cover} is not one band of class ids; name a map that salakseg has made.")
                areas_H = pixel_areas(dataset.crs, dataset.transform, dataset.height, dataset.width)
                for _, window in dataset.block_windows(1):
                    counts_HK = _count_in_rows(dataset.read(1, window=window))
                    counts += counts_HK.sum(axis=0)
                    if areas_H is not None:
                        top, stop = window.row_off, window.row_off + window.height
                        square_metres += areas_H[top:stop] @ counts_HK
    except RasterioError as error:
        raise RasterError(f"{land_cover} cannot be read as a land-cover map; make it again.") from error
    _refuse_unknown_ids(land_cover, counts, class_map)
    return _class_areas(counts, None if areas_H is None else square_metres / SQUARE_METRES_A_HECTARE, class_map)


def write_areas(path: Path, rows_by_map: Mapping[str, Sequence[ClassArea]], overwrite: bool = False) -> None:
    """Writes the areas of one or several maps as a CSV file in UTF-8, one line for each class of each map.

    Hectares have six decimals (0.01 square metres) and stay empty where they are unknown.

    Args:
        path: The file.
        rows_by_map: From a map's name to its rows, as `areas_of` gives them.
        overwrite: Replace a file that exists.

    Raises:
        RasterError: The file exists or cannot be written.
    """
    if path.exists() and not overwrite:
        raise RasterError(f"{path} exists; name another file or replace it with --overwrite.")
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for name, rows in rows_by_map.items():
        for row in rows:
            hectares = "" if row.hectares is None else f"{row.hectares:.6f}"
            table.writerow((name, row.class_id, row.class_name, row.pixels, hectares, f"{row.share:.6f}"))
    write_whole(path, text.getvalue())


def _row_centres(transform: Any, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: ANN401
    row_H = np.arange(height) + 0.5
    x_H = transform.a * width / 2 + transform.b * row_H + transform.c
    y_H = transform.d * width / 2 + transform.e * row_H + transform.f
    return x_H, y_H


def _count_in_rows(label_HW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels of each value in each row, [H, 256]."""
    values = IGNORE_INDEX + 1
    height = label_HW.shape[0]
    cells_HW = label_HW + values * np.arange(height)[:, None]
    return np.bincount(cells_HW.ravel(), minlength=values * height).reshape(height, values)


def _refuse_unknown_ids(path: Path, counts: NDArray[np.int64], class_map: ClassMap) -> None:
    unknown = np.flatnonzero(counts[len(class_map) : IGNORE_INDEX]) + len(class_map)
    if len(unknown):
        raise RasterError(
            f"{path} holds class {unknown[0]}, but {class_map.source} ends at {len(class_map) - 1}; "
            "name the class mapping that the map was made with."
        )


def _class_areas(
    counts: NDArray[np.int64], hectares: NDArray[np.float64] | None, class_map: ClassMap
) -> tuple[ClassArea, ...]:
    sizes = (counts if hectares is None else hectares)[: len(class_map)]
    valid = float(sizes.sum())
    return tuple(
        ClassArea(
            class_id=land_class.id,
            class_name=land_class.name,
            pixels=int(counts[land_class.id]),
            hectares=None if hectares is None else float(hectares[land_class.id]),
            share=float(sizes[land_class.id]) / valid if valid > 0 else 0.0,
        )
        for land_class in class_map.classes
    )
