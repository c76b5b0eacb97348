"""Label files that several tests share."""

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio import features
from rasterio.errors import NotGeoreferencedWarning

from salakseg.classes import SALAK
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling.labels import LabelOptions, SourceLabels, open_labels

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
PLACES = {
    "UTM south": ("EPSG:32749", UTM),
    "degrees": ("EPSG:4326", Affine(4.5e-7, 0.0, 110.36, 0.0, -4.5e-7, -7.65)),
    "rotated": (
        "EPSG:32749",
        Affine.translation(431000.0, 9154000.0) @ Affine.rotation(30) @ Affine.scale(0.05, -0.05),
    ),
    "south up": ("EPSG:32749", Affine(0.05, 0.0, 431000.0, 0.0, 0.05, 9153000.0)),
    "mirrored": ("EPSG:32749", Affine(-0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)),
}
SOURCE = Path("flights/mosaic.tif")


def grid_at(place: str = "UTM south", height: int = 60, width: int = 80) -> Grid:
    crs, transform = PLACES[place]
    return Grid(height, width, transform, rasterio.crs.CRS.from_string(crs))


def photo_grid(height: int = 60, width: int = 80) -> Grid:
    return Grid(height, width, Affine.identity())


def opened(path: Path | None, grid: Grid, source: Path = SOURCE, **options: Any) -> SourceLabels:
    labels = open_labels(path, grid, source, SALAK, LabelOptions(**options))
    assert labels is not None
    return labels


def whole(labels: SourceLabels, grid: Grid) -> NDArray[np.uint8]:
    return labels.read(0, 0, grid.height, grid.width)


def write_shapes(path: Path, shapes: list[Any], crs: str | None = "EPSG:32749", **columns: Any) -> Path:
    columns = columns or {"class": ["Jalan"] * len(shapes)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a file without a reference system is meant here
        gpd.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path)
    return path


def burned(shapes: list[Any], class_ids: list[int], grid: Grid, all_touched: bool = False) -> NDArray[np.uint8]:
    """What GDAL burns on the whole grid at once."""
    label_HW: NDArray[np.uint8] = features.rasterize(
        list(zip(shapes, class_ids, strict=True)), (grid.height, grid.width), fill=255, transform=grid.transform,
        all_touched=all_touched, dtype="uint8",
    )  # fmt: skip
    return label_HW


def write_raster(
    path: Path, values: NDArray[Any], grid: Grid | None = None, colormap: Any = None, **profile: Any
) -> Path:
    bands_CHW = values[None] if values.ndim == 2 else values
    place = {} if grid is None else {"crs": grid.crs, "transform": grid.transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=len(bands_CHW), height=bands_CHW.shape[1], width=bands_CHW.shape[2],
            dtype=bands_CHW.dtype, **place, **profile,
        ) as dataset:  # fmt: skip
            dataset.write(bands_CHW)
            if colormap is not None:
                dataset.write_colormap(1, colormap)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path
