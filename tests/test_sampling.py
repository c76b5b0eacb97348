"""Drawing a sample: how many points, uniform within each class, the same by seed, and what clusters look like."""

import os
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from land_covers import UTM, blotches, write_map
from numpy.typing import NDArray
from scipy import stats

from salakseg.classes import SALAK
from salakseg.cli import assessing
from salakseg.errors import RasterError, SampleError
from salakseg.evaluate import sampling, strata
from salakseg.evaluate.clustering import is_clustered, nearest_neighbour_ratio
from salakseg.evaluate.olofsson import estimate
from salakseg.evaluate.sampling import Sample, allocate, draw_sample, plan_sample
from salakseg.evaluate.strata import LandCover, open_land_cover


def drawn(land_cover: LandCover, points_K: list[int], seed: int = 0) -> Sample:
    return draw_sample(land_cover, np.array(points_K), seed)


# --- how many -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=9).filter(lambda pixels: sum(pixels) > 0),
    st.integers(0, 100),
    st.floats(0, 1),
)
def test_allocation_is_exact_at_least_the_least_and_by_area(pixels: list[int], least: int, share: float) -> None:
    pixels_K = np.array(pixels)
    low_K = np.minimum(pixels_K, least)
    points = round(low_K.sum() + share * min(10_000, pixels_K.sum() - low_K.sum()))
    points_K = allocate(pixels_K, points, least)
    assert points_K.sum() == points
    assert (low_K <= points_K).all()
    assert (points_K <= pixels_K).all()
    sharing = points_K > low_K
    if sharing.any():  # who has more than the least has it by area
        rate = points_K[sharing].sum() / pixels_K[sharing].sum()
        assert (np.abs(points_K[sharing] - rate * pixels_K[sharing]) <= 1 + 1e-6 * points).all()


def test_rare_classes_get_their_least_and_the_others_share_by_area() -> None:
    pixels_K = np.array([0, 30, 2_000, 300_000, 700_000])
    np.testing.assert_array_equal(allocate(pixels_K, 1000, 50), [0, 30, 50, 276, 644])


def test_the_default_reaches_the_standard_error(tmp_path: Path) -> None:
    label_HW = np.zeros((200, 200), np.uint8)
    label_HW[:3] = 1
    label_HW[3, :20] = 2
    land = open_land_cover(write_map(tmp_path / "map.tif", label_HW))
    points_K = plan_sample(land, None, 50, 0.02)
    assert points_K[2] == 20  # all of its pixels
    assert points_K[1] == 50
    counts = np.diag(0.8 * points_K) + np.roll(np.diag(0.2 * points_K), 1, axis=1)
    found = estimate(counts, land.pixels_K, land.pixels_K)
    assert found.overall.standard_error == pytest.approx(0.02, rel=0.02)
    assert plan_sample(land, 500, 50, 0.02).sum() == 500
    with pytest.raises(SampleError, match=r"3 classes, which take 120 points at 50 each, not 100"):
        plan_sample(land, 100, 50, 0.02)
    with pytest.raises(SampleError, match="40,000 pixels"):
        plan_sample(land, 40_001, 50, 0.02)


def test_the_command_knows_the_defaults() -> None:
    assert assessing.STANDARD_ERROR == sampling.STANDARD_ERROR
    assert assessing.MIN_PER_CLASS == sampling.MIN_PER_CLASS


# --- which pixels -------------------------------------------------------------------------------------------------


