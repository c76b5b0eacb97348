"""Polygons from their own coordinates to the pixels of a grid."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from salakseg.prepare.grid import Grid

MAX_STRAY_PX = 0.05
"""How far, in pixels, a straight edge of the labels may stray from its place when it is bent by a projection."""

_ROUNDS = 12
_LATTICE = 33


def place(parts_P: NDArray[Any], crs: Any, grid: Grid) -> tuple[NDArray[Any], NDArray[np.intp]]:  # noqa: ANN401
    """Takes polygons to a grid's pixel coordinates.

    Edges are straight in the labels' own reference system: where the grid's is another one, they get as many
    vertices more as it takes to follow their bend.

    Args:
        parts_P: Polygons, [P].
        crs: Their `rasterio.crs.CRS`; None if they are in the grid's own coordinates.
        grid: The pixels.

    Returns:
        The polygons that reach the grid, [Q], and their positions in `parts_P`, ascending, [Q].
    """
    if crs is None or crs == grid.crs:
        chosen = np.arange(len(parts_P))
        placed = shapely.transform(parts_P, lambda points_N2: to_pixels(points_N2, grid.transform))
    else:
        placed, chosen = _reprojected(parts_P, crs, grid)
    box = shapely.box(0, 0, grid.width, grid.height)
    near = shapely.intersects(placed, box) & ~shapely.touches(placed, box)
    return placed[near], chosen[near]


def to_pixels(points_N2: NDArray[np.float64], transform: Affine) -> NDArray[np.float64]:
    """Coordinates [N, 2] to columns and rows, [N, 2]; whole numbers are the edges of pixels."""
    inverse = ~transform
    x, y = points_N2[:, 0], points_N2[:, 1]
    if inverse.b == 0 and inverse.d == 0:  # as GDAL does: one rounding less
        return np.stack([(x - transform.c) / transform.a, (y - transform.f) / transform.e], axis=1)
    dx, dy = x - transform.c, y - transform.f  # near the grid first: coordinates have seven digits before the point
    return np.stack([inverse.a * dx + inverse.b * dy, inverse.d * dx + inverse.e * dy], axis=1)


def to_coordinates(pixels_N2: NDArray[np.float64], transform: Affine) -> NDArray[np.float64]:
    """Columns and rows [N, 2] to coordinates, [N, 2]."""
    x, y = pixels_N2[:, 0], pixels_N2[:, 1]
    return np.stack(
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f], axis=1
    )


def project(points_N2: NDArray[np.float64], source: Any, target: Any) -> NDArray[np.float64]:  # noqa: ANN401
    """Coordinates [N, 2] from one reference system to another; not finite where there is no way."""
    x, y = _transformer(source.to_wkt(), target.to_wkt()).transform(points_N2[:, 0], points_N2[:, 1])
    found: NDArray[np.float64] = np.stack([x, y], axis=1)
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


@lru_cache(maxsize=8)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(CRS.from_wkt(source), CRS.from_wkt(target), always_xy=True)


def _reprojected(parts_P: NDArray[Any], crs: Any, grid: Grid) -> tuple[NDArray[Any], NDArray[np.intp]]:  # noqa: ANN401
    none = np.empty(0, object), np.empty(0, np.intp)
    extent = _extent(crs, grid)
    if extent is None:
        return none
    chosen = np.flatnonzero(shapely.intersects(parts_P, shapely.box(*extent)))
    if len(chosen) == 0:
        return none
    # What lies far from the grid may have no coordinates in the grid's reference system at all.
    nearby = shapely.clip_by_rect(parts_P[chosen], *_grown(extent, 1.0))
    nearby, index = shapely.get_parts(nearby, return_index=True)
    chosen = chosen[index]
    areal = (shapely.get_type_id(nearby) == 3) & ~shapely.is_empty(nearby)
    nearby, chosen = nearby[areal], chosen[areal]

    def pixels(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
        return to_pixels(project(points_N2, crs, grid.crs), grid.transform)

    placed = shapely.transform(_bendable(nearby, pixels), pixels)
    finite = np.isfinite(shapely.bounds(placed)).all(axis=1)
    return placed[finite], chosen[finite]


def _extent(crs: Any, grid: Grid) -> tuple[float, float, float, float] | None:  # noqa: ANN401
    """The box in the labels' reference system that holds the grid, a little larger; None if there is none."""
    col, row = np.meshgrid(np.linspace(0, grid.width, _LATTICE), np.linspace(0, grid.height, _LATTICE))
    corners_N2 = to_coordinates(np.stack([col.ravel(), row.ravel()], axis=1), grid.transform)
    points_N2 = project(corners_N2, grid.crs, crs)
    points_N2 = points_N2[np.isfinite(points_N2).all(axis=1)]
    if len(points_N2) == 0:
        return None
    return _grown((*points_N2.min(axis=0).tolist(), *points_N2.max(axis=0).tolist()), 0.02)


def _grown(box: tuple[float, ...], share: float) -> tuple[float, float, float, float]:
    left, bottom, right, top = box
    margin = share * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def _bendable(parts_P: NDArray[Any], pixels: Any) -> NDArray[Any]:  # noqa: ANN401
    """The polygons with so many vertices that their edges stay straight when they are taken to pixels."""
    for _ in range(_ROUNDS):
        longest, stray = _stray(parts_P, pixels)
        if stray <= MAX_STRAY_PX or not math.isfinite(stray):
            break
        # A bend's height grows with the square of its length.
        parts_P = shapely.segmentize(parts_P, 0.9 * longest * math.sqrt(MAX_STRAY_PX / stray))
    return parts_P


def _stray(parts_P: NDArray[Any], pixels: Any) -> tuple[float, float]:  # noqa: ANN401
    """The longest edge, and how far in pixels an edge strays from the straight line at most."""
    points_N2, ring_N = shapely.get_coordinates(shapely.get_rings(parts_P), return_index=True)
    edge = np.flatnonzero(ring_N[1:] == ring_N[:-1])
    start_N2, stop_N2 = points_N2[edge], points_N2[edge + 1]
    here_N2 = pixels(points_N2)
    stray = 0.0
    for share in (0.25, 0.5, 0.75):
        bent = pixels(start_N2 + share * (stop_N2 - start_N2))
        straight = here_N2[edge] + share * (here_N2[edge + 1] - here_N2[edge])
        distance = np.hypot(*(bent - straight).T)
        stray = max(stray, float(np.nanmax(distance, initial=0.0)))
    return float(np.hypot(*(stop_N2 - start_N2).T).max(initial=0.0)), stray
