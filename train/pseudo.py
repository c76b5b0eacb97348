"""Who labels the unlabelled, and which pixels count.

Axes: B image, N head, K class, H row, W column.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from salakseg.classes import BACKGROUND, IGNORE_INDEX
from salakseg.network.heads import Logits, combine_heads, disagreement
from salakseg.train.settings_selftraining import SelfTrainingConfig


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

    Attributes:
        thresholds_K: Least confidence of each class in ``fixed``, float32, 0 to 1; 1 keeps none.
        mean_K: Moving mean of the confidence of the pixels of each predicted class, float32.
        seen_K: How much of this mean is data; it starts from nothing (Kingma and Ba's bias correction).
    """

    def __init__(self, config: SelfTrainingConfig, num_classes: int, device: torch.device) -> None:
        self.config = config
        thresholds = config.threshold_of_each(num_classes) if config.enabled else [0.0] * num_classes
        self.thresholds_K = torch.tensor(thresholds, device=device)
        self.mean_K = torch.zeros(num_classes, device=device)
        self.seen_K = torch.zeros(num_classes, device=device)

    @torch.no_grad()
    def label(self, logits: Logits, valid_BHW: Tensor, learn: bool = True) -> tuple[Target, dict[str, Tensor]]:
        """Targets from the labeller's answer.

        Args:
            logits: The answer.
            valid_BHW: Which pixels exist, bool; augmentation brings in some from outside the picture.
            learn: Whether the moving mean follows this answer; not so where it is only looked at.

        Returns:
            The targets, and for the log ``kept_share`` and ``kept_share_foreground`` (shares of the valid pixels that
            count at all; the second counts classes beside background only, as the field team does), ``pseudo_pixels``
            and ``kept_pixels`` [K] (valid pixels by predicted class, and those that count).
        """
        prob_BKHW = combine_heads(
            Logits(logits.heads_BNKHW.float(), logits.mean_BKHW.float()), self.config.labeller_heads
        )
        confidence_BHW, label_BHW = prob_BKHW.max(dim=1)
        if learn and self.config.keep != "fixed":
            self._learn(confidence_BHW, label_BHW, valid_BHW)
        weight_BHW = self._weights(confidence_BHW, label_BHW) * valid_BHW
        kept_BHW = weight_BHW > 0
        if self.config.disagreement > 0:
            weight_BHW = weight_BHW * torch.exp(-self.config.disagreement * disagreement(logits.heads_BNKHW))
        target = Target(label_BHW.where(kept_BHW, IGNORE_INDEX), weight_BHW, valid_BHW)
        return target, _counts(label_BHW, kept_BHW, valid_BHW, len(self.thresholds_K))

    def state(self) -> dict[str, Tensor]:
        """What it has learned about its own confidence, for the checkpoint."""
        return {"mean": self.mean_K, "seen": self.seen_K}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`."""
        self.mean_K.copy_(state["mean"])
        self.seen_K.copy_(state["seen"])

    def _weights(self, confidence_BHW: Tensor, label_BHW: Tensor) -> Tensor:
        threshold_K = self.thresholds_K
        if self.config.keep == "adaptive":
            mean_K = self.mean_K / self.seen_K.clamp(min=1e-6)
            threshold_K = mean_K.clamp(self.config.adaptive_floor, self.config.adaptive_ceiling)
        threshold_BHW = threshold_K[label_BHW]
        # In float32 a sure network's confidence is exactly 1: a threshold of 1 keeps none all the same
        return ((confidence_BHW >= threshold_BHW) & (threshold_BHW < 1)).float()

    def _learn(self, confidence_BHW: Tensor, label_BHW: Tensor, valid_BHW: Tensor) -> None:
        """Moves the mean of the classes that this batch shows; the others stay where they were."""
        class_K111 = torch.arange(len(self.mean_K), device=label_BHW.device).view(-1, 1, 1, 1)
        mine_KBHW = ((label_BHW == class_K111) & valid_BHW).float()
        count_K = mine_KBHW.sum(dim=(1, 2, 3))
        mean_K = (mine_KBHW * confidence_BHW).sum(dim=(1, 2, 3)) / count_K.clamp(min=1)
        step_K = (1 - self.config.adaptive_momentum) * (count_K > 0)
        self.mean_K.lerp_(mean_K, step_K)
        self.seen_K.lerp_(torch.ones_like(self.seen_K), step_K)


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
