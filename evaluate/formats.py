"""Figures as people and files read them."""

import math

import numpy as np
from numpy.typing import NDArray


def finite_or_none(value: float) -> float | None:
    """The value for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def list_or_none(values: NDArray[np.float64]) -> list[float | None]:
    """The values for JSON, which has no NaN."""
    return [finite_or_none(value) for value in values.tolist()]


def figure_text(value: float) -> str:
    """A figure between 0 and 1 as people read it: three decimals, a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def range_text(low: float, high: float) -> str:
    """An interval of figures between 0 and 1, such as 0.61-0.68; empty where it is undefined."""
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.2f}-{high:.2f}"


def points_text(gap: float) -> str:
    """A difference of two figures in points, which are hundredths, with its sign; empty where it is undefined."""
    if math.isnan(gap):
        return ""
    points = round(100 * gap, 1)
    return f"{points + 0.0:+.1f}"  # adding 0.0 turns -0.0 into 0.0


def points_range_text(low: float, high: float) -> str:
    """An interval of differences in points, such as -1.2 to +3.4; empty where it is undefined."""
    return f"{points_text(low)} to {points_text(high)}" if points_text(low) and points_text(high) else ""


def percent_text(share: float) -> str:
    """A share between 0 and 1 in percent, at most four characters; a dash where it is undefined.

    A zero without decimals means none at all, 0.0 and 100 are rounded.
    """
    if math.isnan(share):
        return "-"
    if share == 0 or share >= 0.9995:
        return f"{100 * share:.0f}"
    return f"{100 * share:.1f}"


def counted(count: int, one: str, more: str) -> str:
    """A number and what it counts, such as "1 patch" and "2,571 patches"."""
    return f"{count:,} {one if count == 1 else more}"


def count_text(count: int) -> str:
    """A number of pixels in at most five characters, such as 840, 12.3k or 4.56M."""
    if count < 1000:
        return str(count)
    units = ("", "k", "M", "G", "T")
    power = min((len(f"{float(f'{count:.3g}'):.0f}") - 1) // 3, len(units) - 1)
    number = float(f"{count:.3g}") / 1000**power
    return f"{number:.2f}"[:4].rstrip(".") + units[power]
