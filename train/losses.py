"""Losses of the V3 family: cross entropy, Dice and focal loss in a weighted sum.

The Dice and focal losses of segmentation-models-pytorch sum over the batch or treat classes one against the rest; the
recipe's are per image and class, and over the true class, so they stand here.

Axes: B image, K class, H row, W column. Labels hold 255 where a pixel does not count.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from salakseg.classes import IGNORE_INDEX
from salakseg.train.pseudo import Target
from salakseg.train.settings import LossConfig

_LEAST_DOUBT = 1e-6  # 1 - probability of the label


@dataclass(frozen=True, slots=True)
class LossParts:
    """The weighted sum and its terms, scalars; None for a term without weight, which is not computed."""

    total: Tensor
    ce: Tensor | None
    dice: Tensor | None
    focal: Tensor | None


def segmentation_loss(
    logits_BKHW: Tensor, label_BHW: Tensor, config: LossConfig, class_weights_K: Tensor | None
) -> LossParts:
    """The recipe's loss.

    Args:
        logits_BKHW: Logits, any float type; the loss is taken in float32.
        label_BHW: Class ids, int64, 255 where ignored.
        config: Weights of the terms.
        class_weights_K: Weights of the classes in the cross entropy, float [K], or None.

    Returns:
        Scalars; all zero, with a gradient of zero, where every pixel is ignored.
    """
    logits_BKHW = logits_BKHW.float()
    valid_BHW = label_BHW != IGNORE_INDEX
    ce = dice = focal = None
    if config.ce > 0 or config.focal > 0:
        # cross_entropy gives 0 at ignored pixels, and each pixel's term times its class weight
        nll_BHW = functional.cross_entropy(logits_BKHW, label_BHW, ignore_index=IGNORE_INDEX, reduction="none")
        if config.ce > 0:
            ce = _weighted_mean(nll_BHW, _pixel_weights(label_BHW, valid_BHW, class_weights_K))
        if config.focal > 0:
            # A pixel that is quite sure would have an infinite slope at 0 where gamma is below 1
            doubt_BHW = (-torch.expm1(-nll_BHW)).clamp(min=_LEAST_DOUBT)
            focal_BHW = config.focal_alpha * doubt_BHW**config.focal_gamma * nll_BHW
            focal = _weighted_mean(focal_BHW, valid_BHW.float())
    if config.dice > 0:
        dice = dice_loss(logits_BKHW, label_BHW)
    terms = zip((config.ce, config.dice, config.focal), (ce, dice, focal), strict=True)
    total = torch.stack([weight * term for weight, term in terms if term is not None]).sum()
    return LossParts(total, ce, dice, focal)


def pseudo_label_ce(
    logits_BKHW: Tensor, target: Target, normalise: Literal["kept", "valid"], class_weights_K: Tensor | None
) -> Tensor:
    """Cross entropy with pseudo-labels, each pixel by its weight.

    Args:
        logits_BKHW: Logits, any float type.
        target: Labels and weights.
        normalise: The sum is divided by the weights of the pixels that count, or by the number of valid pixels: few
            kept pixels then teach little (Yang et al., UniMatch).
        class_weights_K: Weights of the classes, float [K], or None.

    Returns:
        A scalar; zero, with a gradient of zero, where no pixel counts.
    """
    nll_BHW = functional.cross_entropy(
        logits_BKHW.float(), target.label_BHW, ignore_index=IGNORE_INDEX, reduction="none"
    )
    weight_BHW = target.weight_BHW
    if class_weights_K is not None:
        weight_BHW = weight_BHW * _pixel_weights(target.label_BHW, target.label_BHW != IGNORE_INDEX, class_weights_K)
    if normalise == "kept":
        return _weighted_mean(nll_BHW, weight_BHW)
    return (nll_BHW * weight_BHW).sum() / target.valid_BHW.sum().clamp(min=1)


def dice_loss(logits_BKHW: Tensor, label_BHW: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss of each image and class, averaged over all classes, absent ones too (Milletari et al. 2016).

    Per image and class 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth) over the valid pixels. An image without a
    valid pixel counts as no loss.
    """
    num_classes = logits_BKHW.shape[1]
    valid_B1HW = (label_BHW != IGNORE_INDEX).unsqueeze(1)
    prob = logits_BKHW.softmax(dim=1) * valid_B1HW
    truth = functional.one_hot(label_BHW.where(valid_B1HW[:, 0], 0), num_classes).permute(0, 3, 1, 2) * valid_B1HW
    overlap_BK = (prob * truth).sum(dim=(2, 3))
    total_BK = prob.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    return (1 - (2 * overlap_BK + smooth) / (total_BK + smooth)).mean()


def balanced_weights(class_pixels: Tensor) -> Tensor:
    """Weights by which every class has the same sum: N / (K n_k).

    Args:
        class_pixels: Labelled pixels n_k of each class, [K]; N is their sum.

    Returns:
        float32 [K]; 1 for a class without a labelled pixel, whose weight no label can ever call up.
    """
    pixels = class_pixels.double()
    weights = pixels.sum() / (len(pixels) * pixels.clamp(min=1))
    return weights.where(pixels > 0, 1.0).float()


def _pixel_weights(label_BHW: Tensor, valid_BHW: Tensor, class_weights_K: Tensor | None) -> Tensor:
    if class_weights_K is None:
        return valid_BHW.float()
    return class_weights_K[label_BHW.where(valid_BHW, 0)] * valid_BHW


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
