"""Resampling along an axis and the plan of a map: arithmetic, checked against the plainest possible definitions.

Axes: H rows, W columns; I given pixels, O wanted pixels.
"""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salakseg.mapping.plan import MapPlan, Section, make_plan
from salakseg.mapping.resample import AxisResampler, resample

many = settings(max_examples=200, deadline=None)

steps = st.one_of(
    st.sampled_from([0.2, 0.25, 1 / 3, 0.3, 0.5, 2 / 3, 0.7, 1.0, 1.1, 4 / 3, 1.5, 2.0, 2.5, 3.0, 3.3, 4.0, 5.0, 6.0]),
    st.floats(0.2, 6.0),
)


@st.composite
def resamplers(draw: st.DrawFn) -> AxisResampler:
    """Any axis, its wanted pixels as many as cover it; sometimes one less, as rounding may have it."""
    size_in, step = draw(st.integers(1, 120)), draw(steps)
    return AxisResampler(size_in, max(1, math.ceil(size_in / step - 1e-3) - draw(st.integers(0, 1))), step)


def dense(axis: AxisResampler, start: int, stop: int) -> NDArray[np.float64]:
    """The matrix of some wanted pixels with a column for every given pixel, [stop - start, I]."""
    first, last = axis.needed(start, stop)
    assert 0 <= first < last <= axis.size_in
    weights_OI = np.zeros((stop - start, axis.size_in))
    weights_OI[:, first:last] = axis.matrix(start, stop).toarray()
    return weights_OI


