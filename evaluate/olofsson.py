"""Accuracy and area of a map from a sample of points, as Olofsson et al. 2014 estimate them.

Olofsson, P., Foody, G. M., Herold, M., Stehman, S. V., Woodcock, C. E., Wulder, M. A. (2014): Good practices for
estimating area and assessing accuracy of land change. Remote Sensing of Environment 148, 42-57. The equations' numbers
are that paper's. The strata are the classes of the map. Axes: K classes; of two, the first is the map's class (i in the
paper) and the second the reference's (j).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.96
"""Standard errors to either side of an estimate that make its 95 % interval, as the paper rounds it."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One figure or one for each class.

    Attributes:
        value: The estimate, [K] or a single one [].
        standard_error: Its standard error, of the same shape and unit.
    """

    value: NDArray[np.float64]
    standard_error: NDArray[np.float64]

    @property
    def half_width(self) -> NDArray[np.float64]:
        """What lies to either side of the estimate in its 95 % interval."""
        return Z_95 * self.standard_error


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What a sample tells of a map. What it tells nothing of is NaN.

    Attributes:
        proportions: The error matrix in shares of the mapped area [K, K], 0 to 1 (eq. 4).
        overall: Overall accuracy [], 0 to 1 (eqs. 1 and 5).
        users: User's accuracy [K], 0 to 1 (eqs. 2 and 6); NaN for a class that the map does not hold.
        producers: Producer's accuracy [K], 0 to 1 (eqs. 3 and 7); NaN for a class that no point is of.
        shares: Share of the mapped area that each class really has [K], 0 to 1 (eqs. 9 and 10).
        areas: The same as an area [K], in the unit of the mapped areas (eq. 11).
    """

    proportions: NDArray[np.float64]
    overall: Estimate
    users: Estimate
    producers: Estimate
    shares: Estimate
    areas: Estimate


def estimate(counts: ArrayLike, mapped: ArrayLike, stratum_pixels: ArrayLike | None = None) -> Estimates:
    """Estimates accuracy and areas from points that are random within each class of the map.

    That holds for a stratified random sample, and for a simple random sample given how many points fell on each class
    (poststratification). A class on which fewer than two points lie, though the map holds it, has no standard error,
    and neither has anything that depends on it.

    Args:
        counts: Points by class of the map and class of the reference [K, K].
        mapped: Area that the map gives each class [K], in any unit; 0 for one that it does not hold.
        stratum_pixels: Pixels of each class of the map [K]. With them the variances get the finite population
            correction 1 - n/N of sampling without replacement (Cochran 1977, Sampling Techniques, eq. 3.8), which the
            paper leaves out because it hardly differs from 1: a class whose every pixel is a point has no error.

    Returns:
        The estimates.

    Raises:
        ValueError: Shapes that do not fit, negative values, no mapped area, or points on a class without area.
    """
    counts_KK, mapped_K = np.asarray(counts, np.float64), np.asarray(mapped, np.float64)
    pixels_K = np.full(mapped_K.shape, np.inf) if stratum_pixels is None else np.asarray(stratum_pixels, np.float64)
    _check(counts_KK, mapped_K, pixels_K)
    there_K = mapped_K > 0
    points_K = counts_KK.sum(axis=1)
    weight_K = mapped_K / mapped_K.sum()

    share_KK = _ratio(counts_KK, points_K[:, None])  # the estimate of p_ij / W_i
    variance_KK = share_KK * (1 - share_KK) * _variance_scale(points_K, pixels_K)[:, None]
    # A class that the map does not hold weighs nothing, and has no say; one without points spoils every sum.
    weighted_KK = np.where(there_K[:, None], weight_K[:, None] * share_KK, 0.0)
    weighted_variance_KK = np.where(there_K[:, None], weight_K[:, None] ** 2 * variance_KK, 0.0)

    shares_K = weighted_KK.sum(axis=0)
    producers_K = _ratio(np.diagonal(weighted_KK), shares_K)
    correct_K = np.diagonal(weighted_variance_KK)
    others_K = np.where(np.eye(len(mapped_K), dtype=bool), 0.0, weighted_variance_KK).sum(axis=0)
    spread_K = (1 - producers_K) ** 2 * correct_K + producers_K**2 * others_K
    shares = Estimate(shares_K, np.sqrt(weighted_variance_KK.sum(axis=0)))
    return Estimates(
        proportions=weighted_KK,
        overall=Estimate(np.trace(weighted_KK), np.sqrt(correct_K.sum())),
        users=Estimate(np.diagonal(share_KK).copy(), np.sqrt(np.diagonal(variance_KK))),
        producers=Estimate(producers_K, _ratio(np.sqrt(spread_K), shares_K)),
        shares=shares,
        areas=Estimate(mapped_K.sum() * shares.value, mapped_K.sum() * shares.standard_error),
    )


def sample_size(stratum_pixels: ArrayLike, standard_error: float, users: ArrayLike) -> int:
    """Points that give overall accuracy a wanted standard error (eq. 13, in full).

    Args:
        stratum_pixels: Pixels of each class of the map [K].
        standard_error: The standard error to be had, above 0.
        users: User's accuracy that is expected of each class, [K] or one for all, 0 to 1.

    Returns:
        Number of points, rounded up, at least 1.
    """
    pixels_K = np.asarray(stratum_pixels, np.float64)
    weight_K = pixels_K / pixels_K.sum()
    users_K = np.broadcast_to(np.asarray(users, np.float64), pixels_K.shape)
    variance_K = users_K * (1 - users_K)
    numerator = float((weight_K * np.sqrt(variance_K)).sum()) ** 2
    points = numerator / (standard_error**2 + float((weight_K * variance_K).sum() / pixels_K.sum()))
    return max(1, math.ceil(points - 1e-9))  # what is whole but for rounding is not rounded up


def _check(counts_KK: NDArray[np.float64], mapped_K: NDArray[np.float64], pixels_K: NDArray[np.float64]) -> None:
    classes = len(mapped_K)
    if counts_KK.shape != (classes, classes) or pixels_K.shape != (classes,):
        raise ValueError(f"counts {counts_KK.shape}, mapped {mapped_K.shape} and pixels {pixels_K.shape} do not fit")
    if (counts_KK < 0).any() or not (np.isfinite(mapped_K).all() and (mapped_K >= 0).all() and mapped_K.sum() > 0):
        raise ValueError("counts and mapped areas must not be negative, and some area must be mapped")
    if (counts_KK.sum(axis=1) > pixels_K).any() or counts_KK[mapped_K == 0].any():
        raise ValueError("points lie on a class that the map does not hold, or are more than its pixels")


def _variance_scale(points_K: NDArray[np.float64], pixels_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """What p (1 - p) is multiplied with for the variance of a share; NaN where a single point tells none."""
    scale_K = np.full(points_K.shape, np.nan)
    np.divide(1 - points_K / np.maximum(pixels_K, 1), points_K - 1, out=scale_K, where=points_K > 1)
    scale_K[(points_K > 0) & (points_K == pixels_K)] = 0.0
    return scale_K


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=np.broadcast_to(whole > 0, part.shape))
    return ratio
