"""Where tiles lie on a raster and how much each counts: pure arithmetic, no file and no model.

A *tile* is an inference window. Tiles lie on one grid anchored at pixel (0, 0); neighbours share `overlap` pixels and
the last row and column may stick out beyond the raster. Where tiles overlap, their probabilities are mixed with smooth
weights that sum to one at every pixel, so that no seam shows and no division is left for afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

WindowName = Literal["hann", "triangle", "flat"]
"""How a tile counts from its middle to its edge: as a raised cosine, as a straight slope, or the same everywhere."""

WINDOWS: tuple[WindowName, ...] = get_args(WindowName)


@dataclass(frozen=True, slots=True)
class TileAxis:
    """The tiles along one axis of a raster.

    Attributes:
        size: Length of the raster along this axis, pixels.
        tile: Side of a tile, pixels.
        overlap: Pixels that neighbouring tiles share, 0 to tile - 1.
        window: The weights before they are normalised.

    Raises:
        ValueError: A size or tile below one pixel, or an overlap outside 0 to tile - 1.
    """

    size: int
    tile: int
    overlap: int
    window: WindowName = "hann"

    def __post_init__(self) -> None:
        if self.size < 1 or self.tile < 1:
            raise ValueError(f"size and tile must be at least 1 pixel, not {self.size} and {self.tile}")
        if not 0 <= self.overlap < self.tile:
            raise ValueError(f"overlap must be 0 to tile - 1 = {self.tile - 1} pixels, not {self.overlap}")

    @property
    def stride(self) -> int:
        """Pixels from one tile's start to the next one's."""
        return self.tile - self.overlap

    @property
    def count(self) -> int:
        """Number of tiles: the fewest that cover every pixel."""
        return 1 + max(0, -(-(self.size - self.tile) // self.stride))

    def start(self, index: int) -> int:
        """First pixel of a tile."""
        return index * self.stride

    def touching(self, start: int, stop: int) -> range:
        """Tiles that hold at least one of the pixels `start` to `stop` - 1, in ascending order.

        Raises:
            ValueError: The pixels are none, or not all within the raster.
        """
        if not 0 <= start < stop <= self.size:
            raise ValueError(f"pixels {start} to {stop} are not a part of 0 to {self.size}")
        first = max(0, (start - self.tile) // self.stride + 1)
        return range(first, min(self.count, (stop - 1) // self.stride + 1))

    def weights(self, index: int) -> NDArray[np.float64]:
        """Blend weights of a tile, [tile], above 0 and at most 1; not to be changed.

        The window, sampled between its zeros, divided by the sum of the windows of all tiles that lie over the pixel:
        over the whole axis the weights sum to one at each pixel, where a single tile reaches too.
        """
        return _axis_weights(self, index)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of a raster in two dimensions: a row axis and a column axis with the same tile, overlap and window."""

    rows: TileAxis
    cols: TileAxis

    @classmethod
    def over(cls, height: int, width: int, tile: int, overlap: int, window: WindowName = "hann") -> "TileGrid":
        """The grid over a raster of `height` x `width` pixels.

        Raises:
            ValueError: As `TileAxis`.
        """
        return cls(TileAxis(height, tile, overlap, window), TileAxis(width, tile, overlap, window))

    def __len__(self) -> int:
        return self.rows.count * self.cols.count

    def weights(self, row: int, col: int) -> NDArray[np.float32]:
        """Blend weights [tile, tile] of the tile in grid row `row` and grid column `col`; not to be changed.

        They sum to one over all tiles at every pixel of the raster, its borders included.
        """
        return _tile_weights(self.rows, self.cols, _typical(self.rows, row), _typical(self.cols, col))


def _typical(axis: TileAxis, index: int) -> int:
    """A tile with the same neighbours within reach, and so with the same weights: all inner ones have one in common."""
    reach = (axis.tile - 1) // axis.stride
    return reach if reach < index < axis.count - 1 - reach else index


@lru_cache(maxsize=16)  # inner tiles, borders and corners
def _tile_weights(rows: TileAxis, cols: TileAxis, row: int, col: int) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = np.outer(rows.weights(row), cols.weights(col)).astype(np.float32)
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=512)
def _axis_weights(axis: TileAxis, index: int) -> NDArray[np.float64]:
    window = _SHAPES[axis.window](axis.tile)
    total = np.zeros(axis.tile)
    reach = (axis.tile - 1) // axis.stride
    for other in range(max(0, index - reach), min(axis.count, index + reach + 1)):
        shift = (other - index) * axis.stride
        here = slice(max(0, shift), min(axis.tile, axis.tile + shift))
        there = slice(max(0, -shift), min(axis.tile, axis.tile - shift))
        total[here] += window[there]
    weights: NDArray[np.float64] = window / total
    weights.flags.writeable = False
    return weights


def _hann(length: int) -> NDArray[np.float64]:
    window: NDArray[np.float64] = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    return window


def _triangle(length: int) -> NDArray[np.float64]:
    at = np.arange(length, dtype=np.float64) + 0.5
    window: NDArray[np.float64] = np.minimum(at, length - at)
    return window


_SHAPES: dict[WindowName, Callable[[int], NDArray[np.float64]]] = {
    "hann": _hann,
    "triangle": _triangle,
    "flat": np.ones,
}