def whole(rows: AxisResampler, cols: AxisResampler, values_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The whole picture resampled."""
    used = slice(*rows.needed(0, rows.size_out)), slice(*cols.needed(0, cols.size_out))
    return resample(values_HW[used], rows.matrix(0, rows.size_out), cols.matrix(0, cols.size_out))


def plain_weights(axis: AxisResampler, wanted: int) -> NDArray[np.float64]:
    """The definition, one given pixel after the other [I]: interpolated between centres, or the mean of the ground."""
    weights_I = np.zeros(axis.size_in)
    if axis.step <= 1:
        centre = min(max((wanted + 0.5) * axis.step - 0.5, 0.0), axis.size_in - 1.0)
        for tap in range(axis.size_in):
            weights_I[tap] = max(0.0, 1.0 - abs(tap - centre))
    else:
        start, stop = wanted * axis.step, (wanted + 1) * axis.step
        for tap in range(axis.size_in):
            weights_I[tap] = max(0.0, min(tap + 1, stop) - max(tap, start))
    scaled_I: NDArray[np.float64] = weights_I / weights_I.sum()
    return scaled_I


# --- weights ------------------------------------------------------------------------------------------------------


@given(resamplers())
@many
def test_weights_are_those_of_the_definition(axis: AxisResampler) -> None:
    expected_OI = np.array([plain_weights(axis, wanted) for wanted in range(axis.size_out)])
    np.testing.assert_allclose(dense(axis, 0, axis.size_out), expected_OI, atol=2e-6)


@given(resamplers())
@many
def test_rows_sum_to_one_and_are_never_negative(axis: AxisResampler) -> None:
    matrix = axis.matrix(0, axis.size_out)
    assert matrix.dtype == np.float32
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)


@given(resamplers(), resamplers(), st.floats(0, 255, width=32))
@many
def test_a_constant_picture_stays_constant(rows: AxisResampler, cols: AxisResampler, value: float) -> None:
    flat_HW = np.full((rows.size_in, cols.size_in), value, np.float32)
    made_HW = whole(rows, cols, flat_HW)
    assert made_HW.shape == (rows.size_out, cols.size_out)
    assert made_HW.dtype == np.float32
    np.testing.assert_allclose(made_HW, value, rtol=1e-5, atol=1e-30)


@given(resamplers(), resamplers(), st.integers(0, 99))
@many
def test_rows_and_columns_are_not_mixed_up(rows: AxisResampler, cols: AxisResampler, seed: int) -> None:
    values_HW = np.random.default_rng(seed).uniform(0, 255, (rows.size_in, cols.size_in)).astype(np.float32)
    made_HW = whole(rows, cols, values_HW)
    expected_HW = dense(rows, 0, rows.size_out) @ values_HW @ dense(cols, 0, cols.size_out).T
    np.testing.assert_allclose(made_HW, expected_HW, atol=1e-3)
    assert made_HW.flags.c_contiguous


@given(st.integers(2, 120), st.one_of(st.sampled_from([0.2, 0.25, 1 / 3, 0.5, 1.0]), st.floats(0.2, 1.0)))
@many
def test_a_ramp_stays_a_ramp_to_the_half_pixel_when_interpolating(size: int, step: float) -> None:
    axis = AxisResampler(size, max(1, math.ceil(size / step - 1e-3)), step)
    made_O = dense(axis, 0, axis.size_out) @ np.arange(size)
    centre_O = (np.arange(axis.size_out) + 0.5) * step - 0.5
    inside_O = (centre_O >= 0) & (centre_O <= size - 1)
    assert inside_O.any()
    np.testing.assert_allclose(made_O[inside_O], centre_O[inside_O], atol=2e-5)
    np.testing.assert_allclose(made_O, centre_O.clip(0, size - 1), atol=2e-5)  # beyond, the last pixel goes on


@given(resamplers())
@many
def test_a_ramp_keeps_its_place_when_reducing(axis: AxisResampler) -> None:
    made_O = dense(axis, 0, axis.size_out) @ (np.arange(axis.size_in) + 0.5)  # of centres
    inner = [wanted for wanted in range(axis.size_out) if 1 < axis.step and (wanted + 1) * axis.step <= axis.size_in]
    # The mean over a stretch of a stair lies within 1/8 of a pixel of the middle of the stretch.
    middle = np.array([(wanted + 0.5) * axis.step for wanted in inner])
    np.testing.assert_array_less(np.abs(made_O[inner] - middle), 0.1251)


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 99))
@many
def test_an_integer_reduction_gives_the_means_of_blocks(count: int, factor: int, seed: int) -> None:
    values_I = np.random.default_rng(seed).uniform(0, 255, count * factor).astype(np.float32)
    axis = AxisResampler(count * factor, count, float(factor))
    made_O = axis.matrix(0, count) @ values_I
    np.testing.assert_allclose(made_O, values_I.reshape(count, factor).mean(axis=1, dtype=np.float64), rtol=1e-5)


@given(st.integers(1, 60), st.integers(2, 6))
@many
def test_the_last_pixel_is_the_mean_of_what_it_covers(size: int, factor: int) -> None:
    axis = AxisResampler(size, -(-size // factor), float(factor))
    values_I = np.arange(size, dtype=np.float32) ** 2
    last = values_I[(axis.size_out - 1) * factor :]
    np.testing.assert_allclose((axis.matrix(0, axis.size_out) @ values_I)[-1], last.mean(), rtol=1e-5)


# --- parts --------------------------------------------------------------------------------------------------------


@given(resamplers(), st.data())
@many
def test_any_split_gives_the_same_rows_as_the_whole(axis: AxisResampler, data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(1, max(1, axis.size_out - 1)), max_size=6)) - {axis.size_out}
    borders = [0, *sorted(cuts), axis.size_out]
    parts = [dense(axis, start, stop) for start, stop in pairwise(borders)]
    np.testing.assert_array_equal(np.concatenate(parts), dense(axis, 0, axis.size_out))  # to the bit


@given(resamplers(), st.data())
@many
def test_what_is_needed_is_what_is_used(axis: AxisResampler, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, axis.size_out - 1))
    stop = data.draw(st.integers(start + 1, axis.size_out))
    used = np.flatnonzero(sum(plain_weights(axis, wanted) for wanted in range(start, stop)) > 2e-9)
    first, last = axis.needed(start, stop)
    assert first <= used[0] and used[-1] < last
    # And no more than touches the ground, or lies less than a step from a centre, where its weight may be nothing.
    if axis.step > 1:
        assert first + 1 > start * axis.step and last - 1 < stop * axis.step
    elif not axis.identity:
        centres = [min(max((wanted + 0.5) * axis.step - 0.5, 0), axis.size_in - 1) for wanted in (start, stop - 1)]
        assert centres[0] - first < 1 and last - 1 - centres[1] <= 1
    alone = [axis.needed(wanted, wanted + 1) for wanted in range(start, stop)]
    assert (first, last) == (min(one[0] for one in alone), max(one[1] for one in alone))
    assert axis.matrix(start, stop).shape == (stop - start, last - first)


@given(resamplers(), st.integers(0, 130))
@many
def test_ready_counts_the_pixels_that_depend_on_given_ones_alone(axis: AxisResampler, count: int) -> None:
    wanted = 0
    while wanted < axis.size_out and axis.needed(wanted, wanted + 1)[1] <= count:
        wanted += 1
    assert axis.ready(count) == wanted
    assert axis.ready(axis.size_in) == axis.size_out
    assert axis.ready(0) == 0


@given(st.integers(1, 100))
@many
def test_equal_grids_are_left_alone(size: int) -> None:
    axis = AxisResampler(size, size, 1.0 + 1e-12)
    assert axis.identity
    assert not AxisResampler(size, size + 1, 1.0).identity
    assert not AxisResampler(size, size, 1.001).identity
    assert axis.needed(0, size) == (0, size)
    assert [axis.ready(given) for given in range(size + 1)] == list(range(size + 1))
    np.testing.assert_array_equal(axis.matrix(0, size).toarray(), np.eye(size))


# --- plans --------------------------------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> tuple[MapPlan, int]:
    """A plan, and the width of its panels."""
    tile = draw(st.integers(1, 40))
    panel_width = draw(st.integers(2 * tile, 200))
    plan = make_plan(
        draw(st.integers(1, 150)),
        draw(st.integers(1, 150)),
        tile=tile,
        overlap=draw(st.integers(0, tile - 1)),
        panel_width=panel_width,
        window=draw(st.sampled_from(["hann", "triangle", "flat"])),
        model_step=draw(st.one_of(st.just((1.0, 1.0)), st.tuples(steps, steps))),
        map_step=draw(st.one_of(st.just((1.0, 1.0)), st.tuples(steps, steps))),
    )
    return plan, panel_width


@given(st.integers(1, 3000), st.integers(1, 3000), st.tuples(steps, steps), st.tuples(steps, steps))
@many
def test_all_grids_cover_the_same_ground(
    height: int, width: int, model_step: tuple[float, float], map_step: tuple[float, float]
) -> None:
    plan = make_plan(height, width, tile=64, overlap=16, panel_width=512, model_step=model_step, map_step=map_step)
    for source, axis, model, final in (
        (height, 0, plan.to_model.rows, plan.source_to_map.rows),
        (width, 1, plan.to_model.cols, plan.source_to_map.cols),
    ):
        for made, step in ((model, model_step[axis]), (final, map_step[axis])):
            assert (made.size_in, made.step) == (source, step)
            assert made.size_out == 1 or (made.size_out - 1) * step < source
            assert made.size_out * step > source - 0.0011 * step  # what is left out is next to nothing
    assert (plan.height, plan.width) == (plan.source_to_map.rows.size_out, plan.source_to_map.cols.size_out)
    assert (plan.grid.rows.size, plan.grid.cols.size) == (plan.to_model.rows.size_out, plan.to_model.cols.size_out)
    for between, model, final in (
        (plan.to_map.rows, plan.to_model.rows, plan.source_to_map.rows),
        (plan.to_map.cols, plan.to_model.cols, plan.source_to_map.cols),
    ):
        assert (between.size_in, between.size_out) == (model.size_out, final.size_out)
        assert math.isclose(between.step, final.step / model.step)
    assert plan.to_map.identity == (plan.to_map.rows.identity and plan.to_map.cols.identity)


def test_exact_quotients_give_no_sliver() -> None:
    for step in (Fraction(1, 10), Fraction(3, 10), Fraction(7, 10), Fraction(11, 10), Fraction(33, 10)):
        for count in (1, 7, 330, 3300):
            size = math.ceil(count * step)
            exact = math.ceil(size / step)
            plan = make_plan(size, size, tile=8, overlap=2, panel_width=64, map_step=(float(step), float(step)))
            assert plan.height == plan.width == exact


@given(plans())
@many
def test_panels_cover_each_column_once(made: tuple[MapPlan, int]) -> None:
    plan, panel_width = made
    columns = [column for panel in plan.panels for column in range(panel.start, panel.stop)]
    assert columns == list(range(plan.width))
    for panel in plan.panels:
        assert (panel.model_start, panel.model_stop) == plan.to_map.cols.needed(panel.start, panel.stop)
        # What the memory was reckoned for; a single column may need more.
        assert panel.model_stop - panel.model_start <= panel_width or panel.stop - panel.start == 1


@given(plans())
@many
def test_stripes_cover_each_row_once_and_as_soon_as_possible(made: tuple[MapPlan, int]) -> None:
    plan, _ = made
    tiles = plan.grid.rows
    row = 0
    for stripe in range(plan.stripes):
        start, stop = plan.stripe_rows(stripe, stripe + 1)
        assert start == row <= stop
        row = stop
        # Rows of the model below `final` are touched by no later row of tiles.
        later = [tiles.start(index) for index in range(stripe + 1, tiles.count)]
        final = min([tiles.size, *later])
        needed = [plan.to_map.rows.needed(wanted, wanted + 1)[1] for wanted in range(start, min(stop + 1, plan.height))]
        assert all(last <= final for last in needed[: stop - start])
        assert all(last > final for last in needed[stop - start :])
    assert row == plan.height
    assert plan.stripe_rows(0, plan.stripes) == (0, plan.height)
    expected = [(panel, stripe) for panel in range(len(plan.panels)) for stripe in range(plan.stripes)]
    assert list(plan.all_stripes()) == expected


@given(plans(), st.data())
@many
def test_a_section_begins_with_the_first_tile_that_it_depends_on(
    made: tuple[MapPlan, int], data: st.DataObject
) -> None:
    plan, _ = made
    start = data.draw(st.integers(0, plan.stripes - 1))
    section = Section(
        data.draw(st.integers(0, len(plan.panels) - 1)), start, data.draw(st.integers(start + 1, plan.stripes))
    )
    top, bottom = plan.stripe_rows(section.start, section.stop)
    panel = plan.panels[section.panel]
    rows = plan.to_map.rows.needed(top, bottom) if top < bottom else (0, 0)
    touching = [
        [
            index
            for index in range(axis.count)
            if axis.start(index) < last and axis.start(index) + axis.tile > first and first < last
        ]
        for axis, (first, last) in (
            (plan.grid.rows, rows),
            (plan.grid.cols, (panel.model_start, panel.model_stop)),
        )
    ]
    assert plan.first_tile_row(section) == (touching[0][0] if touching[0] else section.stop)
    assert not touching[0] or touching[0][-1] < section.stop  # none below is needed
    given_rows = range(touching[0][0], section.stop) if touching[0] else range(0)
    positions = [(row, col) for row in given_rows for col in touching[1]]
    assert list(plan.tile_positions(section)) == positions
    assert plan.tile_count(section) == len(positions)