def test_points_lie_on_their_class_once_each_in_random_order(tmp_path: Path) -> None:
    label_HW = blotches(300, 260)
    land = open_land_cover(write_map(tmp_path / "map.tif", label_HW))
    sample = drawn(land, [200, 100, 50, int(land.pixels_K[3]), 0, 0, 0])
    class_N = label_HW[sample.row_N, sample.col_N]
    np.testing.assert_array_equal(np.bincount(class_N, minlength=7), sample.points_K)
    assert len(np.unique(sample.row_N * 260 + sample.col_N)) == len(sample.row_N)
    first = np.bincount(class_N[: len(class_N) // 2], minlength=7) / (len(class_N) // 2)
    np.testing.assert_allclose(first, sample.points_K / sample.points_K.sum(), atol=0.02)
    assert abs(stats.spearmanr(np.arange(len(class_N)), sample.row_N).statistic) < 0.05


def test_the_walk_in_windows_picks_what_the_whole_array_has_at_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_HW = blotches(230, 310)
    land = open_land_cover(write_map(tmp_path / "map.tif", label_HW))
    points_K = [40, 30, 20, 10, 0, 0, 0]
    whole = drawn(land, points_K, seed=5)  # a single window: its ranks are those of the array's rows
    generator = np.random.default_rng(5)
    expected: list[NDArray[np.int64]] = []
    for class_id, points in enumerate(points_K):
        pixels = np.flatnonzero(label_HW == class_id)
        expected.append(pixels[generator.choice(len(pixels), points, replace=False, shuffle=False)])
    np.testing.assert_array_equal(np.sort(whole.row_N * 310 + whole.col_N), np.sort(np.concatenate(expected)))

    monkeypatch.setattr(strata, "WINDOW", 64)
    in_windows = [
        (row + down) * 310 + col + across
        for row in range(0, 230, 64)
        for col in range(0, 310, 64)
        for down, across in np.ndindex(min(64, 230 - row), min(64, 310 - col))
    ]
    order = np.array(in_windows)
    generator = np.random.default_rng(5)
    expected = []
    for class_id, points in enumerate(points_K):
        pixels = order[label_HW.ravel()[order] == class_id]
        expected.append(pixels[generator.choice(len(pixels), points, replace=False, shuffle=False)])
    walked = drawn(land, points_K, seed=5)
    np.testing.assert_array_equal(np.sort(walked.row_N * 310 + walked.col_N), np.sort(np.concatenate(expected)))


def test_the_seed_decides_and_the_files_blocks_do_not(tmp_path: Path) -> None:
    label_HW = blotches(300, 260)
    tiled = open_land_cover(write_map(tmp_path / "tiled.tif", label_HW, tiled=True, blockxsize=64, blockysize=64))
    striped = open_land_cover(write_map(tmp_path / "striped.tif", label_HW, compress="lzw"))
    points_K = [90, 50, 50, 50, 0, 0, 0]
    one, other, third = drawn(tiled, points_K, 3), drawn(striped, points_K, 3), drawn(tiled, points_K, 4)
    np.testing.assert_array_equal(one.row_N, other.row_N)
    np.testing.assert_array_equal(one.col_N, other.col_N)
    assert one.digest == other.digest
    assert not np.array_equal(one.row_N, third.row_N)
    moved = write_map(tmp_path / "moved.tif", label_HW, transform=Affine.translation(1, 0) @ UTM)
    assert drawn(open_land_cover(moved), points_K, 3).digest != one.digest
    label_HW[-1, -1] ^= 1
    assert drawn(open_land_cover(write_map(tmp_path / "other.tif", label_HW)), points_K, 3).digest != one.digest


def test_every_pixel_of_a_class_is_as_likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strata, "WINDOW", 8)
    label_HW = blotches(20, 20, sigma=2)
    land = open_land_cover(write_map(tmp_path / "map.tif", label_HW))
    points_K = np.minimum(land.pixels_K, 10)
    times_HW = np.zeros((20, 20))
    for seed in range(600):
        sample = draw_sample(land, points_K, seed)
        times_HW[sample.row_N, sample.col_N] += 1
    for class_id in np.flatnonzero(land.pixels_K > 10):
        times = times_HW[label_HW == class_id]
        expected = 600 * 10 / land.pixels_K[class_id]
        spread = 1 - 10 / land.pixels_K[class_id]  # without replacement a pixel is drawn at most once
        chi_square = ((times - expected) ** 2 / (expected * spread)).sum()
        assert 0.001 < stats.chi2.sf(chi_square, len(times) - 1) < 0.999, class_id


def test_intervals_of_whole_samples_cover_the_truth(tmp_path: Path) -> None:
    """The way of the commands, less the files: a map, its truth, samples drawn, labels read off, estimates."""
    truth_HW = blotches(160, 160)
    generator = np.random.default_rng(11)
    wrong_HW = generator.random(truth_HW.shape) < 0.2
    label_HW = np.where(wrong_HW, generator.permutation(truth_HW.ravel()).reshape(truth_HW.shape), truth_HW)
    label_HW[truth_HW == 255] = 255
    truth_HW = np.where(label_HW == 255, 255, np.where(truth_HW == 255, 0, truth_HW)).astype(np.uint8)
    land = open_land_cover(write_map(tmp_path / "map.tif", label_HW.astype(np.uint8)))
    valid_HW = label_HW != 255
    shares = np.bincount(truth_HW[valid_HW], minlength=7) / valid_HW.sum()
    overall = (truth_HW == label_HW)[valid_HW].mean()
    points_K = plan_sample(land, 300, 50, 0.02)
    hits = np.zeros(5)
    repeats = 400
    for seed in range(repeats):
        sample = draw_sample(land, points_K, seed)
        mapped_N, true_N = label_HW[sample.row_N, sample.col_N], truth_HW[sample.row_N, sample.col_N]
        counts_KK = np.bincount(mapped_N * 7 + true_N, minlength=49).reshape(7, 7)
        found = estimate(counts_KK, land.pixels_K, land.pixels_K)
        hits[0] += abs(found.overall.value - overall) <= found.overall.half_width
        hits[1:] += (np.abs(found.shares.value - shares) <= found.shares.half_width)[:4]
    assert (hits / repeats > 0.91).all(), hits / repeats  # 0.011 is the deviation of a rate of 400
    assert (hits / repeats < 0.98).all(), hits / repeats


def test_a_map_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", blotches(100, 100))
    land = open_land_cover(path)
    write_map(path, blotches(100, 100, seed=9))
    with pytest.raises(SampleError, match="was changed while it was read"):
        drawn(land, [20, 20, 20, 20, 0, 0, 0])


def test_a_map_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", blotches(500, 500))
    land = open_land_cover(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SampleError, match="cannot be read"):
        drawn(land, [20, 20, 20, 20, 0, 0, 0])
    with pytest.raises((SampleError, RasterError), match="cannot be read"):
        open_land_cover(path)


# --- clusters -----------------------------------------------------------------------------------------------------


def ratio_of(pixels: NDArray[np.bool_], points: int, seed: int) -> float:
    """Of points at random in a stratum."""
    where = np.flatnonzero(pixels)
    picked = np.random.default_rng(seed).choice(where, points, replace=False)
    row_N, col_N = np.divmod(picked, pixels.shape[1])
    return nearest_neighbour_ratio(row_N, col_N, len(where))


def stratum(kind: str) -> NDArray[np.bool_]:
    row, col = np.mgrid[:400, :400]
    shapes = {
        "field": row >= 0,
        "pond": (row - 60) ** 2 + (col - 300) ** 2 < 15**2,
        "road": np.abs(row - col // 2 - 50) < 3,
        "trees": ((row % 40 - 20) ** 2 + (col % 40 - 20) ** 2 < 16) & (col > 100),
        "noise": np.random.default_rng(0).random((400, 400)) < 0.02,
        "two ponds": ((row - 60) ** 2 + (col - 60) ** 2 < 200) | ((row - 350) ** 2 + (col - 380) ** 2 < 80),
    }
    return np.asarray(shapes[kind], np.bool_)


@pytest.mark.parametrize("points", [3, 8, 20, 50, 150])
@pytest.mark.parametrize("kind", ["field", "pond", "road", "trees", "noise", "two ponds"])
def test_random_points_pass_in_a_stratum_of_any_shape(kind: str, points: int) -> None:
    pixels = stratum(kind)
    ratios = [ratio_of(pixels, points, seed) for seed in range(100)]
    assert np.mean(ratios) > 0.95
    assert not any(is_clustered(ratio, points) for ratio in ratios)


@pytest.mark.parametrize("patches", [1, 3, 9, 20])
@pytest.mark.parametrize("points", [40, 200])
def test_pixels_of_a_few_patches_are_clusters(patches: int, points: int) -> None:
    generator = np.random.default_rng(patches)
    for _ in range(50):
        corner = generator.integers(0, 2000 - 64, (patches, 2))
        patch = generator.integers(0, patches, points)
        offset = generator.integers(0, 64, (points, 2))
        row_N, col_N = (corner[patch] + offset).T
        assert is_clustered(nearest_neighbour_ratio(row_N, col_N, 2000**2), points)


def test_one_point_tells_nothing() -> None:
    ratio = nearest_neighbour_ratio(np.array([3]), np.array([4]), 100)
    assert np.isnan(ratio)
    assert not is_clustered(ratio, 1)


def test_the_classes_are_those_of_the_map(tmp_path: Path) -> None:
    land = open_land_cover(write_map(tmp_path / "map.tif", blotches(50, 50)))
    assert land.class_map.names == SALAK.names
    assert land.hectares_K is not None
    np.testing.assert_allclose(land.hectares_K, land.pixels_K * 0.0025 / 1e4)
    assert land.grid == UTM
