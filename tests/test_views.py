"""Streams of patches and the views made of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.errors import DataError
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.network.model import normalise
from salakseg.train.augment import View, resize_view, weak_view
from salakseg.train.data import Batch, PatchStream, batches, collate, random_window
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


def test_multi_scale_sides_stay_in_their_range() -> None:
    view = View(torch.randn(2, 3, 64, 64), torch.randint(0, 7, (2, 64, 64)))
    config = AugmentConfig(scale_min=40, scale_max=90)
    sides = {resize_view(view, config, np.random.default_rng(n)).label_BHW.shape[-1] for n in range(300)}
    assert min(sides) == 40
    assert max(sides) == 90


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
            assert image.shape == (3, 16, 16)
            assert (label == 0).all()  # masks are not opened
        orders.append(stream._order.tolist())
        assert sorted(orders[-1]) == list(range(n))
    assert orders[0] != orders[1]


def test_a_stream_goes_on_where_another_would_be(plantation: Path) -> None:
    index = index_patches(plantation)
    labelled = [p for p in index.patches if p.mask is not None]

    def draw(first: int, steps: int, workers: int) -> list[Batch]:
        stream = PatchStream(index, labelled, SALAK, window=32, seed=1)
        return list(batches(stream, 2, first, steps, workers, pin_memory=False))

    whole, rest, by_workers = draw(0, 6, 0), draw(4, 2, 0), draw(0, 6, 2)
    for a, b in [*zip(whole[4:], rest, strict=True), *zip(whole, by_workers, strict=True)]:
        assert torch.equal(a.image_BCHW, b.image_BCHW)
        assert torch.equal(a.label_BHW, b.label_BHW)
    with pytest.raises(DataError, match="no patch to train on"):
        batches(PatchStream(index, [], SALAK, 32, 0), 2, 0, 1, 0, pin_memory=False)


def test_pictures_of_different_sizes_are_padded_with_ignore() -> None:
    items = [(torch.ones(3, h, w, dtype=torch.uint8), torch.ones(h, w, dtype=torch.uint8)) for h, w in ((4, 9), (6, 5))]
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
