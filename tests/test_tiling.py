"""Where tiles lie, what they weigh and how they are blended: arithmetic, checked against the plainest possible sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salakseg.mapping.blend import Stripe, StripeBlender
from salakseg.mapping.tiling import TileAxis, TileGrid


@st.composite
def axes(draw: st.DrawFn, max_size: int = 300) -> TileAxis:
    tile = draw(st.integers(1, 64))
    return TileAxis(draw(st.integers(1, max_size)), tile, draw(st.integers(0, tile - 1)))


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile = draw(st.integers(1, 16))
    overlap = draw(st.integers(0, tile - 1))
    return TileGrid.over(draw(st.integers(1, 50)), draw(st.integers(1, 50)), tile, overlap)


@given(axes())
def test_tiles_cover_every_pixel_and_none_is_idle(axis: TileAxis) -> None:
    covered = np.zeros(axis.size, int)
    for index in range(axis.count):
        assert axis.start(index) == index * (axis.tile - axis.overlap)
        assert axis.start(index) < axis.size
        covered[axis.start(index) : axis.start(index) + axis.tile] += 1
    assert covered.min() >= 1
    assert axis.count == 1 or axis.start(axis.count - 2) + axis.tile < axis.size  # one fewer would not do


@given(axes())
def test_weights_sum_to_one_at_every_pixel(axis: TileAxis) -> None:
    total = np.zeros(axis.start(axis.count - 1) + axis.tile)
    for index in range(axis.count):
        weights = axis.weights(index)
        assert weights.min() > 0
        total[axis.start(index) : axis.start(index) + axis.tile] += weights
    np.testing.assert_allclose(total, 1.0, atol=1e-12)


@given(grids())
@settings(max_examples=50)
def test_weights_of_a_grid_sum_to_one_at_every_pixel(grid: TileGrid) -> None:
    tile = grid.rows.tile
    total = np.zeros((grid.rows.size + tile, grid.cols.size + tile))
    for row in range(grid.rows.count):
        for col in range(grid.cols.count):
            weights = grid.weights(row, col)
            assert weights.dtype == np.float32
            assert weights.min() > 0
            y, x = grid.rows.start(row), grid.cols.start(col)
            total[y : y + tile, x : x + tile] += weights
    np.testing.assert_allclose(total[: grid.rows.size, : grid.cols.size], 1.0, atol=1e-5)
    assert len(grid) == grid.rows.count * grid.cols.count


def test_weights_fade_towards_the_edge_that_another_tile_covers() -> None:
    weights = TileAxis(size=1000, tile=64, overlap=16).weights(0)
    np.testing.assert_array_equal(weights[:48], 1.0)  # no other tile there, the raster's border included
    assert (np.diff(weights[48:]) < 0).all()
    assert weights[-1] < 0.01


@given(axes(), st.data())
def test_touching_finds_the_tiles_of_a_pixel_range(axis: TileAxis, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, axis.size - 1))
    stop = data.draw(st.integers(start + 1, axis.size))
    wanted = [
        index
        for index in range(axis.count)
        if axis.start(index) < stop and axis.start(index) + axis.tile > start  # the plain definition
    ]
    assert list(axis.touching(start, stop)) == wanted


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (-1, 3), (3, 11)])
def test_touching_refuses_ranges_that_are_no_part_of_the_raster(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="0 to 10"):
        TileAxis(10, 4, 1).touching(start, stop)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [(10, 4, 4), (10, 4, 5), (10, 4, -1), (0, 4, 1), (10, 0, 0), (-3, 4, 0)]
)
def test_impossible_tilings_are_refused(size: int, tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=r"overlap must be|size and tile must be"):
        TileAxis(size, tile, overlap)


def test_a_raster_smaller_than_a_tile_has_one_tile_of_full_weight() -> None:
    grid = TileGrid.over(height=3, width=5, tile=8, overlap=2)
    assert len(grid) == 1
    np.testing.assert_array_equal(grid.weights(0, 0), np.ones((8, 8), np.float32))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 100])
def test_panels_split_the_columns_without_gap(width: int) -> None:
    panels = list(TileGrid.over(10, width, 4, 1).panels(8))
    assert [column for start, stop in panels for column in range(start, stop)] == list(range(width))
    assert max(stop - start for start, stop in panels) <= 8


@given(grids(), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_blended_stripes_equal_a_plain_sum_over_the_whole_raster(grid: TileGrid, panel: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tile, classes = grid.rows.tile, 3
    height, width = grid.rows.size, grid.cols.size
    tiles = [(row, col) for row in range(grid.rows.count) for col in range(grid.cols.count)]
    prob = {position: rng.random((classes, tile, tile), np.float32) for position in tiles}
    valid_HW = np.zeros((height + tile, width + tile), np.bool_)
    valid_HW[:height, :width] = rng.random((height, width)) < 0.8

    blended = np.full((height, width), 99, np.uint8)
    for start, stop in grid.panels(panel):
        blender = StripeBlender(grid, classes, start, stop)
        stripes: list[Stripe] = []
        for row, col in tiles:
            if col in grid.cols.touching(start, stop):
                stripes += blender.finished_before(row)
                part = _part(grid, row, col)
                if valid_HW[part].any():  # tiles without a valid pixel may be left out
                    blender.add(row, col, prob[row, col], valid_HW[part])
        for stripe in [*stripes, *blender.finish()]:
            rows, cols = stripe.label_HW.shape
            blended[stripe.row : stripe.row + rows, stripe.col : stripe.col + cols] = stripe.label_HW

    expected_KHW = _plain_blend(grid, prob)
    np.testing.assert_array_equal(blended == 255, ~valid_HW[:height, :width])
    chosen = np.take_along_axis(expected_KHW, np.where(blended == 255, 0, blended)[None], axis=0)[0]
    near_best = chosen >= expected_KHW.max(axis=0) - 1e-5  # a tie may fall either way in float32
    assert near_best[blended != 255].all()


def _part(grid: TileGrid, row: int, col: int) -> tuple[slice, slice]:
    y, x, tile = grid.rows.start(row), grid.cols.start(col), grid.rows.tile
    return slice(y, y + tile), slice(x, x + tile)


def _plain_blend(grid: TileGrid, prob: dict[tuple[int, int], NDArray[np.float32]]) -> NDArray[np.float64]:
    """Weighted mean with Hann windows, divided by the sum of the windows at the very end."""
    tile = grid.rows.tile
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(tile) + 0.5) / tile)
    window = hann[:, None] * hann[None, :]
    total = np.zeros((3, grid.rows.size + tile, grid.cols.size + tile))
    weight = np.zeros(total.shape[1:])
    for (row, col), prob_KHW in prob.items():
        part = _part(grid, row, col)
        total[:, *part] += prob_KHW * window
        weight[part] += window
    inside = (slice(0, grid.rows.size), slice(0, grid.cols.size))
    return np.asarray(total[:, *inside] / weight[inside])
