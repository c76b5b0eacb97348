"""Who labels the unlabelled, and which pixels count.

Axes: B image, N head, K class, H row, W column.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from salakseg.classes import BACKGROUND, IGNORE_INDEX
from salakseg.network.heads import Logits, combine_heads, disagreement
from salakseg.train.settings_selftraining import SelfTrainingConfig
from salakseg.train.thresholds import State, Total, make_thresholds


class Target(NamedTuple):
    """What the student shall say of each pixel, and how much that counts.

    Attributes:
        label_BHW: Class ids, int64; 255 where a pixel does not count.
        weight_BHW: float32, 0 to 1; 0 where a pixel does not count.
        valid_BHW: Which pixels exist, bool.
    """

    label_BHW: Tensor
    weight_BHW: Tensor
    valid_BHW: Tensor


class Labeller:
    """Turns a network's answer into targets, and remembers how sure it is of each class.

    Args:
        config: The recipe's section.
        num_classes: Number of classes K.
        device: Where the answers lie.
        total: Sums a tensor over the processes that train together, each of which labels its own part of a batch.

    Attributes:
        thresholds: Least confidence of each class.
    """

    def __init__(
        self,
        config: SelfTrainingConfig,
        num_classes: int,
        device: torch.device,
        total: Total = lambda tensor: tensor,
    ) -> None:
        self.config = config
        self.num_classes = num_classes
        self.thresholds = make_thresholds(config, num_classes, device, total)

    @torch.no_grad()
    def label(self, logits: Logits, valid_BHW: Tensor, learn: bool = True) -> tuple[Target, dict[str, Tensor]]:
        """Targets from the labeller's answer.

        Args:
            logits: The answer.
            valid_BHW: Which pixels exist, bool; augmentation brings in some from outside the picture.
            learn: Whether the thresholds follow this answer; not so where it is only looked at.

        Returns:
            The targets, and for the log ``kept_share`` and ``kept_share_foreground`` (shares of the valid pixels that
            count at all; the second counts classes beside background only, as the field team does), ``pseudo_pixels``
            and ``kept_pixels`` [K] (valid pixels by predicted class, and those that count).
        """
        prob_BKHW = combine_heads(
            Logits(logits.heads_BNKHW.float(), logits.mean_BKHW.float()), self.config.labeller_heads
        )
        confidence_BHW, label_BHW = prob_BKHW.max(dim=1)
        if learn:
            self.thresholds.learn(confidence_BHW, label_BHW, valid_BHW)
        weight_BHW = self._weights(confidence_BHW, label_BHW) * valid_BHW
        kept_BHW = weight_BHW > 0
        if self.config.disagreement > 0:
            weight_BHW = weight_BHW * torch.exp(-self.config.disagreement * disagreement(logits.heads_BNKHW))
        target = Target(label_BHW.where(kept_BHW, IGNORE_INDEX), weight_BHW, valid_BHW)
        return target, _counts(label_BHW, kept_BHW, valid_BHW, self.num_classes)

    def state(self) -> State:
        """What it has learned about its own confidence, for the checkpoint."""
        return self.thresholds.state()

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""
        self.thresholds.load_state(state)

    def _weights(self, confidence_BHW: Tensor, label_BHW: Tensor) -> Tensor:
        threshold_BHW = self.thresholds.values_K()[label_BHW]
        # In float32 a sure network's confidence is exactly 1: a threshold of 1 keeps none all the same
        return ((confidence_BHW >= threshold_BHW) & (threshold_BHW < 1)).float()


def _counts(label_BHW: Tensor, kept_BHW: Tensor, valid_BHW: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Pixels by class, by comparison: `bincount` would wait for the device."""
    class_K111 = torch.arange(num_classes, device=label_BHW.device).view(-1, 1, 1, 1)
    mine_KBHW = label_BHW == class_K111
    pseudo_K = (mine_KBHW & valid_BHW).sum(dim=(1, 2, 3))
    kept_K = (mine_KBHW & kept_BHW).sum(dim=(1, 2, 3))
    valid = pseudo_K.sum().clamp(min=1)
    kept = kept_K.sum()
    return {
        "kept_share": kept / valid,
        "kept_share_foreground": (kept - kept_K[BACKGROUND]) / valid,
        "pseudo_pixels": pseudo_K,
        "kept_pixels": kept_K,
    }
