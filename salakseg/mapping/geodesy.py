"""How much ground a raster's pixels stand for, in any coordinate reference system."""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import xy
from rasterio.warp import transform as transform_points

WGS84_SEMI_MAJOR_M = 6378137.0
WGS84_ECCENTRICITY_SQUARED = 0.00669437999014
MERCATOR_METHODS = ("Popular Visualisation Pseudo Mercator", "Mercator (variant A)")
"""PROJ's names of the projections that are true to scale on the equator only; the first is web Mercator."""

Latitude = TypeVar("Latitude", float, NDArray[np.float64])


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
        east, north = (metres * unit for metres in metres_a_radian(y * unit))
    elif is_mercator(crs):
        latitude = transform_points(crs, "EPSG:4326", [x], [y])[1][0]
        east = north = unit * math.cos(math.radians(latitude))
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
    """Whether a `rasterio.crs.CRS` is a Mercator projection that is true to scale on the equator only."""
    return projection_method(crs) in MERCATOR_METHODS


def projection_method(crs: Any) -> str:  # noqa: ANN401
    """PROJ's name of the projection of a `rasterio.crs.CRS`; empty for coordinates that are not projected."""
    description = crs.to_dict(projjson=True)
    while description.get("type") in ("CompoundCRS", "BoundCRS"):
        if description["type"] == "CompoundCRS":  # with heights: the first component is the horizontal one
            description = description["components"][0]
        else:  # with a way to WGS 84, as in PROJ strings with +towgs84 or +nadgrids
            description = description["source_crs"]
    return str(description.get("conversion", {}).get("method", {}).get("name", ""))
