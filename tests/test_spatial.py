"""Ground divided into parts: whatever the layout, no two patches of different parts are nearer than the buffer."""

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salakseg.data.spatial import GAP, TEST, TRAIN, VAL, SpatialDivision, SpatialPlan, divide_ground
from salakseg.errors import DataError

ROUNDING_M = 2e-4


def mosaic(x: float, y: float, rows: int, cols: int, side: float, stride: float, angle: float) -> NDArray[np.float64]:
    """Corners of a mosaic's patches, turned around its own corner, [N, 4, 2]."""
    row, col = np.divmod(np.arange(rows * cols), cols)
    start = np.stack([col, row], axis=1) * stride
    corners = start[:, None] + side * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    placed: NDArray[np.float64] = corners @ turn + (x, y)
    return placed


def boxes(corner_N42: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([corner_N42.min(axis=1), corner_N42.max(axis=1)], axis=1)


def random_pixels(count: int, labelled: float, seed: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    pixels_NK = generator.integers(0, 200, (count, 4))
    pixels_NK[:, 1] *= generator.random(count) < 0.1
    pixels_NK[generator.random(count) >= labelled] = 0
    return pixels_NK


def least_distance(division: SpatialDivision, corner_N42: NDArray[np.float64], on_site_N: NDArray[np.bool_]) -> float:
    """Between the true footprints of any two parts on a site, by an independent search; overlapping ones have 0."""
    shapes = shapely.polygons(corner_N42[on_site_N])
    part_N = division.part_N[on_site_N]
    least = np.inf
    for one, other in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
        ours, theirs = (part_N == part for part in (one, other))
        if ours.any() and theirs.any():
            tree = shapely.STRtree(shapes[theirs])
            least = min(least, tree.query_nearest(shapes[ours], return_distance=True)[1].min())
    return float(least)


mosaics = st.builds(
    mosaic,
    st.floats(-300, 300),
    st.floats(-300, 300),
    st.integers(2, 16),
    st.integers(2, 16),
    st.floats(2, 20),
    st.floats(1.5, 25),
    st.sampled_from([0.0, 0.3, np.pi / 4, 2.5]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layout=st.lists(mosaics, min_size=1, max_size=4),
    sites=st.integers(1, 2),
    buffer=st.sampled_from([None, 0.0, 3.0, 30.0]),
    block=st.sampled_from([None, 30.0, 60.0]),
    labelled=st.sampled_from([0.2, 1.0]),
    test_share=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 1000),
)
def test_parts_never_come_nearer_than_the_buffer(
    layout: list[NDArray[np.float64]],
    sites: int,
    buffer: float | None,
    block: float | None,
    labelled: float,
    test_share: float,
    seed: int,
) -> None:
    corner_N42 = np.concatenate(layout)
    site_N = np.concatenate([np.full(len(one), n % sites) for n, one in enumerate(layout)])
    plan = SpatialPlan(block, buffer, 0.2, test_share, seed)
    pixels_NK = random_pixels(len(corner_N42), labelled, seed)
    division = divide_ground(boxes(corner_N42), site_N, pixels_NK, plan)
    if division is None:
        return
    box_N4 = boxes(corner_N42)
    longest = (box_N4[:, 2:] - box_N4[:, :2]).max()
    assert division.buffer_m == (longest if buffer is None else buffer)
    for site in np.unique(site_N):
        own = box_N4[site_N == site]
        wanted_m = buffer if buffer is not None else (own[:, 2:] - own[:, :2]).max() if block is None else longest
        if wanted_m > 0:
            assert least_distance(division, corner_N42, site_N == site) >= wanted_m - ROUNDING_M
    shapes = shapely.buffer(shapely.polygons(corner_N42), -ROUNDING_M)
    tree = shapely.STRtree(shapes)
    one, other = tree.query(shapes, predicate="intersects")
    part_N = division.part_N
    meet = (
        (part_N[one] != part_N[other]) & (part_N[one] != GAP) & (part_N[other] != GAP) & (site_N[one] == site_N[other])
    )
    assert not meet.any()
    wanted = [TRAIN, VAL, TEST] if test_share else [TRAIN, VAL]
    for part in (TRAIN, VAL, TEST):
        assert (division.pixels_PK[part] == pixels_NK[part_N == part].sum(axis=0)).all()
        assert division.pixels_PK[part].any() == (part in wanted)


def test_large_footprints_elsewhere_do_not_widen_the_gap() -> None:
    fine = mosaic(0, 0, 12, 12, 10, 10, 0)
    coarse = mosaic(0, 0, 12, 12, 30, 30, 0)
    pixels_NK = np.tile(random_pixels(len(fine), 1.0, 0), (2, 1))
    site_N = np.repeat([0, 1], len(fine))
    alone = divide_ground(boxes(fine), site_N[: len(fine)], pixels_NK[: len(fine)], SpatialPlan())
    both = divide_ground(boxes(np.concatenate([fine, coarse])), site_N, pixels_NK, SpatialPlan())
    same = divide_ground(boxes(np.concatenate([fine, fine])), site_N, pixels_NK, SpatialPlan())
    assert alone is not None and both is not None and same is not None
    assert (both.part_N == same.part_N).all()
    assert (alone.buffer_m, both.buffer_m) == (10, 30)


def plane(rows: int, cols: int, side: float = 10.0, stride: float = 10.0) -> NDArray[np.float64]:
    return boxes(mosaic(0, 0, rows, cols, side, stride, 0))


def nowhere(box_N4: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.zeros(len(box_N4), np.int64)


def test_a_large_mosaic_comes_near_the_wanted_shares_and_loses_little() -> None:
    box_N4 = plane(60, 60)
    pixels_NK = random_pixels(len(box_N4), 1.0, 3)
    division = divide_ground(box_N4, nowhere(box_N4), pixels_NK, SpatialPlan(val_share=0.2, test_share=0.1))
    assert division is not None
    shares_PK = division.pixels_PK / pixels_NK.sum(axis=0)
    assert shares_PK[1] == pytest.approx(np.full(4, 0.2), abs=0.05)
    assert shares_PK[2] == pytest.approx(np.full(4, 0.1), abs=0.05)
    assert (division.part_N == GAP).mean() < 0.15


def test_a_rare_class_reaches_every_part() -> None:
    box_N4 = plane(40, 40)
    pixels_NK = np.full((len(box_N4), 2), 100)
    pixels_NK[:, 1] = 0
    pixels_NK[[5, 39 * 40, 20 * 40 + 20, 30 * 40 + 39], 1] = 50
    division = divide_ground(box_N4, nowhere(box_N4), pixels_NK, SpatialPlan(seed=1))
    assert division is not None
    assert (division.pixels_PK[:, 1] > 0).all()


def test_unlabelled_patches_near_held_out_ground_are_in_the_gap_and_others_serve() -> None:
    box_N4 = plane(20, 40)
    pixels_NK = random_pixels(len(box_N4), 1.0, 0)
    pixels_NK[box_N4[:, 0] >= 200] = 0
    division = divide_ground(box_N4, nowhere(box_N4), pixels_NK, SpatialPlan())
    assert division is not None
    unlabelled_N = ~pixels_NK.any(axis=1)
    # A held-out block that lies across the edge of the labelled ground holds a few of them
    assert (division.part_N[unlabelled_N] == TRAIN).mean() > 0.8
    assert (division.part_N[box_N4[:, 0] >= 300] == TRAIN).all()


def test_the_same_seed_gives_the_same_parts_and_the_order_of_patches_does_not_count() -> None:
    box_N4 = plane(20, 20)
    pixels_NK = random_pixels(len(box_N4), 1.0, 0)
    order = np.random.default_rng(0).permutation(len(box_N4))
    one = divide_ground(box_N4, nowhere(box_N4), pixels_NK, SpatialPlan(seed=3))
    shuffled = divide_ground(box_N4[order], nowhere(box_N4), pixels_NK[order], SpatialPlan(seed=3))
    other = divide_ground(box_N4, nowhere(box_N4), pixels_NK, SpatialPlan(seed=4))
    assert one is not None and other is not None and shuffled is not None
    assert (shuffled.part_N == one.part_N[order]).all()
    assert (one.part_N != other.part_N).any()


def test_sources_on_the_same_ground_go_the_same_way() -> None:
    once = plane(20, 20)
    box_N4 = np.concatenate([once, once + 0.5])
    pixels_NK = random_pixels(len(box_N4), 1.0, 0)
    division = divide_ground(box_N4, nowhere(box_N4), pixels_NK, SpatialPlan())
    assert division is not None
    first, second = division.part_N[:400], division.part_N[400:]
    assert ((first == second) | (first == GAP) | (second == GAP)).all()


def test_ground_of_another_site_is_no_neighbour() -> None:
    """Coordinates of two planes can be the same; the parts of one do not push the other's into the gap."""
    once = plane(8, 8)
    box_N4 = np.concatenate([once, once])
    site_N = np.repeat([0, 1], 64)
    pixels_NK = np.full((128, 1), 10)
    division = divide_ground(box_N4, site_N, pixels_NK, SpatialPlan(block_m=80.0, test_share=0.0, val_share=0.5))
    assert division is not None
    assert not (division.part_N == GAP).any()
    assert {*division.part_N[:64]} != {*division.part_N[64:]}


def test_too_little_ground_gives_nothing() -> None:
    box_N4 = plane(2, 2)
    assert divide_ground(box_N4, nowhere(box_N4), np.ones((4, 1), np.int64), SpatialPlan()) is None
    assert divide_ground(box_N4, nowhere(box_N4), np.zeros((4, 1), np.int64), SpatialPlan()) is None


@pytest.mark.parametrize(
    ("block", "buffer", "message"),
    [
        (5.0, None, r"--block 5 is too small: .* a patch \(10 m\) and as the buffer \(10 m\); give 10"),
        (20.0, 50.0, r"--block 20 is too small: .* the buffer \(50 m\); give 50 or more"),
    ],
)
def test_blocks_that_are_too_small(block: float, buffer: float | None, message: str) -> None:
    box_N4 = plane(10, 10)
    with pytest.raises(DataError, match=message):
        divide_ground(box_N4, nowhere(box_N4), np.ones((100, 1), np.int64), SpatialPlan(block, buffer))
