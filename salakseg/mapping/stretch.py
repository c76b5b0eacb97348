"""Sensor values to 8 bits: one linear range for red, green and blue, so that colours keep their relation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2.0, 98.0)
"""Share of the valid values, percent, that a percentile stretch leaves below black and above white."""

BINS = 65536
"""Of the histogram behind a percentile stretch: exact for 16-bit integers, 1 / 256 of a grey level for all others."""

Blocks = Callable[[], Iterable[NDArray[np.generic]]]
"""Starts a pass over all valid values of a file, a part at a time."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A linear range.

    Attributes:
        low: The value that becomes 0; all below become 0, too.
        high: The value that becomes 255, above `low`; all above become 255, too.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range needs a lower and a higher value, not {self.low:g} and {self.high:g}")

    def __str__(self) -> str:
        return f"{self.low:.9g},{self.high:.9g}"

    def apply(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Values of any type and shape as uint8 of the same shape; what is not a number becomes 0."""
        with np.errstate(over="ignore"):  # of nodata such as -3.4e38
            scaled = (values.astype(np.float32) - np.float32(self.low)) * np.float32(255 / (self.high - self.low))
        grey: NDArray[np.uint8] = np.nan_to_num(scaled.clip(0, 255)).round().astype(np.uint8)
        return grey


def percentile_stretch(blocks: Blocks) -> Stretch:
    """The range between the 2nd and the 98th percentile of all values, red, green and blue together.

    Args:
        blocks: Called once for the extremes and once for the histogram between them.

    Raises:
        ValueError: There are no values, or they are all the same.
    """
    low, high, whole = np.inf, -np.inf, True
    for block in blocks():
        whole &= block.dtype.kind in "iu"
        if block.size:
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    if not low < high:
        raise ValueError("it has no valid pixel" if low > high else f"all its values are {low:g}")
    counts = np.zeros(BINS, np.int64)
    # Integers get bins that are centred on them where there are enough.
    width = max(float(whole), (high - low) / (BINS - 1))
    for block in blocks():
        at = np.rint((block.astype(np.float64) - low) / width).astype(np.intp)
        counts += np.bincount(at.ravel(), minlength=BINS)
    cumulative = np.cumsum(counts) / counts.sum()
    found = [low + width * float(np.searchsorted(cumulative, share / 100)) for share in PERCENTILES]
    return Stretch(*found) if found[0] < found[1] else Stretch(low, high)
