"""Which pixels of a raster count, by its nodata value, its mask and its alpha band together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window


def valid_mask(
    dataset: Any,  # noqa: ANN401
    window: Window,
    shape: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Where a raster counts: not wholly nodata, not masked, not transparent.

    Args:
        dataset: The open `rasterio` dataset.
        window: The part.
        shape: Height and width to read it at; None for its own.

    Returns:
        bool [H, W].

    Raises:
        RasterioError: The file cannot be read there.
    """
    meanings = dataset.colorinterp
    if dataset.count == 4 and meanings[0] == ColorInterp.red:
        # rasterio would ask the fourth band alone, which may be an infrared that is 0 over water, or an opaque alpha
        # of the very value that means nodata
        bands = [band for band, meaning in enumerate(meanings, start=1) if meaning != ColorInterp.alpha]
        masks_CHW = dataset.read_masks(bands, window=window, out_shape=shape and (len(bands), *shape))
        valid_HW: NDArray[np.bool_] = (masks_CHW > 0).any(axis=0)
    else:
        valid_HW = dataset.dataset_mask(window=window, out_shape=shape) > 0
    if ColorInterp.alpha in meanings and MaskFlags.alpha not in dataset.mask_flag_enums[0]:  # GDAL overlooks it
        valid_HW &= dataset.read(list(meanings).index(ColorInterp.alpha) + 1, window=window, out_shape=shape) > 0
    return valid_HW
