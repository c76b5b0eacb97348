"""How much ground a raster's pixels stand for, in any coordinate reference system."""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import xy
from rasterio.warp import transform as transform_points

WGS84_SEMI_MAJOR_M = 6378137.0
WGS84_ECCENTRICITY_SQUARED = 0.00669437999014
NORMAL_MERCATOR = ("Mercator", "Popular Visualisation")
"""How PROJ's names of the Mercator projections along the equator begin: no transverse and no oblique ones."""

Latitude = TypeVar("Latitude", float, NDArray[np.float64])


def pixel_size(crs: Any, transform: Any, height: int, width: int) -> tuple[float, float] | None:  # noqa: ANN401
    """Metres on the ground that a pixel's sides stand for, at the raster's centre.

    Coordinates in degrees are taken on the WGS 84 ellipsoid; Mercator maps overstate lengths by about
    1 / cos(latitude), which is taken back.

    Args:
        crs: A `rasterio.crs.CRS`, or None.
        transform: From (column, row) to coordinates, an `affine.Affine`; it may be rotated.
        height: Rows.
        width: Columns.

    Returns:
        Metres from a column to the next and from a row to the next; None without a CRS or without a place.
    """
    if crs is None or transform.is_identity:
        return None
    unit = float(crs.units_factor[1])
    x, y = xy(transform, height / 2, width / 2, offset="ul")
    east = north = unit
    if crs.is_geographic:  # the unit is an angle here
        east, north = (metres * unit for metres in metres_a_radian(y * unit))
    elif is_mercator(crs):
        east, north = (float(scale[0]) for scale in mercator_scale(crs, np.array([x]), np.array([y])))
    return (
        math.hypot(transform.a * east, transform.d * north),
        math.hypot(transform.b * east, transform.e * north),
    )


def metres_a_radian(latitude: Latitude) -> tuple[Latitude, Latitude]:
    """Metres that a radian of longitude and one of latitude span on the WGS 84 ellipsoid.

    The first is the radius of the parallel, the second the meridian's radius of curvature (Snyder 1987, Map
    Projections: A Working Manual, equations 4-19 to 4-21).

    Args:
        latitude: Radians; a number or an array of any shape.

    Returns:
        Metres a radian eastwards and northwards, each of the latitude's shape.
    """
    bend = 1.0 - WGS84_ECCENTRICITY_SQUARED * np.sin(latitude) ** 2
    east = WGS84_SEMI_MAJOR_M * np.cos(latitude) / np.sqrt(bend)
    north = WGS84_SEMI_MAJOR_M * (1.0 - WGS84_ECCENTRICITY_SQUARED) / bend**1.5
    return east, north


def is_mercator(crs: Any) -> bool:  # noqa: ANN401
    """Whether a `rasterio.crs.CRS` is a Mercator projection along the equator, which enlarges away from it."""
    return projection_method(crs).startswith(NORMAL_MERCATOR)


def mercator_scale(
    crs: Any,  # noqa: ANN401
    x_N: NDArray[np.float64],
    y_N: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres on the WGS 84 ellipsoid that one unit of a Mercator map stands for, eastwards and northwards, [N] each.

    Longitude depends on x alone here and latitude on y alone, so two opposite corners of a small box around the place
    tell both. The difference is taken of PROJ's own inverse, because the formulas differ: web Mercator's are those of
    the sphere with latitudes of the ellipsoid, and others have a scale factor or a standard parallel.
    """
    half = 50.0  # map units: far above PROJ's rounding (1e-9 of the box), far below the change of scale (1e-10)
    west_N, south_N = _to_longitude_latitude(crs, x_N - half, y_N - half)
    east_N, north_N = _to_longitude_latitude(crs, x_N + half, y_N + half)
    wide_N = np.mod(east_N - west_N, 2 * np.pi)  # the box may lie across the 180th meridian
    metres_east_N, metres_north_N = metres_a_radian((south_N + north_N) / 2)
    return metres_east_N * wide_N / (2 * half), metres_north_N * (north_N - south_N) / (2 * half)


def projection_method(crs: Any) -> str:  # noqa: ANN401
    """PROJ's name of the projection of a `rasterio.crs.CRS`; empty for coordinates that are not projected."""
    description = crs.to_dict(projjson=True)
    while description.get("type") in ("CompoundCRS", "BoundCRS"):
        if description["type"] == "CompoundCRS":  # with heights: the first component is the horizontal one
            description = description["components"][0]
        else:  # with a way to WGS 84, as in PROJ strings with +towgs84 or +nadgrids
            description = description["source_crs"]
    return str(description.get("conversion", {}).get("method", {}).get("name", ""))


def _to_longitude_latitude(
    crs: Any,  # noqa: ANN401
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    longitude, latitude = transform_points(crs, "EPSG:4326", x, y)
    return np.radians(longitude), np.radians(latitude)
