"""An orthomosaic as a source of candidates: the tiles of the mapping's own plan, side by side.

Axes: N tile.
"""

from pathlib import Path
from typing import Any, Self

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from salakseg.errors import RasterError
from salakseg.mapping.plan import MapPlan, make_plan
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.settings import MapSettings, model_step
from salakseg.mapping.tiles import read_tile
from salakseg.network.engine import Engine
from salakseg.suggest.sources import Cell, Source


class MosaicSource(Source):
    """The tiles of an orthomosaic, see `Source`. Use it as a context manager.

    Args:
        path: The file.
        engine: Gives tile and ground sampling distance.
        settings: How it is read; gsd as for a map.
        labelled: File with polygons of what is labelled already, None for nothing.

    Attributes:
        unit_m: Metres of a pixel of the model's grid, down and across; 1 where nobody knows.

    Raises:
        RasterError: It is no orthomosaic that can be mapped, or the polygons cannot be read.
    """

    threads = 1  # of GDAL's handle

    def __init__(self, path: Path, engine: Engine, settings: MapSettings, labelled: Path | None) -> None:
        self.path, self.title = path, path.name
        self.mosaic = Orthomosaic(path, settings.source)
        try:
            self.mosaic.settle_stretch()
            self.plan = _plan(self.mosaic, engine, settings)
            grid = self.plan.grid
            rows, cols = np.indices((grid.rows.count, grid.cols.count)).reshape(2, -1)
            self.place_N2: NDArray[np.int64] = np.stack([rows, cols], axis=1).astype(np.int64)
            self.names = [f"{row}_{col}" for row, col in self.place_N2.tolist()]
            self.base_N = np.zeros(len(self.names), np.int64)
            step = np.array([self.plan.to_model.rows.step, self.plan.to_model.cols.step])
            across_down = self.mosaic.pixel_m or (1.0, 1.0)
            self.unit_m = step * (across_down[1], across_down[0])
            self._tile = grid.rows.tile
            self.side_m = self.step_m = float(self._tile * np.sqrt(self.unit_m.prod()))
            down_N2 = (self.place_N2 + 0.5) * self._tile * self.unit_m
            self.ground_N2 = np.stack([down_N2[:, 1], -down_N2[:, 0]], axis=1)
            self.labelled_N = self._labelled(labelled)
            self.about = {
                **self.mosaic.state(), "path": str(path.resolve()), "tile": self._tile, "step": step.tolist(),
                "options": str(self.mosaic.options),
            }  # fmt: skip
        except BaseException:
            self.mosaic.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.mosaic.close()

    def read(self, number: int) -> list[Cell]:
        """The tile, if any of its pixels is valid. Rows and columns of the place are in `place_N2`."""
        tile = read_tile(self.mosaic, self.plan, *(int(place) for place in self.place_N2[number]))
        return [] if tile.empty else [Cell(0, 0, tile.image_CHW, tile.valid_HW)]

    def square(self, row: int, col: int, side: int) -> Any:  # noqa: ANN401
        """The polygon of ``side`` x ``side`` tiles in the orthomosaic's coordinates, cut to its extent."""
        plan = self.plan
        top, left = (place * side * self._tile for place in (row, col))
        box = shapely.box(
            left * plan.to_model.cols.step,
            top * plan.to_model.rows.step,
            min((left + side * self._tile) * plan.to_model.cols.step, self.mosaic.width),
            min((top + side * self._tile) * plan.to_model.rows.step, self.mosaic.height),
        )
        return shapely.transform(box, lambda xy: _apply(self.mosaic.transform, xy))

    def _labelled(self, path: Path | None) -> NDArray[np.bool_]:
        """Which tiles have their middle within half a side of something labelled."""
        polygons = None if path is None else self._read_polygons(path)
        if polygons is None:
            return np.zeros(len(self.names), bool)
        middle_N2 = (self.place_N2 + 0.5) * self._tile * self.unit_m
        apart_N = shapely.distance(shapely.points(middle_N2[:, ::-1]), polygons)
        return np.asarray(apart_N < 0.5 * self._tile * self.unit_m.max(), bool)

    def _read_polygons(self, path: Path) -> Any:  # noqa: ANN401
        """What is labelled as one shape, in metres right and down of the orthomosaic's corner; None if none is here."""
        if self.mosaic.crs is None:
            raise RasterError(f"{self.path} names no coordinate reference system, so --labelled {path} has no place.")
        try:
            frame: Any = pyogrio.read_dataframe(path, columns=[])
        except (DataSourceError, DataLayerError, OSError, ValueError) as error:
            raise RasterError(f"{path} cannot be read as polygons of what is labelled ({error}).") from error
        if not isinstance(frame, gpd.GeoDataFrame) or frame.crs is None:
            raise RasterError(f"{path} holds no polygons with a coordinate reference system; save it as GeoPackage.")
        shapes = shapely.force_2d(np.asarray(frame.to_crs(self.mosaic.crs.to_wkt()).geometry.array))
        shapes = shapely.make_valid(shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))])
        across_down = np.array(self.mosaic.pixel_m or (1.0, 1.0))
        back = ~self.mosaic.transform
        placed = shapely.transform(shapes, lambda xy: _apply(back, xy) * across_down)
        return shapely.union_all(placed) if len(placed) else None


def _plan(mosaic: Orthomosaic, engine: Engine, settings: MapSettings) -> MapPlan:
    wanted = {"off": None, "auto": engine.gsd_m}.get(str(settings.gsd), settings.gsd)
    return make_plan(
        mosaic.height,
        mosaic.width,
        tile=engine.tile,
        overlap=0,
        panel_width=mosaic.width,
        model_step=model_step(mosaic, None if wanted is None else float(wanted)),
    )


def _apply(transform: Affine, xy_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    x_N, y_N = xy_N2.T
    t = transform
    return np.stack([t.a * x_N + t.b * y_N + t.c, t.d * x_N + t.e * y_N + t.f], axis=1)
