"""Streams of patches and the views made of them."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import kernels

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.errors import DataError
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.network.model import normalise
from salakseg.train.augment import View, resize_view, source_side, weak_view
from salakseg.train.branches import MULTI_SCALE_EVERY, Views
from salakseg.train.data import Batch, PatchStream, Steps, collate, random_window, step_batches
from salakseg.train.recipe import load_recipe
from salakseg.train.settings_views import AugmentConfig


def telling_batch(height: int, width: int, samples: int = 4) -> Batch:
    """Pictures whose brightness is 36 times the class, in blocks of 8 pixels, so that each tells of the other."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 7, (samples, -(-height // 8), -(-width // 8))).astype(np.uint8)
    label = torch.from_numpy(blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].copy())
    image = (label * 36).unsqueeze(1).repeat(1, 3, 1, 1)
    return Batch(image, label, torch.tensor([[height, width]] * samples))


def brightness(view: View) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (view.image_BCHW * std + mean)[:, 0] * 255


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    mirror=st.sampled_from(["none", "horizontal", "dihedral"]),
    size=st.tuples(st.integers(40, 100), st.integers(40, 100)),
)
def test_labels_move_with_their_pixels(seed: int, mirror: str, size: tuple[int, int]) -> None:
    config = AugmentConfig.model_validate({"mirror": mirror})
    view = weak_view(telling_batch(*size), config, 64, np.random.default_rng(seed))
    assert view.image_BCHW.shape == (4, 3, 64, 64)
    known = view.label_BHW != 255
    assert set(view.label_BHW[known].unique().tolist()) <= set(range(7))
    # away from the borders of blocks, where the picture blends, brightness must tell the label
    told = (brightness(view) / 36).round()
    agree = (told == view.label_BHW)[known].float().mean()
    assert agree > 0.7, float(agree)


