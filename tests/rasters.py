"""Rasters written and read back as a test needs them."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

UTM_SOUTH = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]


def write_raster(path: Path, bands: NDArray[Any], **profile: Any) -> Path:
    """Bands [C, H, W] as a GeoTIFF in Java with 5 cm a pixel, unless the profile says otherwise.

    Args:
        path: The file; its folder is made.
        bands: The first four are red, green, blue and alpha, unless ``colorinterp`` is given.
        profile: For `rasterio.open`; ``mask`` is written inside the file.
    """
    path.parent.mkdir(exist_ok=True)
    count, height, width = bands.shape
    meanings, mask = profile.pop("colorinterp", RGBA[:count]), profile.pop("mask", None)
    defaults = {"driver": "GTiff", "crs": "EPSG:32749", "transform": UTM_SOUTH, "dtype": bands.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=count, height=height, width=width, **(defaults | profile)) as dataset,
    ):
        dataset.colorinterp = meanings
        dataset.write(bands)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def read_map(path: Path) -> NDArray[np.uint8]:
    """The first band of a raster, [H, W]."""
    with rasterio.open(path) as dataset:
        label_HW: NDArray[np.uint8] = dataset.read(1)
    return label_HW
