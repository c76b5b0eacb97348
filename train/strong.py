"""Strong views: other colours, grey, blur; what a pixel shows stays the same.

Axes: B image, C channel, H row, W column.
"""

import kornia.enhance
import kornia.filters
import numpy as np
import torch
from torch import Tensor

from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.network.model import normalise
from salakseg.train.augment import View
from salakseg.train.settings import StrongConfig


def strong_view(view: View, config: StrongConfig, generator: np.random.Generator) -> View:
    """Colours of a view changed, each sample by its own draw.

    Args:
        view: A weak view.
        config: How far the changes go.
        generator: Source of everything random.
    """
    image_BCHW = view.image_BCHW
    mean, std = (image_BCHW.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    colour_BCHW = (image_BCHW * std + mean).clamp(0, 1)
    count = len(colour_BCHW)
    draw = torch.from_numpy(generator.uniform(-1, 1, (4, count)).astype(np.float32)).to(image_BCHW.device)
    on = generator.random((3, count)) < np.array([[config.jitter_probability], [config.grey], [config.blur]])
    jittered, grey, blur = torch.from_numpy(on).to(image_BCHW.device)[:, :, None, None, None]
    changed = (colour_BCHW * (1 + config.brightness * draw[0]).view(-1, 1, 1, 1)).clamp(0, 1)
    changed = kornia.enhance.adjust_contrast_with_mean_subtraction(changed, 1 + config.contrast * draw[1])
    changed = kornia.enhance.adjust_saturation_with_gray_subtraction(changed, 1 + config.saturation * draw[2])
    changed = kornia.enhance.adjust_hue(changed, 2 * torch.pi * config.hue * draw[3])
    colour_BCHW = torch.where(jittered, changed, colour_BCHW)
    weights = colour_BCHW.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    colour_BCHW = torch.where(grey, (colour_BCHW * weights).sum(1, keepdim=True).expand_as(colour_BCHW), colour_BCHW)
    sigma = torch.from_numpy(generator.uniform(0.1, config.blur_sigma, (count, 1)).astype(np.float32))
    sigma_B2 = sigma.to(image_BCHW.device).expand(-1, 2)
    blurred: Tensor = kornia.filters.gaussian_blur2d(colour_BCHW, (13, 13), sigma_B2, border_type="reflect")
    return View(normalise(torch.where(blur, blurred, colour_BCHW)), view.label_BHW)