def mapped_batch(height: int, width: int, samples: int = 4) -> Batch:
    """Pictures that tell where each pixel lies: red is its column, green its row; so does the label, modulo 7."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([columns, rows, torch.full_like(rows, 128)]).to(torch.uint8)
    label = ((columns + 3 * rows) % 7).to(torch.uint8)
    return Batch(image.repeat(samples, 1, 1, 1), label.repeat(samples, 1, 1), torch.tensor([[height, width]] * samples))


def places(view: View) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Columns and rows of the picture that a view of `mapped_batch` shows, and where nothing from outside blends in.

    Interpolation does not change a ramp.
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    columns, rows, blue = ((view.image_BCHW * std + mean) * 255).unbind(dim=1)
    return columns, rows, (blue - 128).abs() < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    mirror=st.sampled_from(["none", "horizontal", "dihedral"]),
    size=st.tuples(st.integers(40, 100), st.integers(40, 100)),
    rotation=st.sampled_from([0.0, 20.0, 180.0]),
    zoom_step=st.sampled_from([0.0, 0.1]),
)
def test_labels_move_with_pixels_at_any_angle_and_zoom(
    seed: int, mirror: str, size: tuple[int, int], rotation: float, zoom_step: float
) -> None:
    config = AugmentConfig.model_validate({"mirror": mirror, "rotation": rotation, "zoom_step": zoom_step})
    view = weak_view(mapped_batch(*size), config, 48, np.random.default_rng(seed))
    columns, rows, inner = places(view)
    # Halfway between two pixels either of them is the nearest
    clear = ((columns % 1 - 0.5).abs() > 0.01) & ((rows % 1 - 0.5).abs() > 0.01)
    expected = (columns.round() + 3 * rows.round()) % 7
    wrong = inner & clear & (view.label_BHW != expected)
    assert not wrong.any(), int(wrong.sum())
    if zoom_step == 0:
        assert (inner & clear).float().mean() > 0.05


@pytest.mark.parametrize("rotation", [0.0, 30.0, 180.0])
def test_a_view_is_a_similar_picture_turned_no_further_than_asked(rotation: float) -> None:
    config = AugmentConfig(mirror="none", zoom_min=1.0, zoom_max=2.0, zoom_step=0.0, rotation=rotation)
    view = weak_view(mapped_batch(120, 120, samples=300), config, 32, np.random.default_rng(0))
    columns, rows, _ = places(view)
    assert (view.label_BHW != 255).all()  # there is room for the corners
    by_x = torch.stack([columns[:, 16, 17] - columns[:, 16, 16], rows[:, 16, 17] - rows[:, 16, 16]])
    by_y = torch.stack([columns[:, 17, 16] - columns[:, 16, 16], rows[:, 17, 16] - rows[:, 16, 16]])
    zoom, angle = 1 / by_x.norm(dim=0), torch.rad2deg(torch.atan2(by_x[1], by_x[0]))
    torch.testing.assert_close(torch.stack([-by_x[1], by_x[0]]), by_y, atol=2e-3, rtol=0)
    assert 0.99 < zoom.min() < 1.05
    assert 1.95 < zoom.max() < 2.01
    assert angle.abs().max() <= rotation + 0.2
    if rotation:
        assert angle.min() < -0.95 * rotation
        assert angle.max() > 0.95 * rotation


def test_what_turns_in_from_outside_is_ignored() -> None:
    batch = telling_batch(64, 64, samples=50)
    config = AugmentConfig(mirror="dihedral", zoom_min=1.0, zoom_max=1.0, rotation=180)
    view = weak_view(batch, config, 64, np.random.default_rng(0))
    shares = (view.label_BHW != 255).float().mean(dim=(1, 2))
    # A square turned about its middle by 45 degrees shares 2 (sqrt 2 - 1) of its area with itself
    assert 0.82 < shares.min() < 0.85
    assert shares.max() > 0.98
    outside = view.image_BCHW.permute(0, 2, 3, 1)[view.label_BHW == 255]
    assert (outside.abs().amax(dim=1) < 1e-5).float().mean() > 0.85  # the mean colour, but where the edge blends


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_the_padding_of_smaller_pictures_is_outside(jitter: float) -> None:
    big, small = telling_batch(64, 64, samples=1), telling_batch(20, 30, samples=1)
    items = [(batch.image_BCHW[0].permute(1, 2, 0).numpy(), batch.label_BHW[0].numpy()) for batch in (big, small)]
    batch = collate(items)
    assert isinstance(batch, Batch)
    config = AugmentConfig(mirror="none", zoom_min=1.0, zoom_max=1.0, jitter=jitter)
    view = weak_view(batch, config, 64, np.random.default_rng(0))
    assert [(label != 255).sum().item() for label in view.label_BHW] == [64 * 64, 20 * 30]
    assert view.image_BCHW[1].permute(1, 2, 0)[view.label_BHW[1] == 255].abs().max() < 1e-5


def test_half_a_batch_twice_is_the_batch() -> None:
    batch = telling_batch(80, 70, samples=6)
    config = AugmentConfig(mirror="dihedral", zoom_step=0.0, rotation=90, jitter=0.3)
    whole, halves = np.random.default_rng(5), np.random.default_rng(5)
    expected = weak_view(batch, config, 64, whole)
    parts = [weak_view(Batch(*(t[p] for t in batch)), config, 64, halves) for p in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat([part.image_BCHW for part in parts]), expected.image_BCHW)
    assert torch.equal(torch.cat([part.label_BHW for part in parts]), expected.label_BHW)


def test_colours_do_not_change_what_is_seen() -> None:
    batch = mapped_batch(90, 80)
    config = AugmentConfig(mirror="dihedral", zoom_step=0.0, rotation=90)
    a, b = (
        weak_view(batch, config.model_copy(update={"jitter": jitter}), 64, np.random.default_rng(2))
        for jitter in (0.0, 0.5)
    )
    assert torch.equal(a.label_BHW, b.label_BHW)


@pytest.mark.parametrize(
    ("config", "bound"),
    [({}, 20), ({"rotation": 45, "jitter": 0.4, "mirror": "dihedral"}, 30)],
    ids=["v3", "everything"],
)
def test_a_batch_takes_few_kernels(config: dict[str, object], bound: int) -> None:
    few, many = (
        len(
            kernels(
                partial(
                    weak_view,
                    telling_batch(64, 64, samples),
                    AugmentConfig.model_validate(config),
                    64,
                    np.random.default_rng(0),
                )
            )
        )
        for samples in (2, 8)
    )
    assert few == many <= bound


@pytest.mark.parametrize("rotation", [0.0, 15.0, 45.0, 180.0])
def test_the_source_is_large_enough_for_every_view(rotation: float) -> None:
    config = AugmentConfig(mirror="dihedral", zoom_min=0.8, zoom_max=0.8, rotation=rotation)
    side = source_side(config, 32)
    assert side >= 32 / 0.8
    view = weak_view(telling_batch(side + 3, side + 3, samples=100), config, 32, np.random.default_rng(0))
    assert (view.label_BHW != 255).all()
    if rotation:
        tight = weak_view(telling_batch(side - 6, side - 6, samples=100), config, 32, np.random.default_rng(0))
        assert (tight.label_BHW == 255).any()


def test_what_lies_outside_is_ignored_never_background() -> None:
    batch = telling_batch(20, 20)
    config = AugmentConfig(mirror="none", zoom_min=1.0, zoom_max=1.0)
    view = weak_view(batch, config, 64, np.random.default_rng(0))
    assert ((view.label_BHW != 255).sum(dim=(1, 2)) == 400).all()
    outside = view.image_BCHW.permute(0, 2, 3, 1)[view.label_BHW == 255]
    assert outside.abs().max() < 1e-5  # the mean colour


def test_ignored_pixels_stay_ignored() -> None:
    batch = telling_batch(64, 64)
    batch.label_BHW[:, 16:48, 16:48] = 255
    view = weak_view(batch, AugmentConfig(mirror="dihedral", zoom_min=1.0, zoom_max=1.0), 64, np.random.default_rng(1))
    assert ((view.label_BHW == 255).sum(dim=(1, 2)) == 32 * 32).all()


def test_without_any_change_the_view_is_the_picture() -> None:
    batch = telling_batch(64, 64)
    view = weak_view(batch, AugmentConfig(mirror="none", zoom_min=1.0, zoom_max=1.0), 64, np.random.default_rng(0))
    torch.testing.assert_close(view.label_BHW, batch.label_BHW.long())
    torch.testing.assert_close(view.image_BCHW, normalise(batch.image_BCHW.float() / 255), atol=1e-4, rtol=1e-4)


def test_the_eight_turns_all_come_and_match_numpy() -> None:
    label = torch.arange(49, dtype=torch.uint8).reshape(1, 7, 7)
    batch = Batch(label.unsqueeze(1).repeat(1, 3, 1, 1), label, torch.tensor([[7, 7]]))
    config = AugmentConfig(mirror="dihedral", zoom_min=1.0, zoom_max=1.0)
    square = label[0].numpy()
    turns = {t.tobytes() for k in range(4) for t in (np.rot90(square, k), np.rot90(square.T, k))}
    seen = Counter(
        weak_view(batch, config, 7, np.random.default_rng(n)).label_BHW[0].to(torch.uint8).numpy().tobytes()
        for n in range(120)
    )
    assert set(seen) == turns
    assert min(seen.values()) >= 4


def test_zoom_steps_and_position_vary() -> None:
    batch = telling_batch(256, 256, samples=1)
    shares = [
        float((weak_view(batch, AugmentConfig(), 256, np.random.default_rng(n)).label_BHW != 255).float().mean())
        for n in range(60)
    ]
    expected = {round(min(1.0, (z / 10) ** 2), 2) for z in range(5, 17)}
    found = {min(expected, key=lambda e: abs(e - share)) for share in shares}
    assert found == expected
    assert all(min(abs(e - share) for e in expected) < 0.02 for share in shares)


def test_colour_jitter_changes_the_picture_and_not_the_label() -> None:
    batch = telling_batch(64, 64)
    plain = AugmentConfig(mirror="none", zoom_min=1.0, zoom_max=1.0)
    jittered = plain.model_copy(update={"jitter": 0.3})
    a, b = (weak_view(batch, config, 64, np.random.default_rng(0)) for config in (plain, jittered))
    assert (a.image_BCHW - b.image_BCHW).abs().mean() > 0.02
    again = weak_view(batch, jittered, 64, np.random.default_rng(0))
    torch.testing.assert_close(b.image_BCHW, again.image_BCHW)


def test_multi_scale_sides_are_few_and_reach_both_ends() -> None:
    view = View(torch.randn(2, 3, 64, 64), torch.randint(0, 7, (2, 64, 64)))
    config = AugmentConfig(scale_min=40, scale_max=90)
    sides = {resize_view(view, config, np.random.default_rng(n)).label_BHW.shape[-1] for n in range(60)}
    assert sides == {40, 56, 72, 88, 90}
    same = AugmentConfig(scale_min=48, scale_max=48)
    assert resize_view(view, same, np.random.default_rng(0)).image_BCHW.shape == (2, 3, 48, 48)


def test_processes_that_train_together_resize_to_the_same_side() -> None:
    """One that ran its two views together while another did not would wait for it for ever."""
    recipe = load_recipe("v3", [{"data": {"crop": 64}, "augment": {"scale_min": 40, "scale_max": 90}}])
    sides = []
    for rank in (0, 1):
        views = Views(recipe, torch.zeros(7, dtype=torch.bool), rank)
        branches = [views.labelled(telling_batch(64, 64), MULTI_SCALE_EVERY * n - 1) for n in range(1, 13)]
        sides.append([branch.label_BHW.shape[-1] for branch in branches])
    assert sides[0] == sides[1]
    assert len(set(sides[0])) > 1


def test_a_stream_draws_each_patch_once_before_any_again(plantation: Path) -> None:
    index = index_patches(plantation)
    stream = PatchStream(index, index.patches, None, window=16, seed=3)
    n = len(index.patches)
    orders = []
    for epoch in range(2):
        for position in range(epoch * n, (epoch + 1) * n):
            item = stream[position]
            assert isinstance(item, tuple)
            image, label = item
            assert image.shape == (16, 16, 3)
            assert (label == 0).all()  # masks are not opened
        orders.append([stream.order.draw(position, 0) for position in range(epoch * n, (epoch + 1) * n)])
        assert sorted(orders[-1]) == list(range(n))
    assert orders[0] != orders[1]


def test_a_stream_goes_on_where_another_would_be(plantation: Path) -> None:
    index = index_patches(plantation)
    labelled = [p for p in index.patches if p.mask is not None]

    def draw(first: int, steps: int, workers: int) -> list[Batch]:
        stream = PatchStream(index, labelled, SALAK, window=32, seed=1)
        found = step_batches(Steps([(stream, 0)], 2), first, steps, workers, pin_memory=False)
        return [batch for (batch,) in found if batch is not None]

    whole, rest, by_workers = draw(0, 6, 0), draw(4, 2, 0), draw(0, 6, 2)
    for a, b in [*zip(whole[4:], rest, strict=True), *zip(whole, by_workers, strict=True)]:
        assert torch.equal(a.image_BCHW, b.image_BCHW)
        assert torch.equal(a.label_BHW, b.label_BHW)
    with pytest.raises(DataError, match="no patch to train on"):
        Steps([(PatchStream(index, [], SALAK, 32, 0), 0)], 2)


def test_pictures_of_different_sizes_are_padded_with_ignore() -> None:
    items = [(np.ones((h, w, 3), np.uint8), np.ones((h, w), np.uint8)) for h, w in ((4, 9), (6, 5))]
    batch = collate(items)
    assert isinstance(batch, Batch)
    assert batch.image_BCHW.shape == (2, 3, 6, 9)
    assert batch.size_B2.tolist() == [[4, 9], [6, 5]]
    assert [(batch.label_BHW[b] == 1).sum().item() for b in range(2)] == [36, 30]
    assert (batch.label_BHW[0, 4:] == 255).all()


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50), st.integers(0, 100))
def test_windows_lie_inside_the_picture(height: int, width: int, side: int, seed: int) -> None:
    rows, cols = random_window((height, width), side, np.random.default_rng(seed))
    part = np.zeros((height, width))[rows, cols]
    assert part.shape == (min(height, side), min(width, side))
