"""Estimates after Olofsson et al. 2014: a published example, the equations written out, and intervals that cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from salakseg.evaluate.olofsson import Estimate, estimate, sample_size

COUNTS = [[410, 26], [67, 369]]
MAPPED = [828837, 33067283]


def test_the_oracle_to_six_digits() -> None:
    found = estimate(COUNTS, MAPPED)
    np.testing.assert_allclose(found.shares.value, [0.1729063, 0.8270937], atol=5e-8)
    assert found.overall.value == pytest.approx(0.8486297, abs=5e-8)
    np.testing.assert_allclose(found.users.value, [0.940367, 0.846330], atol=5e-7)
    np.testing.assert_allclose(found.producers.value, [0.132986, 0.998237], atol=5e-7)
    assert found.shares.half_width[0] == pytest.approx(0.0330661, abs=5e-8)
    np.testing.assert_allclose(found.areas.value, np.multiply(found.shares.value, sum(MAPPED)))
    np.testing.assert_allclose(found.areas.half_width, np.multiply(found.shares.half_width, sum(MAPPED)))


def written_out(counts: NDArray[np.int64], mapped: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The standard errors by equations 5, 6, 7 and 10 as the paper prints them, element by element."""
    classes, n = len(mapped), counts.sum(axis=1)
    weight = mapped / mapped.sum()
    p = np.array([[weight[i] * counts[i, j] / n[i] for j in range(classes)] for i in range(classes)])
    users = np.array([counts[i, i] / n[i] for i in range(classes)])
    overall = np.sqrt(sum(weight[i] ** 2 * users[i] * (1 - users[i]) / (n[i] - 1) for i in range(classes)))
    area = [np.sqrt(sum((weight[i] * p[i, k] - p[i, k] ** 2) / (n[i] - 1) for i in range(classes)))
            for k in range(classes)]  # fmt: skip
    producers = []
    for j in range(classes):
        there = sum(mapped[i] / n[i] * counts[i, j] for i in range(classes))
        right = p[j, j] / p[:, j].sum()
        first = mapped[j] ** 2 * (1 - right) ** 2 * users[j] * (1 - users[j]) / (n[j] - 1)
        second = sum(
            mapped[i] ** 2 * counts[i, j] / n[i] * (1 - counts[i, j] / n[i]) / (n[i] - 1)
            for i in range(classes) if i != j
        )  # fmt: skip
        producers.append(np.sqrt((first + right**2 * second) / there**2))
    return {
        "overall": np.array(overall),
        "users": np.sqrt(users * (1 - users) / (n - 1)),
        "producers": np.array(producers),
        "shares": np.array(area),
    }


@settings(deadline=None)
@given(
    hnp.arrays(np.int64, (4, 4), elements=st.integers(1, 90)),
    hnp.arrays(np.float64, 4, elements=st.floats(0.5, 1e6)),
)
def test_standard_errors_are_those_of_the_paper(counts: NDArray[np.int64], mapped: NDArray[np.float64]) -> None:
    found = estimate(counts, mapped)
    for name, expected in written_out(counts, mapped).items():
        figure: Estimate = getattr(found, name)
        np.testing.assert_allclose(figure.standard_error, expected, rtol=1e-7, atol=1e-12, err_msg=name)
    assert found.proportions.sum() == pytest.approx(1)
    assert found.areas.value.sum() == pytest.approx(mapped.sum())
    np.testing.assert_allclose(found.proportions.sum(axis=1), mapped / mapped.sum())


def test_what_the_sample_tells_nothing_of_is_nan() -> None:
    found = estimate([[40, 10, 0, 0], [5, 45, 0, 3], [0, 0, 0, 0], [0, 0, 0, 0]], [10, 20, 0, 0])
    assert np.isnan(found.users.value[2:]).all()  # not in the map
    assert np.isnan(found.users.standard_error[2:]).all()
    assert np.isnan(found.producers.value[2])  # nowhere at all
    assert found.producers.value[3] == 0  # it is there, and the map shows none of it
    assert found.shares.value[2] == 0
    assert found.shares.value[3] == pytest.approx(2 / 3 * 3 / 53)
    assert np.isfinite(found.overall.standard_error)


