"""Colours against kornia, each sample by its own amount."""

import colorsys

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salakseg.train.colour import (
    HUE_OFFSETS,
    MEAN,
    blur,
    change_colours,
    colour_change,
    gaussian_kernels,
    turn_hue,
)

ONE = np.ones(4)
HUES = torch.from_numpy(HUE_OFFSETS).float()


def picture(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Coarse colours under fine noise, float32 [4, 3, 24, 20]."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(4, 3, 6, 5, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return low + (high - low) * (0.7 * coarse + 0.3 * torch.rand(4, 3, 24, 20, generator=generator))


def changed(
    image_BCHW: torch.Tensor, brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray
) -> torch.Tensor:
    about_mean = image_BCHW - torch.from_numpy(MEAN).float().view(3, 1, 1)
    change = torch.from_numpy(colour_change(brightness, contrast, saturation, np.ones(3))).float()
    return change_colours(about_mean, change)


@pytest.mark.parametrize("which", range(3))
def test_brightness_contrast_and_saturation_are_kornias(which: int) -> None:
    image, factors = picture(), np.array([0.5, 0.9, 1.0, 1.5])
    oracle = (
        kornia.enhance.adjust_brightness_accumulative,
        kornia.enhance.adjust_contrast_with_mean_subtraction,
        kornia.enhance.adjust_saturation_with_gray_subtraction,
    )[which]
    arguments = [ONE, ONE, ONE]
    arguments[which] = factors
    expected = oracle(image, torch.from_numpy(factors).float())
    torch.testing.assert_close(changed(image, *arguments), expected, atol=1e-5, rtol=0)
    assert (expected - image).abs().amax(dim=(1, 2, 3))[[0, 1, 3]].min() > 0.03


def test_all_three_together_are_one_after_the_other() -> None:
    image = picture(0.3, 0.6)  # nothing is clipped on the way
    b, c, s = np.array([0.8, 1.1, 1.3, 1.0]), np.array([1.2, 0.7, 1.1, 0.8]), np.array([0.6, 1.3, 1.0, 0.0])
    factors = [torch.from_numpy(f).float() for f in (b, c, s)]
    expected = kornia.enhance.adjust_brightness_accumulative(image, factors[0])
    expected = kornia.enhance.adjust_contrast_with_mean_subtraction(expected, factors[1])
    expected = kornia.enhance.adjust_saturation_with_gray_subtraction(expected, factors[2])
    torch.testing.assert_close(changed(image, b, c, s), expected, atol=1e-5, rtol=0)


def test_what_one_change_pushes_out_and_the_next_brings_back_is_not_lost() -> None:
    image, factor = picture(0.3, 1.0), torch.full((4,), 1.4)
    assert kornia.enhance.adjust_contrast_with_mean_subtraction(image, factor).max() == 1
    result = changed(image, 0.6 * ONE, 1.4 * ONE, ONE)
    flat, whole = result.flatten(), image.flatten()
    assert (flat[whole > 0.95].unique().numel()) == whole[whole > 0.95].unique().numel()  # not one white


def test_no_saturation_is_kornias_grey() -> None:
    image = picture()
    grey = kornia.color.rgb_to_grayscale(image).expand_as(image)
    torch.testing.assert_close(changed(image, ONE, ONE, 0 * ONE), grey, atol=1e-5, rtol=0)
    turned = turn_hue(grey, torch.tensor([0.1, -0.2, 0.25, 0.5]), HUES)
    torch.testing.assert_close(turned, grey, atol=1e-5, rtol=0)


def test_hue_is_kornias() -> None:
    image, turns = picture(), torch.tensor([-0.25, 0.0, 0.1, 0.5])
    expected = kornia.enhance.adjust_hue(image, 2 * torch.pi * turns)
    torch.testing.assert_close(turn_hue(image, turns, HUES), expected, atol=2e-5, rtol=0)


unit = st.floats(0, 1, width=32)


@settings(max_examples=200, deadline=None)
@given(red=unit, green=unit, blue=unit, turn=st.floats(-0.5, 0.5, width=32))
def test_a_turned_colour_is_the_standard_librarys(red: float, green: float, blue: float, turn: float) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    expected = torch.tensor(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
    image = torch.tensor([red, green, blue]).view(1, 3, 1, 1)
    result = turn_hue(image, torch.tensor([turn]), HUES).flatten()
    torch.testing.assert_close(result, expected.float(), atol=1e-4, rtol=0)


def test_blur_is_kornias_for_each_sample() -> None:
    image, sigma = picture(), np.array([0.1, 0.7, 1.3, 2.0])
    kernels = gaussian_kernels(sigma, 2.0)
    assert kernels.shape == (4, 13)
    expected = kornia.filters.gaussian_blur2d(
        image, (13, 13), torch.from_numpy(sigma).float()[:, None].expand(-1, 2), border_type="reflect"
    )
    torch.testing.assert_close(blur(image, torch.from_numpy(kernels).float()), expected, atol=1e-5, rtol=0)
    assert (expected - image).abs().mean() > 0.02


def test_blur_keeps_its_precision_under_autocast() -> None:
    image, kernels = picture(), torch.from_numpy(gaussian_kernels(np.full(4, 1.5), 2.0)).float()
    expected = blur(image, kernels)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(blur(image, kernels), expected, atol=0, rtol=0)
