"""Strong views: the colours of a weak view changed so far that the student has to look at shapes.

Axes: B image, C channel, H row, W column.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from salakseg.train.augment import View
from salakseg.train.colour import (
    HUE_OFFSETS,
    MEAN,
    STD,
    blur,
    change_colours,
    colour_change,
    gaussian_kernels,
    turn_hue,
)
from salakseg.train.drawing import Floats, send, spread, uniforms
from salakseg.train.settings_views import StrongConfig

SIGMA_MIN = 0.1
"""Least standard deviation of the blur in pixels."""


@torch.no_grad()
def strong_view(view: View, config: StrongConfig, generator: np.random.Generator) -> View:
    """Random brightness, contrast, saturation, hue, grey and blur of every sample, each with its probability.

    The order is fixed; UniMatch (Yang et al., CVPR 2023) shuffles the first four. Each call draws anew: call it twice
    for two strong views. The CPU does not wait for the device.

    Args:
        view: Weak view; it is left as it is.
        config: How far the changes go, and how often.
        generator: Source of everything random.

    Returns:
        The changed images with the same labels. What lies outside the picture changes its colour as well.
    """
    image_BCHW, samples = view.image_BCHW, len(view.image_BCHW)
    jittered, brightness, contrast, saturation, hue, grey, blurred, sigma = uniforms(generator, samples, 8)
    is_jittered = jittered < config.jitter_probability
    factors = [
        np.where(is_jittered, spread(unit, strength), 1.0)
        for unit, strength in (
            (brightness, config.brightness),
            (contrast, config.contrast),
            (saturation, config.saturation),
        )
    ]
    factors[2][grey < config.grey] = 0  # a picture without saturation is grey, and no turn of the hue changes it
    turn_B = np.where(is_jittered, config.hue * (2 * hue - 1), 0.0)
    change, turn, kernel, *sent = send(
        image_BCHW.device,
        [
            colour_change(factors[0], factors[1], factors[2], STD),
            turn_B,
            _kernels(blurred < config.blur, sigma, config),
            HUE_OFFSETS,
            -MEAN / STD,
            1 / STD,
        ],
    )
    hue_offsets, shift_C11, inverse_C11 = sent[0], sent[1].view(3, 1, 1), sent[2].view(3, 1, 1)
    if config.jitter_probability > 0 or config.grey > 0:
        image_BCHW = change_colours(image_BCHW, change)
        if config.hue > 0 and config.jitter_probability > 0:
            image_BCHW = turn_hue(image_BCHW, turn, hue_offsets)
        image_BCHW = torch.addcmul(shift_C11, image_BCHW, inverse_C11)
    if config.blur > 0:
        image_BCHW = blur(image_BCHW, kernel)
    return View(image_BCHW, view.label_BHW)


def _kernels(is_blurred: NDArray[np.bool_], unit: Floats, config: StrongConfig) -> Floats:
    """Blur of each sample; a deviation close to 0 gives a kernel that changes nothing."""
    sigma = SIGMA_MIN + unit * (config.blur_sigma - SIGMA_MIN)
    return gaussian_kernels(np.where(is_blurred, sigma, 1e-3), config.blur_sigma)
