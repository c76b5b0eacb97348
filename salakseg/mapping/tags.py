"""What a map tells of its making, by which another map of the same name is known."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
        "orthomosaic_files": "; ".join(f"{name} {state}" for name, state in orthomosaic.state().items()),
        "bands": ",".join(map(str, orthomosaic.bands)),
        "scale": "none" if orthomosaic.options.stretch is None else str(orthomosaic.options.stretch),
        **engine.identity,
        "classes": json.dumps(engine.class_map.to_records(), ensure_ascii=False),
        "tile": str(plan.grid.rows.tile),
        "overlap": str(plan.grid.rows.overlap),
        "window": plan.grid.rows.window,
        "model_pixel": f"{model.cols.step:.9g} x {model.rows.step:.9g} pixels of the orthomosaic",
        "map_pixel": f"{final.cols.step:.9g} x {final.rows.step:.9g} pixels of the orthomosaic",
    }


def different_tags(path: Path, wanted: Mapping[str, str], dtype: str) -> list[str]:
    """The tags, beside the software's, in which a layer of a map differs from those that are wanted.

    Args:
        path: The file.
        wanted: What `map_tags` gives.
        dtype: What the layer's values are; "type of values" is told if they are something else.

    Raises:
        RasterError: The file is no raster.
    """
    try:
        with without_place(), rasterio.open(path) as dataset:
            found, values = dataset.tags(), dataset.dtypes[0]
    except RasterioError as error:
        raise RasterError(f"{path} exists and is no map; name another file or replace it with --overwrite.") from error
    different = [key for key, value in wanted.items() if key != SOFTWARE and found.get(key) != value]
    return different + ["type of values"] * (values != dtype)
