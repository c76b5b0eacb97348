"""How good a division into train, validation and test is: shares of every class near those wanted, none missing.

Axes: P parts (train, validation, test), K class.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MISSING_COST = 10.0
"""What a class costs that has no pixel in a part: more than any deviation of shares."""


def division_cost(
    pixels_PK: NDArray[np.float64], total_K: NDArray[np.float64], val_share: float, test_share: float
) -> float:
    """How far a division is from the wanted shares of every class; a class that misses a part weighs most.

    Args:
        pixels_PK: Labelled pixels of each class in train, validation and test [3, K].
        total_K: Labelled pixels of each class before any went into a gap [K].
        val_share: Wanted share of validation, 0 to 1; 0 for no such part.
        test_share: The same of test.

    Returns:
        0 at best; a gap costs what it takes from the training part.
    """
    present_K = total_K > 0
    cost = 0.0
    for part, share in ((1, val_share), (2, test_share), (0, None)):
        if share is not None and share <= 0:
            continue
        shares = pixels_PK[part, present_K] / total_K[present_K]
        cost += MISSING_COST * float((shares == 0).sum())
        # Log ratios: half and double the wanted share are equally bad, for a rare class as for a common one.
        goal = share if share is not None else 1.0 - val_share - test_share
        cost += float(np.abs(np.log((shares + 0.01) / (goal + 0.01))).mean())
    return cost


def share_cost(pixels_K: NDArray[np.float64], total_K: NDArray[np.float64], share: float) -> float:
    """How far a part is from the wanted share of every class, by log ratios as `division_cost`; 0 at best.

    Args:
        pixels_K: Labelled pixels of each class in the part [K].
        total_K: The same of all parts [K].
        share: Wanted, 0 to 1.
    """
    present_K = total_K > 0
    shares = pixels_K[present_K] / total_K[present_K]
    return float(np.abs(np.log((shares + 0.01) / (share + 0.01))).mean())


def missing_classes(pixels_PK: NDArray[np.float64], names: Sequence[str], test: bool) -> tuple[tuple[str, str], ...]:
    """Classes without a pixel in a part, as (part, class name).

    Args:
        pixels_PK: Labelled pixels of each class in train, validation and test [3, K].
        names: Of the classes, K.
        test: Whether there is a test part.
    """
    parts = ("labelled", "val", "test") if test else ("labelled", "val")
    return tuple(
        (part, names[k])
        for part, pixels_K in zip(parts, pixels_PK, strict=False)
        for k in np.flatnonzero(pixels_K == 0).tolist()
    )
