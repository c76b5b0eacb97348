"""From degrees to metres: each site's own plane, in which distances are right to a few tenths of a percent.

Axes: N patches, S sites, four corners, two coordinates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from salakseg.errors import DataError
from salakseg.prepare.parts.footprints import Footprints

SITE_DEGREES = 0.5
"""Patches further apart than twice this are at different sites, unless others lie between them."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Footprints on planes in metres.

    Attributes:
        corner_N42: Corners in order, metres eastwards and northwards, float64.
        site_N: Site of each patch, int64; coordinates of different sites have nothing to do with each other.
        epsg_S: UTM zone of each site, an EPSG code.
        source_N: Name of what the patch was cut from.
    """

    corner_N42: NDArray[np.float64]
    site_N: NDArray[np.int64]
    epsg_S: tuple[int, ...]
    source_N: tuple[str, ...]

    @property
    def box_N4(self) -> NDArray[np.float64]:
        """Least x, least y, greatest x and greatest y of each footprint [N, 4]."""
        return np.concatenate([self.corner_N42.min(axis=1), self.corner_N42.max(axis=1)], axis=1)


def place_on_planes(footprints: Footprints) -> Ground:
    """Groups patches into sites and projects each site by the UTM zone around it.

    Args:
        footprints: Of patches that all have a place.

    Raises:
        DataError: A place is not on the earth.
    """
    corner_N42 = footprints.corner_N42
    if not (np.abs(corner_N42[..., 1]) <= 90).all():
        raise DataError("Latitudes beyond 90 degrees are no places; see which coordinates the patches really have.")
    site_N = _sites(corner_N42.mean(axis=1))
    plane_N42 = np.empty_like(corner_N42)
    epsg: list[int] = []
    for site in range(int(site_N.max(initial=-1)) + 1):
        inside = site_N == site
        epsg.append(_utm_zone(corner_N42[inside].reshape(-1, 2)))
        transformer = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg[-1]}", always_xy=True)
        x, y = transformer.transform(corner_N42[inside, :, 0], corner_N42[inside, :, 1])
        plane_N42[inside] = np.stack([x, y], axis=-1)
    return Ground(plane_N42, site_N, tuple(epsg), footprints.source_N)


def _sites(centre_N2: NDArray[np.float64]) -> NDArray[np.int64]:
    """Connected groups of cells of `SITE_DEGREES`; the last column touches the first."""
    columns = round(360 / SITE_DEGREES)
    cell_N2 = np.floor(centre_N2 / SITE_DEGREES).astype(np.int64)
    cell_N2[:, 0] %= columns
    cell_C2, cell_N = np.unique(cell_N2, axis=0, return_inverse=True)
    number = {tuple(cell): place for place, cell in enumerate(cell_C2.tolist())}
    links = [
        (place, number[beside])
        for place, (col, row) in enumerate(cell_C2.tolist())
        for right in (-1, 0, 1)
        for up in (-1, 0, 1)
        if (beside := ((col + right) % columns, row + up)) in number
    ]
    one, other = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(cell_C2), len(cell_C2)))
    site_C = connected_components(graph, directed=False)[1].astype(np.int64)
    site_N: NDArray[np.int64] = site_C[cell_N]
    return site_N


def _utm_zone(corner_M2: NDArray[np.float64]) -> int:
    angle = np.radians(corner_M2[:, 0])
    longitude = float(np.degrees(np.arctan2(np.sin(angle).mean(), np.cos(angle).mean())))  # also across 180 degrees
    zone = int((longitude + 180) // 6) % 60 + 1
    return (32600 if corner_M2[:, 1].mean() >= 0 else 32700) + zone
