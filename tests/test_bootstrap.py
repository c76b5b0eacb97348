"""Resampling photos and blocks: what is drawn, and how often the intervals hold the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from salakseg.data.patches import Photo
from salakseg.data.splits import flight_places
from salakseg.evaluate.bootstrap import Interval, complete_means, draw_units, interval_of, resample_figures
from salakseg.evaluate.metrics import figures_of
from salakseg.evaluate.units import units_of

K = 5


def photos(generator: np.random.Generator, runs: int, units: int) -> NDArray[np.int64]:
    """Confusion matrices of photos that differ in size, in what they show and in how hard they are."""
    shares = generator.dirichlet([3, 1, 0.6, 2, 0.3], (runs, units))
    right = generator.beta(8, 3, (runs, units, K)) * np.array([0.95, 0.7, 0.6, 0.9, 0.5])
    wrong = generator.dirichlet(np.ones(K), (runs, units, K))
    counts = shares[..., None] * ((1 - right)[..., None] * wrong + right[..., None] * np.eye(K))
    found: NDArray[np.int64] = (counts * generator.integers(2_000, 20_000, (runs, units, 1, 1))).astype(np.int64)
    return found


def test_draws_are_with_replacement_and_the_same_for_the_same_seed() -> None:
    draws = draw_units(7, 500)
    assert draws.shape == (500, 7)
    assert (draws.sum(axis=1) == 7).all() and draws.max() > 1 and (draws == 0).any()
    np.testing.assert_array_equal(draws, draw_units(7, 500))
    assert (draws != draw_units(7, 500, seed=1)).any()


def test_each_replicate_is_the_sum_of_the_drawn_units() -> None:
    counts = photos(np.random.default_rng(0), 1, 6)[0]
    draws = draw_units(6, 40)
    found = resample_figures(counts, draws, ["iou", "kappa"])
    for replicate, times in enumerate(draws.astype(int)):
        whole = np.concatenate([np.repeat(counts[u][None], times[u], axis=0) for u in range(6)]).sum(axis=0)
        expected = figures_of(whole)
        np.testing.assert_allclose(found["iou"][replicate], expected["iou"])
        np.testing.assert_allclose(found["kappa"][replicate], expected["kappa"])


def test_many_classes_are_resampled_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, draws = photos(np.random.default_rng(1), 1, 9)[0], draw_units(9, 100)
    whole = resample_figures(counts, draws, ["iou"])["iou"]
    monkeypatch.setattr("salakseg.evaluate.bootstrap._CHUNK", 7 * K * K)
    np.testing.assert_array_equal(resample_figures(counts, draws, ["iou"])["iou"], whole)


@pytest.mark.parametrize(
    ("units", "least"),
    [(60, 0.92), (30, 0.90), (8, 0.85)],  # the plain percentile interval reaches 0.82 with 8 units
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(units: int, least: float) -> None:
    generator = np.random.default_rng(5)
    truth = float(figures_of(photos(generator, 1, 200_000)[0].sum(axis=0))["miou_with_background"])
    runs = 400
    held = 0
    for counts in photos(generator, runs, units):
        draws = draw_units(units, 400, seed=int(generator.integers(2**31)))
        interval = interval_of(resample_figures(counts, draws, ["miou_with_background"])["miou_with_background"], units)
        held += int(interval.low <= truth <= interval.high)
    assert least <= held / runs <= 0.985


def test_a_difference_is_told_from_noise_that_both_share() -> None:
    """Two variants, one a point better on every photo: intervals overlap by far, the paired one leaves out 0."""
    generator = np.random.default_rng(2)
    worse = photos(generator, 1, 12)[0]
    better = worse.copy()
    moved = worse[:, 3, 0] // 4
    better[:, 3, 0] -= moved
    better[:, 3, 3] += moved
    draws = draw_units(12)
    a, b = (resample_figures(c, draws, ["miou_with_background"])["miou_with_background"] for c in (worse, better))
    alone = interval_of(a, 12), interval_of(b, 12)
    assert alone[0].high > alone[1].low
    paired = interval_of(b - a, 12)
    assert paired.decided and paired.low > 0
    assert not interval_of(a - a, 12).decided


def test_few_units_have_no_interval_and_an_absent_class_none_either() -> None:
    counts = photos(np.random.default_rng(3), 1, 5)[0]
    counts[:, 4], counts[:, :, 4] = 0, 0
    draws = draw_units(5)
    ends = interval_of(resample_figures(counts, draws, ["iou"])["iou"], 5)
    assert np.isnan(ends.low[4]) and not np.isnan(ends.low[:4]).any()
    for few in (1, 4):
        alone = interval_of(resample_figures(counts[:few], draw_units(few), ["iou"])["iou"], few)
        assert np.isnan(alone.low).all() and np.isnan(alone.high).all()
        assert not alone[0].decided


def test_a_mean_is_of_the_same_classes_in_every_replicate() -> None:
    """Replicates without the photo of a rare class are left out: their mean would be another figure."""
    iou_RK = np.array([[0.9, 0.2, np.nan], [0.8, np.nan, np.nan], [0.7, 0.1, np.nan]])
    np.testing.assert_allclose(complete_means(iou_RK, np.array([True, True, False])), [0.55, np.nan, 0.4])
    assert np.isnan(complete_means(iou_RK, np.array([False, False, False]))).all()


def test_a_constant_shifts_both_ends() -> None:
    moved = Interval(np.asarray(0.5), np.asarray(0.75)) - 0.25
    assert moved.ends == (0.25, 0.5)
    assert moved.to_dict() == {"low": 0.25, "high": 0.5}
    assert Interval(np.array([np.nan]), np.array([1.0])).to_dict() == {"low": [None], "high": [1.0]}


# ---- what is resampled


def flight(folder: str, *numbers: int) -> list[Photo]:
    return [Photo(folder, f"DJI_{number:04d}") for number in numbers]


def test_a_block_holds_photos_that_show_the_same_ground() -> None:
    order = flight("a", 1, 2, 3, 4, 5, 6, 20, 21) + flight("b", 21, 22)
    places = flight_places(order)
    assert units_of(order, "block", 3, places) == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert units_of(order, "block", 0, places) == list(range(10))
    assert units_of(order, "photo", 3, places) == list(range(10))
    assert units_of(order, "folder", 3, places) == [0] * 8 + [1, 1]


def test_photos_far_apart_are_units_of_their_own_though_none_between_was_measured() -> None:
    """A few labelled photos of a long flight: only all its photos tell that they are far from each other."""
    measured = flight("a", 10, 11, 200, 400)
    places = flight_places(flight("a", *range(1, 500)))
    assert units_of(measured, "block", 3, places) == [0, 0, 1, 2]


def test_units_do_not_depend_on_the_order_of_the_photos() -> None:
    order = flight("a", 7, 1, 3, 2, 8)
    assert units_of(order, "block", 2, flight_places(order)) == [0, 1, 1, 1, 0]
