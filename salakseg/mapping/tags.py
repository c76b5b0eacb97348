"""What a map tells of its making, by which another map of the same name is known."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from salakseg.errors import RasterError
from salakseg.mapping.opening import without_place
from salakseg.mapping.plan import MapPlan
from salakseg.mapping.raster import Orthomosaic
from salakseg.network.engine import Engine

SOFTWARE = "TIFFTAG_SOFTWARE"


def map_tags(orthomosaic: Orthomosaic, engine: Engine, plan: MapPlan) -> dict[str, str]:
    """What a map tells of its making, beside the CRS and all that a GeoTIFF holds anyway, as text by name."""
    try:
        software = f"salakseg {version('salakseg')}"
    except PackageNotFoundError:  # a checkout that was never installed
        software = "salakseg"
    model, final = plan.to_model, plan.source_to_map
    return {
        SOFTWARE: f"{software}, GDAL {rasterio.__gdal_version__}",
        "orthomosaic": orthomosaic.path.name,
        "bands": ",".join(map(str, orthomosaic.bands)),
        "scale": "none" if orthomosaic.options.stretch is None else str(orthomosaic.options.stretch),
        **({"scale_found_by": "percentile"} if orthomosaic.finds_stretch else {}),
        **engine.identity,
        "classes": json.dumps(engine.class_map.to_records(), ensure_ascii=False),
        "tile": str(plan.grid.rows.tile),
        "overlap": str(plan.grid.rows.overlap),
        "window": plan.grid.rows.window,
        "model_pixel": f"{model.cols.step:.9g} x {model.rows.step:.9g} pixels of the orthomosaic",
        "map_pixel": f"{final.cols.step:.9g} x {final.rows.step:.9g} pixels of the orthomosaic",
    }


def different_tags(path: Path, wanted: Mapping[str, str]) -> list[str]:
    """The tags, beside the software's, in which a map differs from those that are wanted.

    Raises:
        RasterError: The file is no raster.
    """
    with _opened(path) as dataset:
        found = dataset.tags()
    # GDAL drops blanks at the ends of a value
    return [key for key, value in wanted.items() if key != SOFTWARE and found.get(key, "").strip() != value.strip()]


def different_grid(path: Path, plan: MapPlan, transform: Any, dtype: str) -> list[str]:  # noqa: ANN401
    """In what a layer of a map differs from one that would be made: its size, its place, the type of its values.

    Args:
        path: The file.
        plan: The plan of the map.
        transform: Its place, an `affine.Affine`.
        dtype: What its values are.

    Raises:
        RasterError: The file is no raster.
    """
    with _opened(path) as dataset:
        differs = {
            "size": (dataset.height, dataset.width) != (plan.height, plan.width),
            "place": not dataset.transform.almost_equals(transform, precision=1e-6),
            "type of values": dataset.dtypes[0] != dtype,
        }
    return [what for what, so in differs.items() if so]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with without_place(), rasterio.open(path) as dataset:
            yield dataset
    except RasterioError as error:
        raise RasterError(f"{path} exists and is no map; name another file or replace it with --overwrite.") from error
