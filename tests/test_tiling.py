"""Where tiles lie, what they weigh and how they are blended: arithmetic, checked against the plainest possible sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salakseg.mapping.blend import Blender
from salakseg.mapping.layers import CLASSES, CONFIDENCE, PROBABILITIES, Layers
from salakseg.mapping.plan import make_plan
from salakseg.mapping.tiling import WINDOWS, TileAxis, TileGrid, WindowName

Blended = tuple[NDArray[np.float32], NDArray[np.bool_]]


@st.composite
def axes(draw: st.DrawFn, max_size: int = 300) -> TileAxis:
    tile = draw(st.integers(1, 64))
    size, overlap = draw(st.integers(1, max_size)), draw(st.integers(0, tile - 1))
    return TileAxis(size, tile, overlap, draw(st.sampled_from(WINDOWS)))


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile = draw(st.integers(1, 16))
    overlap = draw(st.integers(0, tile - 1))
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    return TileGrid.over(height, width, tile, overlap, draw(st.sampled_from(WINDOWS)))


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


@pytest.mark.parametrize(("window", "least"), [("hann", 0.01), ("triangle", 0.04)])
def test_weights_fade_towards_the_edge_that_another_tile_covers(window: WindowName, least: float) -> None:
    weights = TileAxis(1000, 64, 16, window).weights(0)
    np.testing.assert_array_equal(weights[:48], 1.0)  # no other tile there, the raster's border included
    assert (np.diff(weights[48:]) < 0).all()
    assert weights[-1] < least


def test_the_usual_weights_are_those_of_hann() -> None:
    np.testing.assert_array_equal(TileAxis(1000, 64, 16).weights(1), TileAxis(1000, 64, 16, "hann").weights(1))


def test_flat_weights_are_the_same_for_all_tiles_over_a_pixel() -> None:
    weights = TileAxis(1000, 64, 16, "flat").weights(0)
    np.testing.assert_array_equal(weights, [1.0] * 48 + [0.5] * 16)


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
    panels = make_plan(10, width, tile=4, overlap=1, panel_width=8).panels
    assert [column for panel in panels for column in range(panel.start, panel.stop)] == list(range(width))
    assert max(panel.stop - panel.start for panel in panels) <= 8
    assert all((panel.model_start, panel.model_stop) == (panel.start, panel.stop) for panel in panels)


@given(grids(), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_blended_rows_equal_a_plain_sum_over_the_whole_raster(grid: TileGrid, panel: int, seed: int) -> None:
    prob, valid_HW = _random_tiles(grid, seed)
    expected_KHW = _plain_blend(grid, prob)
    height, width = grid.rows.size, grid.cols.size
    layers = Layers(3)
    blended = np.full((height, width), 99, np.uint8)
    for start in range(0, width, panel):
        stop = min(start + panel, width)
        prob_KHW, known_HW = _blend(grid, prob, valid_HW, start, stop)
        np.testing.assert_array_equal(known_HW, valid_HW[:height, start:stop])
        np.testing.assert_allclose(
            prob_KHW[:, known_HW], expected_KHW[:, :, start:stop][:, known_HW], atol=1e-5, rtol=0
        )
        blended[:, start:stop] = layers.of(prob_KHW, known_HW)[CLASSES][0]
    np.testing.assert_array_equal(blended == 255, ~valid_HW[:height, :width])
    chosen = np.take_along_axis(expected_KHW, np.where(blended == 255, 0, blended)[None], axis=0)[0]
    near_best = chosen >= expected_KHW.max(axis=0) - 1e-5  # a tie may fall either way in float32
    assert near_best[blended != 255].all()


@given(grids(), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=60, deadline=None)
def test_blended_rows_are_the_same_to_the_bit_in_any_panel_from_any_row(
    grid: TileGrid, seed: int, data: st.DataObject
) -> None:
    prob, valid_HW = _random_tiles(grid, seed)
    whole_KHW, whole_HW = _blend(grid, prob, valid_HW, 0, grid.cols.size)
    start = data.draw(st.integers(0, grid.cols.size - 1))
    stop = data.draw(st.integers(start + 1, grid.cols.size))
    first = data.draw(st.integers(0, grid.rows.count - 1))
    part_KHW, part_HW = _blend(grid, prob, valid_HW, start, stop, first)
    complete = grid.rows.start(first - 1) + grid.rows.tile if first else 0  # no earlier row of tiles reaches here
    np.testing.assert_array_equal(part_KHW[:, complete:], whole_KHW[:, complete:, start:stop])
    np.testing.assert_array_equal(part_HW[complete:], whole_HW[complete:, start:stop])


@given(grids(), st.data())
@settings(max_examples=60, deadline=None)
def test_rows_leave_as_soon_as_no_tile_can_reach_them(grid: TileGrid, data: st.DataObject) -> None:
    rows = grid.rows
    first = data.draw(st.integers(0, rows.count - 1))
    blender = Blender(grid, 2, 0, grid.cols.size, first)
    at = rows.start(first)
    for row in range(first, rows.count + 1):
        for out in blender.finished_before(row):
            assert (out.tile_row, out.row) == (row - 1, at)
            at += out.prob_KHW.shape[1]
            assert out.prob_KHW.shape[2] == out.valid_HW.shape[1] == grid.cols.size
        assert at == (rows.size if row == rows.count else rows.start(row))


def _blend(
    grid: TileGrid,
    prob: dict[tuple[int, int], NDArray[np.float32]],
    valid_HW: NDArray[np.bool_],
    start: int,
    stop: int,
    first: int = 0,
) -> Blended:
    """The blended rows put together; those above the first are zeros."""
    blender = Blender(grid, 3, start, stop, first)
    prob_KHW = np.zeros((3, grid.rows.size, stop - start), np.float32)
    known_HW = np.zeros((grid.rows.size, stop - start), np.bool_)

    def put(row: int) -> None:
        for out in blender.finished_before(row):
            here = slice(out.row, out.row + out.valid_HW.shape[0])
            prob_KHW[:, here], known_HW[here] = out.prob_KHW, out.valid_HW

    for row, col in prob:
        if row >= first and col in grid.cols.touching(start, stop):
            part = _part(grid, row, col)
            put(row)
            if valid_HW[part].any():  # tiles without a valid pixel may be left out
                blender.add(row, col, prob[row, col], valid_HW[part])
    put(grid.rows.count)
    return prob_KHW, known_HW


def _random_tiles(grid: TileGrid, seed: int) -> tuple[dict[tuple[int, int], NDArray[np.float32]], NDArray[np.bool_]]:
    """Probabilities of every tile, row by row, and the valid pixels, to a tile beyond the raster."""
    rng = np.random.default_rng(seed)
    tile, height, width = grid.rows.tile, grid.rows.size, grid.cols.size
    tiles = [(row, col) for row in range(grid.rows.count) for col in range(grid.cols.count)]
    prob = {position: rng.random((3, tile, tile), np.float32) for position in tiles}
    valid_HW = np.zeros((height + tile, width + tile), np.bool_)
    valid_HW[:height, :width] = rng.random((height, width)) < rng.choice([0.02, 0.8])
    return prob, valid_HW


def _part(grid: TileGrid, row: int, col: int) -> tuple[slice, slice]:
    y, x, tile = grid.rows.start(row), grid.cols.start(col), grid.rows.tile
    return slice(y, y + tile), slice(x, x + tile)


def _plain_blend(grid: TileGrid, prob: dict[tuple[int, int], NDArray[np.float32]]) -> NDArray[np.float64]:
    """Weighted mean with plain windows, divided by the sum of the windows at the very end."""
    tile = grid.rows.tile
    at = (np.arange(tile) + 0.5) / tile
    shapes = {"hann": 0.5 - 0.5 * np.cos(2 * np.pi * at), "triangle": 1 - np.abs(2 * at - 1), "flat": np.ones(tile)}
    shape = shapes[grid.rows.window]
    window = shape[:, None] * shape[None, :]
    total = np.zeros((3, grid.rows.size + tile, grid.cols.size + tile))
    weight = np.zeros(total.shape[1:])
    for (row, col), prob_KHW in prob.items():
        part = _part(grid, row, col)
        total[:, *part] += prob_KHW * window
        weight[part] += window
    inside = (slice(0, grid.rows.size), slice(0, grid.cols.size))
    return np.asarray(total[:, *inside] / weight[inside])


# --- what a map holds of it ---------------------------------------------------------------------------------------


def _probabilities(seed: int = 0) -> Blended:
    rng = np.random.default_rng(seed)
    prob_KHW = rng.random((7, 30, 40), np.float32) ** 3
    prob_KHW /= prob_KHW.sum(axis=0)
    return prob_KHW, rng.random((30, 40)) < 0.7


def test_the_class_is_the_most_probable_one_and_the_first_of_several() -> None:
    prob_KHW, valid_HW = _probabilities()
    prob_KHW[:, 0, 0], valid_HW[0, 0] = [0, 0.2, 0.4, 0, 0.4, 0, 0], True
    found = Layers(7).of(prob_KHW, valid_HW)
    assert list(found) == [CLASSES]
    np.testing.assert_array_equal(found[CLASSES][0], np.where(valid_HW, prob_KHW.argmax(axis=0), 255))
    assert found[CLASSES].dtype == np.uint8
    assert found[CLASSES][0, 0, 0] == 2


def test_a_pixel_that_no_tile_covers_is_unknown_and_not_class_0() -> None:
    prob_KHW, valid_HW = _probabilities()
    prob_KHW[:, 3:5] = 0
    found = Layers(7, confidence=True, probabilities="float16").of(prob_KHW, np.ones_like(valid_HW))
    for row in (3, 4):
        assert (found[CLASSES][0, row] == 255).all()
        assert (found[CONFIDENCE][0, row] == 255).all()
        assert np.isnan(found[PROBABILITIES][:, row]).all()
    assert (found[CLASSES][0, 5:] != 255).all()


def test_percent_and_shares_are_those_of_the_weights_that_there_are() -> None:
    """Beside pixels that no tile covers the sum is below one: the shares are told all the same."""
    prob_KHW, valid_HW = _probabilities()
    weak_KHW = prob_KHW * np.float32(0.25)
    percent = Layers(7, confidence=True, probabilities="uint8").of(weak_KHW, valid_HW)
    expected = np.where(valid_HW, np.rint(100 * prob_KHW.astype(np.float64)), 255)
    assert np.abs(percent[PROBABILITIES].astype(int) - expected).max() <= 1  # on the brink in float32
    assert (percent[PROBABILITIES] == expected).mean() > 0.999
    best = np.take_along_axis(percent[PROBABILITIES], prob_KHW.argmax(axis=0)[None], axis=0)
    np.testing.assert_array_equal(percent[CONFIDENCE], best)
    shares = Layers(7, probabilities="float16").of(weak_KHW, valid_HW)
    assert CONFIDENCE not in shares
    given = shares[PROBABILITIES][:, valid_HW].astype(float)
    np.testing.assert_allclose(given, prob_KHW[:, valid_HW], rtol=2**-10, atol=1e-7)
    np.testing.assert_array_equal(given, given.astype(np.float16))
    assert np.isnan(shares[PROBABILITIES][:, ~valid_HW]).all()


def test_bands_are_counted_by_layer() -> None:
    assert Layers(7).bands == {CLASSES: 1}
    assert Layers(7, True, "uint8").bands == {CLASSES: 1, CONFIDENCE: 1, PROBABILITIES: 7}
    assert [Layers(7, True, kind).is_float(PROBABILITIES) for kind in ("uint8", "float16")] == [False, True]
    assert not Layers(7, True, "float16").is_float(CONFIDENCE)
