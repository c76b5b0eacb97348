"""Early stopping: a rule on scores alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salakseg.train.settings import EvaluationConfig
from salakseg.train.stopping import evaluations_without_best, is_rising, stop_reason

SCORES = st.lists(st.floats(0, 1), max_size=40)
CONFIGS = st.builds(
    lambda patience, ignored, smoothing: EvaluationConfig(patience=patience, ignore_first=ignored, smoothing=smoothing),
    st.integers(1, 8),
    st.integers(0, 10),
    st.sampled_from([0.0, 0.3, 0.6, 0.9]),
)


def smoothed(scores: list[float], smoothing: float) -> list[float]:
    """The whole curve by its closed form: m_n = c^(n-1) s_1 + (1 - c) sum over i >= 2 of c^(n-i) s_i."""
    curve = []
    for n in range(1, len(scores) + 1):
        weights = (1 - smoothing) * smoothing ** np.arange(n - 1, -1, -1.0)
        weights[0] = smoothing ** (n - 1)
        curve.append(float(weights @ np.array(scores[:n])))
    return curve


@given(SCORES, CONFIGS)
def test_it_never_fires_while_the_smoothed_curve_rises(scores: list[float], config: EvaluationConfig) -> None:
    curve = smoothed(scores[config.ignore_first :], config.smoothing)
    rise = curve[-1] - curve[-2] if len(curve) > 1 else 0.0
    if rise > 0.001 + 1e-9:
        assert is_rising(scores[config.ignore_first :], config.smoothing)
        assert stop_reason(scores, config) is None
    if rise < 0.001 - 1e-9:
        assert not is_rising(scores[config.ignore_first :], config.smoothing)


@given(SCORES, CONFIGS)
def test_it_fires_exactly_when_the_wait_is_over_and_nothing_rises(
    scores: list[float], config: EvaluationConfig
) -> None:
    counted = scores[config.ignore_first :]
    # the oracle: how far behind the last place lies the first place of the maximum
    waited = len(counted) - 1 - counted.index(max(counted)) if counted else 0
    assert evaluations_without_best(scores, config.ignore_first) == waited
    fires = stop_reason(scores, config) is not None
    assert fires == (waited >= config.patience and not is_rising(counted, config.smoothing))


@given(SCORES, SCORES, CONFIGS)
def test_ignored_evaluations_might_as_well_not_be(
    first: list[float], others: list[float], config: EvaluationConfig
) -> None:
    config = config.model_copy(update={"ignore_first": len(first)})
    alone = config.model_copy(update={"ignore_first": 0})
    assert (stop_reason(first + others, config) is None) == (stop_reason(others, alone) is None)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_flat_curve_ends_after_exactly_the_patience(patience: int) -> None:
    config = EvaluationConfig(patience=patience)
    fired = [n for n in range(1, 10) if stop_reason([0.5] * n, config)]
    assert fired[0] == patience + 1


def test_a_lucky_start_does_not_end_a_climb() -> None:
    climb = [0.6, *np.linspace(0.2, 0.55, 20)]
    config = EvaluationConfig(patience=8)
    assert all(stop_reason(climb[:n], config) is None for n in range(3, len(climb) + 1))
    # and once the climb is over, it ends
    flat = [*climb, *[0.54] * 40]
    reason = next(reason for n in range(22, len(flat)) if (reason := stop_reason(flat[:n], config)))
    assert "without a new best (best 0.6000)" in reason and "does not rise" in reason
    assert "the first 2 not counted" in str(
        stop_reason([1, 1, *[0.5] * 9], EvaluationConfig(patience=3, ignore_first=2))
    )


def test_an_undefined_score_is_no_best() -> None:
    assert evaluations_without_best([0.2, math.nan, math.nan]) == 2
    assert not is_rising([0.2, math.nan], 0.6)
