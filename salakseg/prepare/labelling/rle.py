"""Run lengths, as COCO keeps masks: column by column from the left, each from the top, zeros first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_OFFSET = 48
_MORE, _SIGN = 0x20, 0x10


def decode_rle(counts: str | bytes | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Run lengths to a mask.

    Args:
        counts: Lengths of runs of zeros and ones in turn, zeros first; or COCO's text for them, in which a number is
            written in groups of five bits from the lowest on, and from the fourth run on as the difference to the run
            before the last.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        bool [height, width].

    Raises:
        ValueError: The text is cut off or has strange characters, or the runs do not fill the mask.
    """
    runs = _unpack(counts) if isinstance(counts, str | bytes) else [int(run) for run in counts]
    if any(run < 0 for run in runs):
        raise ValueError("a run length is below zero")
    if sum(runs) != height * width:
        raise ValueError(f"the runs hold {sum(runs)} pixels, not {height} x {width}")
    ones = np.arange(len(runs)) % 2 == 1
    return np.repeat(ones, runs).reshape(width, height).T


def _unpack(counts: str | bytes) -> list[int]:
    codes = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        bits = code - _OFFSET
        if not 0 <= bits < 2 * _MORE:
            raise ValueError(f"{chr(code)!r} is no character of run lengths")
        value |= (bits & (_MORE - 1)) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the run lengths are cut off")
    return runs
