"""Masks that mix two pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import kernels

from salakseg.train.mixing import class_mask, classmix_mask, cutmix_mask, draw_partners, mix
from salakseg.train.settings_views import StrongConfig

CPU = torch.device("cpu")


def rectangle(mask_HW: torch.Tensor) -> tuple[int, int]:
    """Height and width of what is set, which must be one filled rectangle."""
    rows, columns = mask_HW.any(dim=1), mask_HW.any(dim=0)
    assert torch.equal(mask_HW, rows[:, None] & columns)
    for line in (rows, columns):
        first, last = line.nonzero()[[0, -1]].flatten().tolist()
        assert line[first : last + 1].all()
    return int(rows.sum()), int(columns.sum())


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_nobody_is_his_own_partner_and_everybody_gives_once(samples: int, seed: int) -> None:
    partner = draw_partners(samples, np.random.default_rng(seed), CPU)
    assert partner.dtype == torch.int64
    assert (partner != torch.arange(samples)).all()
    assert partner.sort().values.tolist() == list(range(samples))


def test_every_other_sample_becomes_a_partner() -> None:
    found = {int(draw_partners(5, np.random.default_rng(seed), CPU)[0]) for seed in range(80)}
    assert found == {1, 2, 3, 4}


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_cutmix_gives_rectangles_of_the_asked_area_and_ratio(size: tuple[int, int]) -> None:
    mask = cutmix_mask(size, 400, StrongConfig(), np.random.default_rng(0), CPU)
    assert mask.shape == (400, *size)
    assert mask.dtype == torch.bool
    chosen = mask.flatten(1).any(dim=1)
    assert 0.42 < chosen.float().mean() < 0.58
    sides = np.array([rectangle(m) for m in mask[chosen]])
    area, ratio = sides.prod(axis=1) / (size[0] * size[1]), sides[:, 0] / sides[:, 1]
    assert 0.017 < area.min() < 0.04
    assert 0.36 < area.max() < 0.42
    assert 1 / 3.8 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 3.8
    assert 0.1 < (ratio > 1).mean() < 0.9
    places = mask[chosen].float().mean(dim=0)
    assert places[0].mean() > 0  # up to the very edges
    assert places[:, -1].mean() > 0


def test_cutmix_fits_the_view_even_if_nearly_all_of_it_is_asked_for() -> None:
    config = StrongConfig(cutmix_area_min=0.95, cutmix_area_max=1.0, cutmix_probability=1.0)
    mask = cutmix_mask((32, 32), 50, config, np.random.default_rng(0), CPU)
    assert mask.float().mean(dim=(1, 2)).min() > 0.9


def test_cutmix_can_be_had_always_or_never() -> None:
    for share in (0.0, 1.0):
        mask = cutmix_mask((32, 32), 50, StrongConfig(cutmix_probability=share), np.random.default_rng(0), CPU)
        assert (mask.flatten(1).any(dim=1) == bool(share)).all()


def striped_label() -> torch.Tensor:
    """Five samples with 0, 1, 2, 3 and 7 classes and some ignored pixels, int64 [5, 16, 16]."""
    label = torch.full((5, 16, 16), 255)
    for b, classes in enumerate(([], [4], [0, 6], [1, 2, 5], list(range(7)))):
        for n, k in enumerate(classes):
            label[b, 2 * n : 2 * n + 2] = k
    return label


def test_classmix_takes_whole_classes_half_of_those_that_are_there() -> None:
    label = striped_label()
    seen: list[set[int]] = [set() for _ in label]
    for seed in range(60):
        mask = classmix_mask(label, 7, np.random.default_rng(seed))
        assert not mask[label == 255].any()
        for b, expected in enumerate((0, 1, 1, 2, 4)):
            taken = set(label[b][mask[b]].tolist())
            left = set(label[b][~mask[b]].tolist()) - {255}
            assert len(taken) == expected
            assert not taken & left
            seen[b] |= taken
    assert seen == [set(), {4}, {0, 6}, {1, 2, 5}, set(range(7))]


def test_chosen_classes_and_never_ignored_pixels() -> None:
    label = striped_label()
    mask = class_mask(label, torch.tensor([True, False, False, False, False, True, False]))
    assert torch.equal(mask, (label == 0) | (label == 5))
    everything = class_mask(label, torch.ones(256, dtype=torch.bool)[:7])
    assert torch.equal(everything, label != 255)


def test_image_label_and_weight_are_mixed_by_the_same_mask() -> None:
    mask = cutmix_mask((32, 32), 4, StrongConfig(cutmix_probability=1.0), np.random.default_rng(0), CPU)
    partner = draw_partners(4, np.random.default_rng(1), CPU)
    label = torch.arange(4).view(4, 1, 1).expand(4, 32, 32)
    image, weight = label.unsqueeze(1).repeat(1, 3, 1, 1).float(), label.float() / 8
    mixed_image, mixed_label, mixed_weight = (mix(t, t[partner], mask) for t in (image, label, weight))
    own = torch.arange(4).view(4, 1, 1)
    assert torch.equal(mixed_label, torch.where(mask, partner.view(4, 1, 1), own))
    assert torch.equal(mixed_image, mixed_label.unsqueeze(1).expand(-1, 3, -1, -1).float())
    assert torch.equal(mixed_weight, mixed_label.float() / 8)
    assert mixed_label.dtype == torch.int64


def test_half_a_batch_twice_is_the_batch() -> None:
    label = striped_label()
    whole, halves = np.random.default_rng(3), np.random.default_rng(3)
    parts = [classmix_mask(label[:2], 7, halves), classmix_mask(label[2:], 7, halves)]
    assert torch.equal(torch.cat(parts), classmix_mask(label, 7, whole))
    config = StrongConfig()
    parts = [cutmix_mask((32, 32), n, config, halves, CPU) for n in (3, 7)]
    assert torch.equal(torch.cat(parts), cutmix_mask((32, 32), 10, config, whole, CPU))


def test_masks_take_few_kernels() -> None:
    label = striped_label()
    assert len(kernels(lambda: cutmix_mask((32, 32), 8, StrongConfig(), np.random.default_rng(0), CPU))) <= 12
    assert len(kernels(lambda: classmix_mask(label, 7, np.random.default_rng(0)))) <= 18
