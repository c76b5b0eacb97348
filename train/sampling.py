"""Which patch is drawn when: a function of seed and position alone.

Axes: N patch, K class.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 0.01
"""Share of a patch's labelled pixels that a class must have for the patch to be drawn for its sake."""

_EPOCH, _WINDOW, _RARITY = 0, 1, 2  # streams of random numbers, kept apart


class Order(Protocol):
    """An endless order of N patches."""

    def draw(self, position: int, attempt: int) -> int:
        """Number of the patch at a position, 0 to N - 1; further attempts give others, where the first are damaged."""


class Shuffled:
    """Each patch once before any is drawn again, in another order each time.

    Args:
        count: Number of patches N.
        seed: Seed.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def draw(self, position: int, attempt: int = 0) -> int:
        """See `Order`; an attempt gives the next patch of the same order."""
        epoch, place = divmod(position, self._count)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, _EPOCH, epoch]).permutation(self._count)
            self._epoch = epoch
        return int(self._order[(place + attempt) % self._count])


class ByFolder:
    """Every folder once in each round of as many draws as there are folders, in another order each time.

    Within a folder each patch comes once before any comes again, so those of small folders come more often.

    Args:
        folders_N: Folder of each patch.
        seed: Seed.
    """

    def __init__(self, folders_N: Sequence[str], seed: int) -> None:
        members: dict[str, list[int]] = {}
        for number, folder in enumerate(folders_N):
            members.setdefault(folder, []).append(number)
        self._members = [np.array(numbers) for numbers in members.values()]
        self._rounds = Shuffled(len(members), seed)
        self._within = [Shuffled(len(numbers), seed + 1 + f) for f, numbers in enumerate(self._members)]

    def draw(self, position: int, attempt: int = 0) -> int:
        """See `Order`; attempts give the folder's next patches, and beyond them those of other folders."""
        folder = self._rounds.draw(position)
        while attempt >= len(self._members[folder]):
            attempt -= len(self._members[folder])
            folder = (folder + 1) % len(self._members)
        number = self._within[folder].draw(position // len(self._members), attempt)
        return int(self._members[folder][number])


class ByRarity:
    """Rare class sampling: a class is drawn, the rarer the likelier, then one of the patches that show it.

    P(c) = exp((1 - f_c) / T) / sum over c' of exp((1 - f_c') / T), f_c the share of class c among all labelled pixels
    (Hoyer, Dai, Van Gool: DAFormer, CVPR 2022, equations 4 and 5). A patch shows a class from `LEAST_SHARE` of its
    labelled pixels on; a class that no patch shows so clearly takes those with any pixel of it. Classes without a pixel
    are never drawn.

    Args:
        pixels_NK: Labelled pixels of each class in each patch, int64 [N, K].
        temperature: T, above 0.
        seed: Seed.
    """

    def __init__(self, pixels_NK: NDArray[np.int64], temperature: float, seed: int) -> None:
        self._seed = seed
        self._pixels_NK = pixels_NK
        self._temperature = temperature

    def draw(self, position: int, attempt: int = 0) -> int:
        """See `Order`; an attempt draws anew."""
        generator = np.random.default_rng([self._seed, _RARITY, position, attempt])
        k = int(np.searchsorted(self._steps_K, generator.random(), side="right"))
        candidates = self._showing[k]
        return int(candidates[generator.integers(len(candidates))])

    @property
    def probability_K(self) -> NDArray[np.float64]:
        """Probability that a class is drawn, float64 [K]."""
        total_K = self._pixels_NK.sum(axis=0)
        return class_probabilities(total_K, self._temperature)

    @cached_property
    def _steps_K(self) -> NDArray[np.float64]:
        steps_K = np.cumsum(self.probability_K)
        steps_K[np.flatnonzero(self.probability_K)[-1] :] = 1.0  # rounding must not lead beyond the last class
        return steps_K

    @cached_property
    def _showing(self) -> list[NDArray[np.int64]]:
        share_NK = self._pixels_NK / self._pixels_NK.sum(axis=1, keepdims=True).clip(min=1)
        clear = [np.flatnonzero(share_N >= LEAST_SHARE) for share_N in share_NK.T]
        return [few if len(few) else np.flatnonzero(share_N) for few, share_N in zip(clear, share_NK.T, strict=True)]


def class_probabilities(pixels_K: NDArray[np.int64], temperature: float) -> NDArray[np.float64]:
    """P(c) of rare class sampling, float64 [K]; 0 for classes without a pixel.

    Args:
        pixels_K: Labelled pixels of each class, int64 [K], one at least above 0.
        temperature: T, above 0.
    """
    share_K = pixels_K / pixels_K.sum()
    exponent_K = np.where(share_K > 0, (1 - share_K) / temperature, -np.inf)
    weight_K = np.exp(exponent_K - exponent_K.max())
    return np.asarray(weight_K / weight_K.sum(), np.float64)


def window_generator(seed: int, position: int) -> np.random.Generator:
    """Source of the window that is cut out of the patch at a position."""
    return np.random.default_rng([seed, _WINDOW, position])
