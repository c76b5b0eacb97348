"""Pieces of one picture in another: CutMix and ClassMix masks, and mixing by a mask.

Axes: B image, C channel, K class, H row, W column.
"""

import numpy as np
import torch
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.train.settings import StrongConfig


def draw_partners(count: int, generator: np.random.Generator, device: torch.device) -> Tensor:
    """For each of at least two images another one, int64 [B]: the images in a random circle."""
    order = generator.permutation(count)
    partner = np.empty(count, np.int64)
    partner[order] = np.roll(order, 1)
    return torch.from_numpy(partner).to(device, non_blocking=True)


def cutmix_mask(
    size: tuple[int, int], count: int, config: StrongConfig, generator: np.random.Generator, device: torch.device
) -> Tensor:
    """A rectangle in some of the images, bool [B, H, W] (Yun et al., CutMix; sizes as in UniMatch)."""
    height, width = size
    area = generator.uniform(config.cutmix_area_min, config.cutmix_area_max, count) * height * width
    aspect = np.exp(generator.uniform(-np.log(config.cutmix_aspect), np.log(config.cutmix_aspect), count))
    h = np.minimum(np.sqrt(area * aspect), height) * (generator.random(count) < config.cutmix_probability)
    w = np.minimum(np.sqrt(area / aspect), width)
    top, left = generator.random(count) * (height - h), generator.random(count) * (width - w)
    edges = torch.from_numpy(np.stack([top, top + h, left, left + w]).astype(np.float32))[:, :, None, None]
    first_y, end_y, first_x, end_x = edges.to(device, non_blocking=True)
    y = torch.arange(height, device=device).view(1, -1, 1)
    x = torch.arange(width, device=device).view(1, 1, -1)
    mask_BHW: Tensor = (y >= first_y) & (y < end_y) & (x >= first_x) & (x < end_x)
    return mask_BHW


def classmix_mask(label_BHW: Tensor, num_classes: int, generator: np.random.Generator) -> Tensor:
    """The pixels of half of the classes, drawn for each image, bool [B, H, W] (Olsson et al., ClassMix)."""
    rank = generator.random((len(label_BHW), num_classes)).argsort(axis=1).argsort(axis=1)
    chosen_BK = torch.from_numpy(rank < (num_classes + 1) // 2).to(label_BHW.device, non_blocking=True)
    known_BHW = label_BHW != IGNORE_INDEX
    index = label_BHW.where(known_BHW, 0).flatten(1)
    return chosen_BK.gather(1, index).view_as(label_BHW) & known_BHW


def class_mask(label_BHW: Tensor, classes_K: Tensor) -> Tensor:
    """The pixels of some classes, bool [B, H, W]."""
    known_BHW = label_BHW != IGNORE_INDEX
    return classes_K[label_BHW.where(known_BHW, 0)] & known_BHW


def mix(target: Tensor, source: Tensor, mask_BHW: Tensor) -> Tensor:
    """Takes the source where the mask is set; for images [B, C, H, W] and for maps [B, H, W]."""
    return torch.where(mask_BHW.unsqueeze(1) if target.ndim == 4 else mask_BHW, source, target)
