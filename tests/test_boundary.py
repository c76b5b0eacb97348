"""Boundary IoU beside its definition, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from salakseg.evaluate.boundary import boundary_counts, boundary_distance, boundary_iou, near_edge

K = 4


def labels(seed: int, side: int = 24, ignored: float = 0.1) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, K, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    label[generator.random(label.shape) < ignored] = 255
    return label


def slow_near(label: NDArray[np.uint8], valid: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    near = np.zeros(label.shape, bool)
    for y, x in np.argwhere(valid):
        window = slice(max(0, y - distance), y + distance + 1), slice(max(0, x - distance), x + distance + 1)
        near[y, x] = bool((label[window][valid[window]] != label[y, x]).any())
    return near


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_counts_follow_the_definition(seed: int, distance: int, ignored: float) -> None:
    label, prediction = labels(seed, ignored=ignored), labels(seed + 1, ignored=0.0)
    valid = label != 255
    truth, drawn = slow_near(label, valid, distance), slow_near(prediction, valid, distance)
    np.testing.assert_array_equal(near_edge(label, valid, distance), truth)
    counts = boundary_counts(label, prediction, K, distance)
    for k in range(K):
        a, b = truth & (label == k), drawn & (prediction == k)
        assert counts[k].tolist() == [a.sum(), b.sum(), (a & b).sum()]


@pytest.mark.parametrize("distance", [1, 3])
def test_inside_a_picture_it_is_the_authors_repeated_erosion(distance: int) -> None:
    """Their border of a mask is the mask less its erosion by so many steps; far from the picture's edge both agree."""
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 12:25] = 1
    mask = label == 1
    border = mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance)
    np.testing.assert_array_equal(near_edge(label, np.ones_like(mask), distance) & mask, border)


def test_a_cut_is_no_edge() -> None:
    one_class = np.zeros((20, 20), np.uint8)
    assert not near_edge(one_class, np.ones((20, 20), bool), 3).any()
    assert np.isnan(boundary_iou(boundary_counts(one_class, one_class, K, 3))).all()


def test_a_shifted_thin_road_loses_more_than_its_iou_and_a_field_less() -> None:
    label, prediction = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    label[:, 20:24], prediction[:, 22:26] = 1, 1
    road = boundary_iou(boundary_counts(label, prediction, 2, 2))
    assert road[1] == pytest.approx(2 / 6)  # the road is all edge, so it is its IoU
    assert road[0] < 60 / 64  # the field beside it has an IoU of 58 / 62


def test_the_distance_is_two_percent_of_the_diagonal() -> None:
    assert boundary_distance(256, 256) == 7
    assert boundary_distance(10, 10) == 1


def test_ratios_of_many_sums_at_once() -> None:
    counts = np.array([[[4, 4, 4], [0, 0, 0]], [[3, 5, 2], [1, 0, 0]]])
    np.testing.assert_allclose(boundary_iou(counts), [[1.0, np.nan], [2 / 6, 0.0]])
