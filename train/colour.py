"""Photometric changes of a batch, each sample by its own amount, in few kernels.

Brightness, contrast and saturation are linear and their order does not matter: together they are one matrix a sample,
made on the CPU. Where other libraries clip the colours after each of the three, here they are clipped once, at the end:
light that one change pushes out and another brings back is not lost.

Axes: B image, C channel, H row, W column.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.train.drawing import Floats

MEAN = np.array(IMAGENET_MEAN)
STD = np.array(IMAGENET_STD)
LUMA = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in a pixel's grey, by ITU-R BT.601."""


def colour_change(brightness_B: Floats, contrast_B: Floats, saturation_B: Floats, unit_C: Floats) -> Floats:
    """What brightness, then contrast, then saturation do to a picture, for `change_colours`.

    With x from 0 to 1, g(x) its luma and m the luma's mean over the picture: brightness b gives b x; contrast c gives
    c x + (1 - c) m; saturation s gives s x + (1 - s) g(x). These are the operations of torchvision's ColorJitter and of
    kornia's ``adjust_contrast_with_mean_subtraction`` and ``adjust_saturation_with_gray_subtraction``.

    Args:
        brightness_B: Factors; 1 changes nothing.
        contrast_B: The same; 0 leaves one grey.
        saturation_B: The same; 0 leaves greys.
        unit_C: What 1 stands for in the picture's channels, on the scale from 0 to 1. Its 0 stands for the mean colour.

    Returns:
        Array [B, 3, 7]: matrix on the pixel, matrix on the picture's mean colour, constant; to the scale from 0 to 1.
    """
    grey_CC = np.tile(LUMA, (3, 1))
    brightness, contrast, saturation = (f[:, None, None] for f in (brightness_B, contrast_B, saturation_B))
    pixel_BCC = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * grey_CC)
    mean_BCC = (1 - contrast) * brightness * grey_CC
    constant_BC = (pixel_BCC + mean_BCC) @ MEAN
    return np.concatenate([pixel_BCC * unit_C, mean_BCC * unit_C, constant_BC[..., None]], axis=2)


def change_colours(image_BCHW: Tensor, change_BC7: Tensor) -> Tensor:
    """Applies `colour_change`; the result is from 0 to 1, clipped.

    Sums of products and no matrix product: that would be rounded to ten bits where TF32 or autocast is on.
    """
    mean_B1C = image_BCHW.mean(dim=(2, 3)).unsqueeze(1)
    constant_BC = (change_BC7[:, :, 3:6] * mean_B1C).sum(dim=2).add_(change_BC7[:, :, 6])
    change = change_BC7[..., None, None]
    red, green, blue = image_BCHW.split(1, dim=1)
    out_BCHW = torch.addcmul(constant_BC[..., None, None], red, change[:, :, 0])
    return out_BCHW.addcmul_(green, change[:, :, 1]).addcmul_(blue, change[:, :, 2]).clamp_(0, 1)


def turn_hue(image_BCHW: Tensor, turn_B: Tensor, offsets_2C: Tensor) -> Tensor:
    """Turns the hue of a picture, keeping value and chroma of the HSV hexcone (Smith 1978).

    Args:
        image_BCHW: From 0 to 1.
        turn_B: Share of the colour circle.
        offsets_2C: `HUE_OFFSETS` on the device.
    """
    value_B1HW, low_B1HW = image_BCHW.amax(dim=1, keepdim=True), image_BCHW.amin(dim=1, keepdim=True)
    chroma_B1HW = value_B1HW - low_B1HW
    # In sixths of the circle, once for each channel as the greatest; the hue of a grey pixel does not matter below
    difference_BCHW = image_BCHW.roll(-1, dims=1).sub_(image_BCHW.roll(-2, dims=1))
    sector_11C, corner_11C = offsets_2C.view(2, 1, 3, 1, 1)
    hue_BCHW = difference_BCHW.div_(chroma_B1HW.clamp(min=1e-6)).add_(sector_11C)
    is_red_B1HW, is_green_B1HW, _ = (image_BCHW == value_B1HW).split(1, dim=1)
    red, green, blue = hue_BCHW.split(1, dim=1)
    hue_B1HW = torch.where(is_red_B1HW, red, torch.where(is_green_B1HW, green, blue))
    # Back: a channel lacks chroma by how far the hue is from that channel's corner of the hexagon, in one to two sixths
    away_BCHW = (hue_B1HW + (6 * turn_B.view(-1, 1, 1, 1) + corner_11C)).remainder_(6).sub_(3).abs_()
    return torch.addcmul(value_B1HW, chroma_B1HW, away_BCHW.neg_().add_(2).clamp_(0, 1), value=-1)


HUE_OFFSETS = np.array([[0.0, 2.0, 4.0], [6.0, 4.0, 2.0]])
"""Sixths of the circle: where red, green and blue lie, and what turns the hue opposite each of them to 3."""


def gaussian_kernels(sigma_B: Floats, largest: float) -> NDArray[np.float64]:
    """One-dimensional Gaussians [B, taps] that sum to 1, cut off at three times the ``largest`` deviation."""
    reach = np.arange(-math.ceil(3 * largest), math.ceil(3 * largest) + 1)
    weights = np.exp(-(reach**2) / (2 * sigma_B[:, None] ** 2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def blur(image_BCHW: Tensor, kernel_BT: Tensor) -> Tensor:
    """Blurs each sample by its own kernel, first along the rows and then along the columns; the edges are mirrored."""
    samples, channels, height, width = image_BCHW.shape
    taps = kernel_BT.shape[1]
    planes = image_BCHW.reshape(1, samples * channels, height, width)
    planes = functional.pad(planes, (taps // 2,) * 4, mode="reflect")
    kernels = kernel_BT.unsqueeze(1).expand(samples, channels, taps).reshape(-1, taps)
    with torch.autocast(image_BCHW.device.type, enabled=False):
        planes = functional.conv2d(planes, kernels.view(-1, 1, 1, taps), groups=samples * channels)
        planes = functional.conv2d(planes, kernels.view(-1, 1, taps, 1), groups=samples * channels)
    return planes.view(image_BCHW.shape)
