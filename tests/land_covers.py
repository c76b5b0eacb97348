"""Small land-cover maps that the tests of samples share."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

from salakseg.classes import SALAK

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)


def blotches(height: int, width: int, sigma: float = 8.0, seed: int = 0) -> NDArray[np.uint8]:
    """Four classes in round patches, the last one rare, and a corner that is not valid."""
    noise_KHW = np.random.default_rng(seed).standard_normal((4, height, width))
    soft_KHW = ndimage.gaussian_filter(noise_KHW, (0, sigma, sigma))
    soft_KHW /= soft_KHW.std(axis=(1, 2), keepdims=True)
    soft_KHW[3] -= 1.0
    label_HW: NDArray[np.uint8] = soft_KHW.argmax(axis=0).astype(np.uint8)
    label_HW[: height // 5, : width // 5] = 255
    return label_HW


def write_map(
    path: Path,
    label_HW: NDArray[np.uint8],
    crs: str | None = "EPSG:32749",
    transform: Affine = UTM,
    tagged: bool = True,
    nodata: int | None = 255,
    **profile: Any,
) -> Path:
    """A map as salakseg writes it, as far as samples are concerned."""
    height, width = label_HW.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=height, width=width, dtype="uint8", crs=crs,
            transform=transform, nodata=nodata, **{"compress": "deflate", **profile},
        ) as dataset:  # fmt: skip
            if tagged:
                dataset.update_tags(classes=json.dumps(SALAK.to_records()))
            dataset.write(label_HW, 1)
    return path
