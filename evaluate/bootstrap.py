"""How far a figure would be off on other photos: intervals by resampling photos or blocks, never pixels.

Pixels of one photo are alike, so thousands of them are no thousands of observations. Whole units are drawn with
replacement, their confusion matrices added up, and every figure is computed anew from each sum (Efron and Tibshirani
1993, chapter 13). The interval is the percentile interval, expanded for few units as in Hesterberg 2015 ("What teachers
should know about the bootstrap", section 4.3): its tails are those of Student's t, since plain percentiles are too
narrow by a factor of about sqrt((n - 1) / n). Differences of two things measured on the same photos are computed within
each replicate, which leaves out what makes photos hard for both.

Axes: U unit, R replicate, K class, ... any figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from salakseg.evaluate.formats import finite_or_none, list_or_none
from salakseg.evaluate.metrics import figures_of

LEVEL = 0.95
"""Share of cases in which an interval is meant to hold the true figure."""

REPLICATES = 2000
"""Enough for two stable digits at the ends of a 95 % interval."""

FEW_UNITS = 20
"""Below, even the expanded interval holds the truth less often than it says: 85 to 90 % of the time with 8 units."""

LEAST_UNITS = 5
"""Below, there is no interval: of two equally good variants one would be called better in 12 % of the cases with four
units, and in half of them with two."""

LEAST_UNITS_OF_A_CLASS = 3
"""Units that must show a class for its figures to have an interval: resampling one photo over and over says nothing of
others."""

_CHUNK = 4_000_000  # counts in memory at a time: 32 MB


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Ends of a 95 % interval, of one figure or of many.

    Attributes:
        low: Lower end, float64 [...]; NaN where half of the replicates leave it undefined, or with fewer than
            `LEAST_UNITS` units.
        high: Upper end, likewise.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def __getitem__(self, index: Any) -> "Interval":  # noqa: ANN401
        """The interval of some of the figures."""
        return Interval(np.asarray(self.low[index]), np.asarray(self.high[index]))

    def __sub__(self, constant: float | NDArray[np.float64]) -> "Interval":
        return Interval(np.asarray(self.low - constant), np.asarray(self.high - constant))

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval of a single figure."""
        return float(self.low), float(self.high)

    @property
    def decided(self) -> bool:
        """Whether the interval of a single difference leaves out 0, as printed: "-0.9 to +0.0, worse" would puzzle."""
        low, high = (round(100 * end, 1) for end in self.ends)
        return low > 0 or high < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        if self.low.ndim == 0:
            return {"low": finite_or_none(float(self.low)), "high": finite_or_none(float(self.high))}
        return {"low": list_or_none(self.low), "high": list_or_none(self.high)}


def draw_units(units: int, replicates: int = REPLICATES, seed: int = 0) -> NDArray[np.float64]:
    """How often each unit is drawn in each replicate.

    Args:
        units: U, 1 or more.
        replicates: R.
        seed: The same seed and number of units give the same draws, which paired comparisons rest on.

    Returns:
        Whole numbers as float64 [R, U]; each row sums to U.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(units, np.full(units, 1 / units), size=replicates).astype(np.float64)


def resample_figures(
    counts_UKK: NDArray[np.int64], draws_RU: NDArray[np.float64], names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Figures of every replicate.

    Args:
        counts_UKK: Confusion matrix of each unit.
        draws_RU: See `draw_units`.
        names: Which of the figures, see `figures_of`.

    Returns:
        [R] or [R, K] float64 for each name; NaN where a replicate leaves the figure undefined.
    """
    units, classes = counts_UKK.shape[:2]
    flat = counts_UKK.reshape(units, -1).astype(np.float64)
    step = max(1, _CHUNK // flat.shape[1])
    parts = [
        figures_of((draws_RU[start : start + step] @ flat).reshape(-1, classes, classes))
        for start in range(0, len(draws_RU), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def complete_means(iou_RK: NDArray[np.float64], classes_K: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of the same classes in every replicate.

    A replicate that happens to hold no photo with a rare class would otherwise be the mean of the others, which is
    another figure, and mostly a higher one.

    Args:
        iou_RK: A figure of each class in each replicate, NaN where undefined.
        classes_K: The classes to take the mean of.

    Returns:
        [R] float64; NaN in replicates where one of them is undefined, or if there are none.
    """
    chosen = iou_RK[:, classes_K]
    return chosen.mean(axis=1) if chosen.shape[1] else np.full(len(iou_RK), np.nan)


def interval_of(replicates: NDArray[np.float64], units: int) -> Interval:
    """The expanded percentile interval.

    Args:
        replicates: [R, ...] a figure, or a difference of two, in each replicate; NaN where undefined.
        units: Number of units that were resampled.

    Returns:
        Ends [...].
    """
    nothing = np.full(replicates.shape[1:], np.nan)
    if units < LEAST_UNITS:
        return Interval(nothing, nothing.copy())
    half = (1 - LEVEL) / 2
    tail = float(stats.norm.cdf(-np.sqrt(units / (units - 1)) * stats.t.ppf(1 - half, units - 1)))
    defined = (~np.isnan(replicates)).mean(axis=0) > 0.5
    filled = np.where(defined, replicates, 0.0)  # nanquantile warns of columns that hold nothing else
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return Interval(np.where(defined, low, np.nan), np.where(defined, high, np.nan))
