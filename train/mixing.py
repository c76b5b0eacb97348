"""Mixing two views: part of the pixels of one, the rest of the other, images and labels alike.

Which pixels is a mask; a mask is a rectangle (CutMix), some of the classes of the source (ClassMix), or chosen classes.

Axes: B image, C channel, H row, W column, K class.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from salakseg.train.drawing import send, uniforms
from salakseg.train.settings_views import StrongConfig

_IDS = 256  # values of a label


def draw_partners(samples: int, generator: np.random.Generator, device: torch.device) -> Tensor:
    """For each sample another one of the batch as the source, int64 [B]; nobody is his own, unless alone.

    A random cycle through the batch: everybody also gives exactly once.
    """
    order = generator.permutation(samples)
    partner_B = np.empty(samples)
    partner_B[order] = np.roll(order, 1)
    return send(device, [partner_B])[0].long()


def mix(target: Tensor, source: Tensor, mask_BHW: Tensor) -> Tensor:
    """The source where the mask is set, else the target.

    Args:
        target: Images [B, C, H, W], or labels or weights [B, H, W].
        source: The same shape and dtype: another view, or ``target[draw_partners(...)]``.
        mask_BHW: Bool.
    """
    return torch.where(mask_BHW if target.ndim == 3 else mask_BHW.unsqueeze(1), source, target)


def cutmix_mask(
    size: tuple[int, int], batch: int, config: StrongConfig, generator: np.random.Generator, device: torch.device
) -> Tensor:
    """CutMix (Yun et al., ICCV 2019): one rectangle a sample, or nothing.

    The area is drawn evenly, the ratio of height to width evenly on a logarithmic scale as far as the rectangle fits,
    its place evenly among those inside.

    Args:
        size: Height and width of the view.
        batch: Number of samples.
        config: Share of the samples, area, and ratio of the sides.
        generator: Source of everything random.
        device: Where the mask is wanted.

    Returns:
        Bool [B, H, W].
    """
    height, width = size
    chosen, area, aspect, row, column = uniforms(generator, batch, 5)
    pixels = height * width * (config.cutmix_area_min + area * (config.cutmix_area_max - config.cutmix_area_min))
    fitting = (pixels / width**2, height**2 / pixels)
    low, high = (np.log(np.clip(limit, *fitting)) for limit in (1 / config.cutmix_aspect, config.cutmix_aspect))
    ratio = np.exp(low + aspect * (high - low))
    # Rounding up to whole pixels may not leave the view
    rows = np.clip(np.round(np.sqrt(pixels * ratio)), 1, height) * (chosen < config.cutmix_probability)
    columns = np.clip(np.round(np.sqrt(pixels / ratio)), 1, width)
    top, left = np.floor(row * (height - rows + 1)), np.floor(column * (width - columns + 1))
    bounds = send(device, [np.stack([top, top + rows, left, left + columns])])[0].view(4, batch, 1)
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    inside_rows_BH = (y >= bounds[0]) & (y < bounds[1])
    inside_columns_BW = (x >= bounds[2]) & (x < bounds[3])
    return inside_rows_BH.unsqueeze(2) & inside_columns_BW.unsqueeze(1)


def classmix_mask(label_BHW: Tensor, num_classes: int, generator: np.random.Generator) -> Tensor:
    """ClassMix (Olsson et al., WACV 2021): the pixels of half of the classes that each source shows.

    Args:
        label_BHW: (Pseudo-)labels of the sources, int64, 255 where ignored: such pixels are never part of the mask.
        num_classes: Labels are below it.
        generator: Source of everything random.

    Returns:
        Bool [B, H, W]; of an odd number of classes the larger half.
    """
    samples, ids_BP = len(label_BHW), label_BHW.flatten(1)
    lot_BK = send(label_BHW.device, [generator.random((samples, num_classes))])[0]
    present_BI = torch.zeros((samples, _IDS), dtype=torch.bool, device=label_BHW.device).scatter_(1, ids_BP, True)
    present_BK = present_BI[:, :num_classes]
    lot_BK = lot_BK.where(present_BK, 2.0)  # absent classes draw blanks, above every lot; the lowest lots win
    last_B1 = present_BK.sum(dim=1, keepdim=True).sub_(1).clamp_(min=0).bitwise_right_shift_(1)
    highest_B1 = lot_BK.sort(dim=1).values.gather(1, last_B1)
    wins_BK = lot_BK <= highest_B1
    return functional.pad(wins_BK, (0, _IDS - num_classes)).gather(1, ids_BP).view_as(label_BHW)


def class_mask(label_BHW: Tensor, classes_K: Tensor) -> Tensor:
    """The pixels of some classes, bool [B, H, W], for instance to paste rare ones into unlabelled views.

    Args:
        label_BHW: Labels of the source, int64, 255 where ignored: never part of the mask.
        classes_K: Which classes, bool, on the same device.
    """
    return functional.pad(classes_K, (0, _IDS - len(classes_K)))[label_BHW]