def test_a_class_without_points_or_with_one_spoils_what_depends_on_it() -> None:
    none = estimate([[40, 10], [0, 0]], [10, 20])
    assert np.isnan([none.overall.value, *none.shares.value, *none.producers.value, none.users.value[1]]).all()
    assert none.users.value[0] == 0.8
    one = estimate([[40, 10], [0, 1]], [10, 20])
    assert one.overall.value == pytest.approx(0.8 / 3 + 2 / 3)
    assert np.isnan([one.overall.standard_error, *one.shares.standard_error, one.users.standard_error[1]]).all()
    assert np.isfinite(one.users.standard_error[0])


def test_a_class_that_is_known_pixel_by_pixel_has_no_error() -> None:
    found = estimate([[40, 10], [0, 1]], [100, 1], stratum_pixels=[100_000_000, 1])
    assert found.users.standard_error[1] == 0
    bare = estimate([[40, 10], [5, 15]], [10, 20])
    large = estimate([[40, 10], [5, 15]], [10, 20], stratum_pixels=[10**9, 2 * 10**9])
    np.testing.assert_allclose(large.shares.standard_error, bare.shares.standard_error, rtol=1e-6)
    half = estimate([[40, 10], [5, 15]], [10, 20], stratum_pixels=[100, 40])
    np.testing.assert_allclose(half.shares.standard_error, bare.shares.standard_error * np.sqrt(0.5))


@pytest.mark.parametrize(
    ("counts", "mapped", "pixels"),
    [
        ([[1, 2], [3, 4]], [1, 2, 3], None),
        ([[1, -2], [3, 4]], [1, 2], None),
        ([[1, 2], [3, 4]], [0, 0], None),
        ([[1, 2], [3, 4]], [1, np.nan], None),
        ([[1, 2], [3, 4]], [1, 0], None),  # points on a class that is not mapped
        ([[1, 2], [3, 4]], [1, 1], [2, 100]),  # more points than pixels
    ],
)
def test_what_cannot_be_is_refused(counts: list[list[int]], mapped: list[float], pixels: list[int] | None) -> None:
    with pytest.raises(ValueError, match=r"not fit|negative|does not hold"):
        estimate(counts, mapped, pixels)


def test_the_size_of_a_sample() -> None:
    # Section 5.1.1 of the paper: four classes, 0.01, which gives 641 points
    shares = np.array([0.020, 0.015, 0.320, 0.645])
    assert sample_size(shares * 1e9, 0.01, [0.7, 0.6, 0.9, 0.95]) == pytest.approx(641, abs=1)
    assert sample_size([10**9, 10**9], 0.02, 0.8) == 400
    assert sample_size([50, 50], 1e-9, 0.8) == 100  # never more than there is
    assert sample_size([10**9, 10**9], 0.02, 1.0) == 1


def test_intervals_cover_about_95_percent() -> None:
    """Many samples of a map of three classes whose truth is known, drawn without replacement as the command does."""
    generator = np.random.default_rng(2014)
    truth = np.array([[9_000, 800, 200], [3_000, 55_000, 2_000], [500, 1_500, 28_000]])  # pixels by map and truth
    pixels, points = truth.sum(axis=1), (100, 300, 200)
    shares, overall = truth.sum(axis=0) / truth.sum(), np.trace(truth) / truth.sum()
    users, producers = np.diagonal(truth) / pixels, np.diagonal(truth) / truth.sum(axis=0)
    repeats = 2000
    rows = zip(truth, points, strict=True)
    drawn = np.stack([generator.multivariate_hypergeometric(row, n, size=repeats) for row, n in rows], axis=1)
    covered = {name: np.zeros(()) for name in ("overall", "shares", "users", "producers")}
    means = {name: np.zeros(()) for name in ("overall", "shares")}
    for counts in drawn:
        found = estimate(counts, pixels, pixels)
        for name, expected in (("overall", overall), ("shares", shares), ("users", users), ("producers", producers)):
            figure: Estimate = getattr(found, name)
            covered[name] = covered[name] + (np.abs(figure.value - expected) <= figure.half_width) / repeats
            if name in means:
                means[name] = means[name] + figure.value / repeats
    np.testing.assert_allclose(means["shares"], shares, atol=6e-4)  # unbiased
    assert means["overall"] == pytest.approx(overall, abs=6e-4)
    for name, rates in covered.items():  # 0.005 is the deviation of a rate of 2000; the formulas are approximations
        assert (rates > 0.92).all(), (name, rates)
        assert (rates < 0.97).all(), (name, rates)
