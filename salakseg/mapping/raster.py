"""Reading an orthomosaic: where it lies, which bands are red, green and blue, which pixels are valid.

Everything that can be wrong with a user's file is a `RasterError` of one sentence here. Axes: C red, green, blue;
H rows from the top; W columns from the left.
"""

import math
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import xy
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from salakseg.errors import RasterError

WGS84_SEMI_MAJOR_M = 6378137.0
WGS84_ECCENTRICITY_SQUARED = 0.00669437999014
MERCATOR_METHODS = ("Popular Visualisation Pseudo Mercator", "Mercator (variant A)")
"""PROJ's names of the projections that are true to scale on the equator only; the first is web Mercator."""


class Orthomosaic:
    """An open orthomosaic. Use it as a context manager; one thread at a time may read from it.

    Args:
        path: The file, in any format that GDAL reads.
        allow_no_crs: Accept a picture that does not say where it lies.

    Attributes:
        path: The file.
        crs: Coordinate reference system, a `rasterio.crs.CRS`; None if the file names none.
        transform: From (column, row) to coordinates, an `affine.Affine`.
        height: Rows.
        width: Columns.
        bands: One-based indices of the red, green and blue bands.
        pixel_m: Metres on the ground from column to column and from row to row; None if the CRS is unknown.
        gsd_m: Ground sampling distance, the geometric mean of the two; None if the CRS is unknown.

    Raises:
        RasterError: The file is missing, no raster, not RGB of 8 bit, or not georeferenced.
    """

    def __init__(self, path: Path, *, allow_no_crs: bool = False) -> None:
        self.path = path
        self._dataset = _open(path)
        try:
            self.bands = _rgb_bands(self._dataset, path)
            _check_bit_depth(self._dataset, self.bands, path)
            _check_georeference(self._dataset, path, allow_no_crs)
        except BaseException:
            self._dataset.close()
            raise
        self.crs: Any = self._dataset.crs or None
        self.transform: Any = self._dataset.transform
        self.height: int = self._dataset.height
        self.width: int = self._dataset.width
        self.pixel_m = pixel_size(self.crs, self.transform, self.height, self.width)
        self.gsd_m = None if self.pixel_m is None else math.sqrt(self.pixel_m[0] * self.pixel_m[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._dataset.close()

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Reads a window, which may lie partly or wholly beyond the raster.

        Args:
            row: First row; may be negative.
            col: First column; may be negative.
            height: Rows of the window.
            width: Columns of the window.

        Returns:
            image_CHW [3, height, width] uint8, red green blue, 0 beyond the raster; and valid_HW [height, width],
            False beyond the raster and where the file marks no data (alpha 0, nodata in all bands, mask).

        Raises:
            RasterError: A part of the file cannot be read.
        """
        image_CHW = np.zeros((3, height, width), np.uint8)
        valid_HW = np.zeros((height, width), np.bool_)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.height), min(col + width, self.width)
        if top < bottom and left < right:
            inside = (slice(top - row, bottom - row), slice(left - col, right - col))
            window = Window(left, top, right - left, bottom - top)
            image_CHW[:, *inside], valid_HW[inside] = self._read(window, f"at row {top}, column {left}")
        return image_CHW, valid_HW

    def read_small(self, max_side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Reads the whole raster, reduced so that its longer side has at most `max_side` pixels.

        Returns:
            image_CHW and valid_HW as `read`, with the raster's aspect ratio.

        Raises:
            RasterError: A part of the file cannot be read.
        """
        shape = reduced_shape(self.height, self.width, max_side)
        return self._read(Window(0, 0, self.width, self.height), "reduced", shape)

    def _read(
        self, window: Window, where: str, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        image_shape = None if shape is None else (3, *shape)
        resampling = Resampling.nearest if shape is None else Resampling.average
        try:
            image_CHW = self._dataset.read(self.bands, window=window, out_shape=image_shape, resampling=resampling)
            mask_HW = self._dataset.dataset_mask(window=window, out_shape=shape)
        except RasterioError as error:
            raise RasterError(
                f"{self.path} cannot be read {where}; the file is damaged or incomplete, copy or export it again."
            ) from error
        return image_CHW, mask_HW > 0


def reduced_shape(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Height and width of a raster reduced to at most `max_side` pixels a side; never enlarged, never below one."""
    factor = min(1.0, max_side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def pixel_size(crs: Any, transform: Any, height: int, width: int) -> tuple[float, float] | None:  # noqa: ANN401
    """Metres on the ground that a pixel's sides stand for, at the raster's centre.

    Coordinates in degrees are taken on the WGS 84 ellipsoid; Mercator maps overstate lengths by 1 / cos(latitude),
    which is taken back.

    Args:
        crs: A `rasterio.crs.CRS`, or None.
        transform: From (column, row) to coordinates, an `affine.Affine`; it may be rotated.
        height: Rows.
        width: Columns.

    Returns:
        Metres from a column to the next and from a row to the next; None without a CRS.
    """
    if crs is None:
        return None
    unit = float(crs.units_factor[1])
    x, y = xy(transform, height / 2, width / 2, offset="ul")
    east = north = unit
    if crs.is_geographic:  # the unit is an angle here
        east, north = (metres * unit for metres in _metres_a_radian(y * unit))
    elif _is_mercator(crs):
        latitude = transform_points(crs, "EPSG:4326", [x], [y])[1][0]
        east = north = unit * math.cos(math.radians(latitude))
    return (
        math.hypot(transform.a * east, transform.d * north),
        math.hypot(transform.b * east, transform.e * north),
    )


def _metres_a_radian(latitude: float) -> tuple[float, float]:
    """Metres that a radian of longitude and one of latitude span at a latitude in radians."""
    bend = 1.0 - WGS84_ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    east = WGS84_SEMI_MAJOR_M * math.cos(latitude) / math.sqrt(bend)
    north = WGS84_SEMI_MAJOR_M * (1.0 - WGS84_ECCENTRICITY_SQUARED) / bend**1.5
    return east, north


def _is_mercator(crs: Any) -> bool:  # noqa: ANN401
    description = crs.to_dict(projjson=True)
    if description.get("type") == "CompoundCRS":  # with heights: the first component is the horizontal one
        description = description["components"][0]
    method = description.get("conversion", {}).get("method", {}).get("name", "")
    return method in MERCATOR_METHODS


def _open(path: Path) -> Any:  # noqa: ANN401
    if not path.exists():
        raise RasterError(f"{path} does not exist; check the orthomosaic's name.")
    if path.is_dir():
        raise RasterError(f"{path} is a folder; name the orthomosaic's file in it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said better by _check_georeference
            return rasterio.open(path)
    except RasterioError as error:
        raise RasterError(
            f"{path} is not a raster that can be read, or it is damaged; export the orthomosaic as GeoTIFF."
        ) from error


def _rgb_bands(dataset: Any, path: Path) -> tuple[int, int, int]:  # noqa: ANN401
    meanings = list(dataset.colorinterp)
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(color in meanings for color in wanted):
        red, green, blue = (meanings.index(color) + 1 for color in wanted)
        return red, green, blue
    others = [index for index, meaning in enumerate(meanings, start=1) if meaning != ColorInterp.alpha]
    if len(others) >= 3:
        return others[0], others[1], others[2]
    if ColorInterp.palette in meanings:
        remedy = f"expand its palette with `gdal_translate -expand rgb {path} rgb.tif`"
    else:
        remedy = "an RGB orthomosaic is needed, export it with red, green and blue"
    raise RasterError(f"{path} has {len(others)} colour band{'s' * (len(others) != 1)} where 3 are needed; {remedy}.")


def _check_bit_depth(dataset: Any, bands: tuple[int, int, int], path: Path) -> None:  # noqa: ANN401
    dtype = next((dataset.dtypes[band - 1] for band in bands if dataset.dtypes[band - 1] != "uint8"), None)
    if dtype is None:
        return
    # One range for all bands: plain `-scale` stretches every band on its own, which shifts colours and spoils alpha.
    brightest = "65535" if dtype == "uint16" else "1" if dtype.startswith("float") else "MAX"
    raise RasterError(
        f"{path} is {dtype}, and only 8-bit rasters are mapped; convert it with "
        f"`gdal_translate -ot Byte -scale 0 {brightest} 0 255 {path} 8bit.tif` "
        f"(in place of {brightest}, put the brightest value that the camera gives)."
    )


def _check_georeference(dataset: Any, path: Path, allow_no_crs: bool) -> None:  # noqa: ANN401
    if dataset.transform.is_identity and (dataset.gcps[0] or dataset.rpcs):
        raise RasterError(
            f"{path} is georeferenced by control points only; "
            f"rectify it first with `gdalwarp -r bilinear -dstalpha {path} rectified.tif`."
        )
    if allow_no_crs:
        return
    if not dataset.crs:
        raise RasterError(
            f"{path} names no coordinate reference system; assign it with `gdal_edit.py -a_srs EPSG:CODE {path}`, "
            "or map it without one by --allow-no-crs."
        )
    if dataset.transform.is_identity:
        raise RasterError(
            f"{path} does not say where its pixels lie; export it with its georeference (or its world file beside it), "
            "or map it without one by --allow-no-crs."
        )
