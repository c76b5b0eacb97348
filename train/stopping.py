"""When a run that gets no better stops: a rule on the scores of its evaluations, and on nothing else.

The first ``ignore_first`` evaluations are left out as if they had not been. Among the others, in order s_1 ... s_n:

- the *wait* is the number of evaluations since the last one that beat all before it;
- the *smoothed curve* is m_1 = s_1, m_i = c m_(i-1) + (1 - c) s_i with c = ``smoothing`` (with c = 0 the curve
  itself), and it *rises* at i where m_i - m_(i-1) > 0.001: behind a climb that is over it creeps up for ever.

The run stops at the first evaluation where the wait has reached ``patience`` and the smoothed curve does not rise. An
early lucky peak so does not end a run that is still climbing back to it. Everything follows from the scores, which
checkpoints keep: a resumed run decides as the unbroken one.
"""

import math
from collections.abc import Sequence

from salakseg.train.settings import EvaluationConfig

LEAST_RISE = 0.001
"""Of the smoothed mIoU from one evaluation to the next."""


def stop_reason(scores: Sequence[float], config: EvaluationConfig) -> str | None:
    """Why a run shall stop after its last evaluation.

    Args:
        scores: mIoU without background of every evaluation so far, 0 to 1; NaN counts as the worst.
        config: ``patience``, ``ignore_first`` and ``smoothing``.

    Returns:
        One clause without a full stop; None to go on.
    """
    waited = evaluations_without_best(scores, config.ignore_first)
    if waited < config.patience or is_rising(scores[config.ignore_first :], config.smoothing):
        return None
    counted = scores[config.ignore_first :]
    ignored = f", the first {config.ignore_first} not counted" if config.ignore_first else ""
    return (
        f"{waited} evaluations without a new best (best {max(map(_number, counted)):.4f}{ignored}), and the smoothed "
        "curve does not rise"
    )


def evaluations_without_best(scores: Sequence[float], ignore_first: int = 0) -> int:
    """How many evaluations have passed since the last one that beat all counted ones before it."""
    best, waited = -math.inf, 0
    for score in map(_number, scores[ignore_first:]):
        waited = 0 if score > best else waited + 1
        best = max(best, score)
    return waited


def is_rising(scores: Sequence[float], smoothing: float) -> bool:
    """Whether the smoothed curve rises by more than `LEAST_RISE` at its last point; a single one does not."""
    if len(scores) < 2:
        return False
    smoothed = _number(scores[0])
    for score in map(_number, scores[1:-1]):
        smoothed = smoothing * smoothed + (1 - smoothing) * score
    return (1 - smoothing) * (_number(scores[-1]) - smoothed) > LEAST_RISE


def _number(score: float) -> float:
    return 0.0 if math.isnan(score) else score
