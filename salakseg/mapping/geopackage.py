"""Polygons of classes as a GeoPackage, written while they come. Axes: H rows of the map, K classes, N vertices."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from salakseg.classes import ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.areas import SQUARE_METRES_A_HECTARE
from salakseg.mapping.dissolve import Polygons
from salakseg.replacing import replace

LAYER = "land_cover"
"""The GeoPackage's only layer."""

MIN_AREA = "min_area_m2"
"""What the layer tells of its making: the area below which polygons were left out."""

BATCH_VERTICES = 500_000
"""Polygons are written when they have so many vertices together: about 50 MB on their way to the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where the pixels lie whose corners the polygons join.

    Attributes:
        crs: A `rasterio.crs.CRS` or None.
        transform: From (column, row) to coordinates, an `affine.Affine`.
        area_H: Square metres of a pixel in each row, see `pixel_areas`; None if the place is not known.
    """

    crs: Any
    transform: Any
    area_H: NDArray[np.float64] | None


class PolygonLayer:
    """A GeoPackage's only layer, written in batches.

    Args:
        path: The file, in the scratch folder.
        out: Its name when it is whole.
        class_map: Gives the names, K.
        place: Where the polygons lie.
        min_area_m2: The area below which polygons were left out, which the file tells.

    Attributes:
        class_polygons: Polygons of each class so far [K], int64.
        area_px: Their area in pixels [K].
        area_m2: Their area in square metres [K]; zeros if the place is not known.
    """

    def __init__(self, path: Path, out: Path, class_map: ClassMap, place: Place, min_area_m2: float) -> None:
        self.class_polygons = np.zeros(len(class_map), np.int64)
        self.area_px = np.zeros(len(class_map))
        self.area_m2 = np.zeros(len(class_map))
        self._path = path
        self._out = out
        self._place = place
        self._min_area_m2 = min_area_m2
        self._names = np.array(class_map.names, np.object_)
        self._waiting: list[tuple[Polygons, NDArray[np.uint8]]] = []
        self._vertices = 0

    def add(self, polygons: Polygons, class_ids: NDArray[np.uint8]) -> None:
        """Takes polygons.

        Args:
            polygons: Polygons [N] in (column, row) of pixel corners.
            class_ids: Their classes [N].

        Raises:
            RasterError: The file cannot be written.
        """
        self._waiting.append((polygons, class_ids))
        self._vertices += int(shapely.get_num_coordinates(polygons).sum())
        if self._vertices >= BATCH_VERTICES:
            self._write()

    def finish(self) -> None:
        """Writes what waits and puts the file in its place.

        Raises:
            RasterError: It cannot be written.
        """
        if self._waiting or not self._path.exists():
            self._write()
        # A disk that is full as the file is closed goes unnoticed, and so would a batch that was lost.
        if self._call(pyogrio.read_info, layer=LAYER)["features"] != self.class_polygons.sum():
            raise RasterError(f"{self._out} could not be written completely; is the disk full?")
        try:
            for ending in ("-wal", "-shm", "-journal"):  # of the file that is replaced; SQLite would apply them to ours
                self._out.with_name(self._out.name + ending).unlink(missing_ok=True)
            replace(self._path, self._out)
        except OSError as error:
            raise RasterError(
                f"{self._out} cannot be replaced ({error.strerror}); close it in other programs and try again."
            ) from error

    def _write(self) -> None:
        polygons = np.concatenate([np.empty(0, np.object_), *(polygons for polygons, _ in self._waiting)])
        class_ids = np.concatenate([np.empty(0, np.uint8), *(class_ids for _, class_ids in self._waiting)])
        self._waiting, self._vertices = [], 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            self._call(
                pyogrio.write_dataframe,
                self._table(polygons, class_ids),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                layer_metadata={MIN_AREA: f"{self._min_area_m2:g}"},
                append=self._path.exists(),
            )

    def _table(self, polygons: Polygons, class_ids: NDArray[np.uint8]) -> Any:  # noqa: ANN401
        """Attributes and georeferenced polygons, and their sums by class."""
        area_px = shapely.area(polygons)
        self.class_polygons += np.bincount(class_ids, minlength=len(self._names))
        self.area_px += np.bincount(class_ids, area_px, len(self._names))
        columns: dict[str, NDArray[Any]] = {
            "class_id": class_ids.astype(np.int32),
            "class_name": self._names[class_ids],
        }
        area_H = self._place.area_H
        if area_H is None:
            columns["area_px"] = area_px
        else:
            centre = shapely.get_y(shapely.centroid(polygons))
            columns["area_m2"] = area_px * np.interp(centre, np.arange(len(area_H)) + 0.5, area_H)
            columns["area_ha"] = columns["area_m2"] / SQUARE_METRES_A_HECTARE
            self.area_m2 += np.bincount(class_ids, columns["area_m2"], len(self._names))
        crs = None if self._place.crs is None else self._place.crs.to_wkt()
        return gpd.GeoDataFrame(columns, geometry=_georeference(polygons, self._place.transform), crs=crs)

    def _call(self, function: Callable[..., Any], *table: Any, **options: Any) -> Any:  # noqa: ANN401
        """Calls `pyogrio` on the file; its errors become ours."""
        try:
            return function(*table, self._path, **options)
        except (DataSourceError, DataLayerError, OSError) as error:
            raise RasterError(f"{self._out} cannot be written ({error}); is the disk full?") from error


def is_drawn(path: Path, min_area_m2: float) -> bool:
    """Whether a GeoPackage holds polygons that were written with this smallest area."""
    try:
        found = pyogrio.read_info(path, layer=LAYER)["layer_metadata"] or {}
    except (DataSourceError, DataLayerError, OSError):
        return False
    return bool(found.get(MIN_AREA) == f"{min_area_m2:g}")


def _georeference(polygons: Polygons, transform: Any) -> Polygons:  # noqa: ANN401
    """From (column, row) of pixel corners to coordinates; outer rings run counter-clockwise, as the standard has it."""
    column_N, row_N = shapely.get_coordinates(polygons).T
    # Not by a matrix product, whose rounding may depend on a row's place: shared vertices stay equal to the last bit.
    x_N = transform.a * column_N + transform.b * row_N + transform.c
    y_N = transform.d * column_N + transform.e * row_N + transform.f
    placed = shapely.set_coordinates(polygons.copy(), np.stack([x_N, y_N], axis=1))
    return shapely.orient_polygons(placed)  # type: ignore[no-any-return]
