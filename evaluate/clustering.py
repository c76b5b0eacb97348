"""Whether points on a class of a map lie as random points would, or in clusters. Axes: N points.

Clark, P. J., Evans, F. C. (1954): Distance to nearest neighbor as a measure of spatial relationships in populations.
Ecology 35, 445-453.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

LOWEST_RATIO = 0.7
"""Below it points are clustered. Random points have a ratio of 1 on average, more along edges and in a stratum that is
scattered: a disc around a point holds at most its whole area of the stratum, whatever the stratum's shape, so that a
small pond is as good as a wide field. Points that fill a part of a stratum evenly have the square root of that part:
0.7 is half of it. Pixels of a few labelled patches cover some percent of a map, and have 0.1 to 0.3."""

RATIO_DEVIATION = 0.53
"""Standard deviation of the ratio of random points, times the square root of their number (Donnelly 1978)."""

DEVIATIONS = 3.5
"""A ratio counts as low only if it lies so many standard deviations below 1, which happens to random points about once
in four thousand times. It matters below 38 points; a handful can be near to each other by chance."""


def nearest_neighbour_ratio(row_N: NDArray[np.int64], col_N: NDArray[np.int64], stratum_pixels: int) -> float:
    """Mean distance from point to nearest point, over 0.5 sqrt(A / n), what random points in the plane have.

    Distances and area are in pixels, which may be oblong: stretching both leaves random points random.

    Args:
        row_N: Rows of the points' pixels [N].
        col_N: Columns [N].
        stratum_pixels: Area of the stratum in which they all lie, A.

    Returns:
        The ratio; NaN for fewer than two points.
    """
    if len(row_N) < 2:
        return math.nan
    points_N2 = np.stack([row_N, col_N], axis=1).astype(np.float64)
    distance_N = KDTree(points_N2).query(points_N2, k=2)[0][:, 1]
    return float(distance_N.mean() / (0.5 * math.sqrt(stratum_pixels / len(points_N2))))


def is_clustered(ratio: float, points: int) -> bool:
    """Whether a ratio is lower than random points can be expected to have; one that is NaN is not."""
    return ratio < LOWEST_RATIO and ratio < 1 - DEVIATIONS * RATIO_DEVIATION / math.sqrt(points)
