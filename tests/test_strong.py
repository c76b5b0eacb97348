"""Strong views: how often, how far, and what they leave alone."""

from functools import partial

import kornia
import numpy as np
import pytest
import torch
from kernels import kernels

from salakseg.errors import RecipeError
from salakseg.train.augment import View
from salakseg.train.colour import MEAN, STD
from salakseg.train.recipe import load_recipe, parse_setting
from salakseg.train.settings_views import StrongConfig
from salakseg.train.strong import strong_view

SHIFT, SCALE = (torch.from_numpy(v).float().view(3, 1, 1) for v in (MEAN, STD))
NOTHING = {"jitter_probability": 0.0, "grey": 0.0, "blur": 0.0}


def weak(samples: int = 4, side: int = 32) -> View:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(samples, 3, side, side, generator=generator)
    image[:, :, :, side // 2 :] *= torch.rand(samples, 3, 1, 1, generator=generator)
    return View((image - SHIFT) / SCALE, torch.randint(0, 7, (samples, side, side), generator=generator))


def colours(view: View) -> torch.Tensor:
    return view.image_BCHW * SCALE + SHIFT


def made(view: View, **settings: float) -> View:
    return strong_view(view, StrongConfig.model_validate(NOTHING | settings), np.random.default_rng(0))


def test_two_strong_views_differ_and_labels_and_the_weak_view_stay() -> None:
    view, generator = weak(), np.random.default_rng(0)
    before = view.image_BCHW.clone()
    a, b = (strong_view(view, StrongConfig(), generator) for _ in range(2))
    assert ((a.image_BCHW - b.image_BCHW).abs().mean(dim=(1, 2, 3)) > 0.05).all()
    assert torch.equal(a.label_BHW, view.label_BHW)
    assert torch.equal(view.image_BCHW, before)
    again = strong_view(view, StrongConfig(), np.random.default_rng(0))
    assert torch.equal(a.image_BCHW, again.image_BCHW)
    assert a.image_BCHW.dtype == torch.float32
    assert colours(a).min() > -1e-5
    assert colours(a).max() < 1 + 1e-5


def test_nothing_switched_on_changes_nothing() -> None:
    view = weak()
    assert made(view).image_BCHW is view.image_BCHW


@pytest.mark.parametrize(
    ("setting", "share"), [("jitter_probability", 0.8), ("grey", 0.2), ("blur", 0.5)], ids=["jitter", "grey", "blur"]
)
def test_each_change_comes_as_often_as_it_should(setting: str, share: float) -> None:
    view = weak(samples=400, side=14)
    result = made(view, **{setting: share})
    difference = (result.image_BCHW - view.image_BCHW).abs().amax(dim=(1, 2, 3))
    assert abs(float((difference > 1e-2).float().mean()) - share) < 0.08  # three standard deviations
    assert abs(float((difference < 1e-5).float().mean()) - (1 - share)) < 0.1  # the others are left as they are


def test_grey_pictures_have_no_colour_even_when_their_hue_is_turned() -> None:
    result = colours(made(weak(), grey=1.0, jitter_probability=1.0))
    torch.testing.assert_close(result[:, 0], result[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(result[:, 0], result[:, 2], atol=1e-5, rtol=0)
    alone = colours(made(weak(), grey=1.0))
    torch.testing.assert_close(alone[:, :1], kornia.color.rgb_to_grayscale(colours(weak())), atol=1e-5, rtol=0)


@pytest.mark.parametrize("setting", ["brightness", "contrast", "saturation", "hue"])
def test_the_change_of_each_colour_setting_grows_with_it(setting: str) -> None:
    view = weak(samples=16)
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "jitter_probability": 1.0}
    still, little, much = (made(view, **(off | {setting: v})).image_BCHW - view.image_BCHW for v in (0.0, 0.05, 0.25))
    assert still.abs().max() < 1e-4
    assert 0.003 < little.abs().mean() < much.abs().mean()


def test_brightness_reaches_both_ends_of_its_range_and_no_further() -> None:
    image = torch.full((500, 3, 16, 16), 0.5)
    view = View((image - SHIFT) / SCALE, torch.zeros(500, 16, 16, dtype=torch.int64))
    off = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0, "jitter_probability": 1.0}
    factors = colours(made(view, brightness=0.5, **off)).mean(dim=(1, 2, 3)) / 0.5
    assert 0.5 <= factors.min() + 1e-5 < 0.53
    assert 1.47 < factors.max() <= 1.5 + 1e-5


def test_a_stronger_blur_leaves_less_detail() -> None:
    view = weak(samples=64)
    soft, softer = (made(view, blur=1.0, blur_sigma=sigma).image_BCHW.std(dim=(2, 3)).mean() for sigma in (0.5, 4.0))
    assert softer < soft < view.image_BCHW.std(dim=(2, 3)).mean()


def test_half_a_batch_twice_is_the_batch() -> None:
    view, whole, halves = weak(6), np.random.default_rng(4), np.random.default_rng(4)
    expected = strong_view(view, StrongConfig(), whole).image_BCHW
    parts = [
        strong_view(View(view.image_BCHW[p], view.label_BHW[p]), StrongConfig(), halves).image_BCHW
        for p in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-6, rtol=0)


def test_a_batch_takes_few_kernels() -> None:
    few, many = (
        len(kernels(partial(strong_view, weak(samples), StrongConfig(), np.random.default_rng(0))))
        for samples in (2, 8)
    )
    assert few == many <= 45


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("strong.cutmix_area_min=0.5", "cutmix_area_min 0.5 is above cutmix_area_max 0.4"),
        ("strong.blur_sigma=40", "strong.blur_sigma"),
        ("strong.hue=0.7", "strong.hue"),
        ("augment.rotation=200", "augment.rotation"),
    ],
)
def test_impossible_settings_are_named(setting: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        load_recipe("v3", [parse_setting(setting)])
