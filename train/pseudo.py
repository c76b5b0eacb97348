"""Who labels the unlabelled, and which pixels count.

Axes: B image, K class, H row, W column.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from salakseg.classes import BACKGROUND, IGNORE_INDEX
from salakseg.network.heads import Logits


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Labels that a network gave.

    Attributes:
        label_BHW: Class ids, int64; 255 where the labeller was not sure enough or the pixel is not valid.
        kept_share: Share of the valid pixels that were kept, scalar, 0 to 1.
        kept_share_foreground: The same, counting kept pixels of the classes beside background only, as the field team
            does; its bands are shares of all pixels of a batch, of which the valid ones can be fewer.
    """

    label_BHW: Tensor
    kept_share: Tensor
    kept_share_foreground: Tensor


@torch.no_grad()
def pseudo_labels(logits: Logits, thresholds_K: Tensor, valid_BHW: Tensor) -> PseudoLabels:
    """Labels pixels whose confidence reaches the threshold of the predicted class.

    Args:
        logits: Of the labeller; the mean of its heads' probabilities decides.
        thresholds_K: Least confidence of each class, float [K], 0 to 1; 1 keeps none, although a sure network's
            confidence is rounded to exactly 1.
        valid_BHW: Which pixels exist, bool; augmentation brings in some from outside the picture.
    """
    prob_BKHW = logits.heads_BNKHW.float().softmax(dim=2).mean(dim=1)
    confidence_BHW, label_BHW = prob_BKHW.max(dim=1)
    threshold_BHW = thresholds_K[label_BHW]
    kept_BHW = (confidence_BHW >= threshold_BHW) & (threshold_BHW < 1) & valid_BHW
    valid_count = valid_BHW.sum().clamp(min=1)
    foreground_BHW = kept_BHW & (label_BHW != BACKGROUND)
    return PseudoLabels(
        label_BHW.where(kept_BHW, IGNORE_INDEX),
        kept_BHW.sum() / valid_count,
        foreground_BHW.sum() / valid_count,
    )
