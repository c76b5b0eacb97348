"""Choosing candidates that are doubtful and unlike each other.

Axes: M candidate, L labelled, C feature.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024  # of the labelled at a time


def standardise(
    feature_MC: NDArray[np.float32], labelled_LC: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features on one scale: each channel by its mean and spread over both sets, and two at random 1 apart in the mean.

    Without it all pictures look alike: features behind a ReLU share a large common part. They are not brought to one
    length, which would blow up the noise between pictures that are all like the mean.
    """
    both = np.concatenate([feature_MC, labelled_LC]).astype(np.float32)
    spread_C = both.std(axis=0)
    live_C = spread_C > 1e-6
    scaled = np.where(live_C, (both - both.mean(axis=0)) / np.maximum(spread_C, 1e-6), 0).astype(np.float32)
    scaled /= np.sqrt(2 * max(int(live_C.sum()), 1), dtype=np.float32)
    return scaled[: len(feature_MC)], scaled[len(feature_MC) :]


def pick_diverse(
    score_M: NDArray[np.float64],
    feature_MC: NDArray[np.float32],
    labelled_LC: NDArray[np.float32],
    count: int,
    conflicts: Callable[[int], NDArray[np.bool_]] | None = None,
) -> list[int]:
    """Greedy k-centre, weighted by the score.

    The next one is that with the greatest product of score and novelty, 1 - exp(-d^2), where d is the distance to the
    nearest feature that is labelled or chosen already. With equal scores this is the greedy core-set of Sener and
    Savarese (2018); novelty is bounded, so that an outlier cannot outweigh any score.

    Args:
        score_M: Worth of each candidate, above 0.
        feature_MC: See `standardise`.
        labelled_LC: The same of what is labelled; may be empty.
        count: How many are wanted.
        conflicts: Which candidates go with a chosen one, bool [M], and are not to be chosen any more.

    Returns:
        Places of the chosen in the order of choice; fewer than `count` where no more are left.
    """
    nearest_M = np.full(len(score_M), np.inf)
    for start in range(0, len(labelled_LC), _ROWS):
        nearest_M = np.minimum(nearest_M, _squared(feature_MC, labelled_LC[start : start + _ROWS]).min(axis=1))
    free_M = np.ones(len(score_M), bool)
    chosen: list[int] = []
    while len(chosen) < count and free_M.any():
        # A copy of something known is worth next to nothing, but more than what is taken already
        worth_M = np.where(free_M, score_M * -np.expm1(-nearest_M), -1.0)
        best = int(worth_M.argmax())
        chosen.append(best)
        free_M[best] = False
        if conflicts is not None:
            free_M &= ~conflicts(best)
        nearest_M = np.minimum(nearest_M, _squared(feature_MC, feature_MC[best : best + 1])[:, 0])
    return chosen


def _squared(a_MC: NDArray[np.float32], b_LC: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distances [M, L]."""
    lengths_ML = (a_MC**2).sum(axis=1)[:, None] + (b_LC**2).sum(axis=1)
    return np.asarray(np.maximum(lengths_ML - 2 * (a_MC @ b_LC.T), 0), np.float64)
