"""Values from one row of pixels to another that covers the same ground in steps of another length.

Both rows begin at the same edge. Finer steps are interpolated between the centres of the coarser pixels; coarser ones
are the mean over the ground that they cover, so that nothing is dropped and nothing moves by half a pixel. A raster is
resampled along its rows and along its columns, one after the other.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_ROUNDING = 1e-9
"""Steps that are equal but for the rounding of a quotient are equal."""


@dataclass(frozen=True, slots=True)
class AxisResampler:
    """From `size_in` pixels to `size_out` pixels along one axis.

    Attributes:
        size_in: Pixels given.
        size_out: Pixels wanted.
        step: Length of a wanted pixel in given pixels, above 0.
    """

    size_in: int
    size_out: int
    step: float

    @property
    def identity(self) -> bool:
        """Whether both rows have the same pixels."""
        return self.size_in == self.size_out and abs(self.step - 1.0) < _ROUNDING

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """The given pixels, first and after the last, on which the wanted pixels `start` to `stop` - 1 depend."""
        if self.identity:
            return start, stop
        return self._first(start), self._last(stop - 1) + 1

    def ready(self, given: int) -> int:
        """How many wanted pixels, from the first one on, depend on the first `given` pixels alone."""
        if given >= self.size_in:
            return self.size_out
        if self.identity:
            return given
        # The last given pixel never falls as the wanted one rises: the estimate is put right by a few steps.
        count = min(self.size_out, max(0, math.floor(given / self.step) + 2))
        while count > 0 and self._last(count - 1) >= given:
            count -= 1
        return count

    def covered(self, start: int, stop: int) -> NDArray[np.float64]:
        """The share of each wanted pixel that lies within the given ones, [stop - start]: the last may stick out."""
        return np.clip((self.size_in - np.arange(start, stop) * self.step) / self.step, 0.0, 1.0)

    def matrix(self, start: int, stop: int) -> Any:  # noqa: ANN401
        """Weights of the needed pixels, a sparse [stop - start, needed] float32 matrix whose rows sum to one."""
        first, last = self.needed(start, stop)
        if self.identity:
            return sparse.eye_array(stop - start, dtype=np.float32, format="csr")
        rows: list[NDArray[np.intp]] = []
        cols: list[NDArray[np.intp]] = []
        weights: list[NDArray[np.float64]] = []
        wanted = np.arange(start, stop)
        if self.step <= 1.0 + _ROUNDING:
            position = (wanted + 0.5) * self.step - 0.5
            left = np.floor(position).astype(np.intp)
            for tap, weight in ((left, left + 1 - position), (left + 1, position - left)):
                rows.append(wanted - start)
                cols.append(tap.clip(0, self.size_in - 1) - first)
                weights.append(weight)
        else:
            edge, reach = wanted * self.step, math.ceil(self.step) + 1
            for offset in range(reach + 1):
                tap = np.floor(edge).astype(np.intp) + offset
                covered = np.minimum(tap + 1, np.minimum(edge + self.step, self.size_in)) - np.maximum(tap, edge)
                inside = (covered > _ROUNDING) & (tap < self.size_in)
                rows.append((wanted - start)[inside])
                cols.append(tap[inside] - first)
                weights.append(covered[inside])
        row, col, weight = np.concatenate(rows), np.concatenate(cols), np.concatenate(weights)
        # A pixel that sticks out beyond the end is the mean of what it covers.
        weight /= np.bincount(row, weight, minlength=stop - start)[row]
        shape = (stop - start, last - first)
        return sparse.coo_array((weight.astype(np.float32), (row, col)), shape=shape).tocsr()

    def _first(self, wanted: int) -> int:
        if self.step <= 1.0 + _ROUNDING:
            return min(max(0, math.floor((wanted + 0.5) * self.step - 0.5)), self.size_in - 1)
        return min(math.floor(wanted * self.step), self.size_in - 1)

    def _last(self, wanted: int) -> int:
        if self.step <= 1.0 + _ROUNDING:
            return min(max(0, math.floor((wanted + 0.5) * self.step - 0.5) + 1), self.size_in - 1)
        return min(math.ceil((wanted + 1) * self.step) - 1, self.size_in - 1)


def resample(values_HW: NDArray[np.float32], rows: Any, cols: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Resamples a picture [H, W] by the matrices of its two axes, see `AxisResampler.matrix`."""
    between: NDArray[np.float32] = rows @ values_HW
    return np.ascontiguousarray((cols @ between.T).T)
