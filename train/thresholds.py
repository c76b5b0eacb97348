"""How sure the labeller must be of a pixel of each class for it to count.

Axes: B image, K class, C bin of confidence, H row, W column.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from salakseg.train.settings_selftraining import SelfTrainingConfig

BINS = 320
"""Bins of confidence from which `ShareThresholds` reads its thresholds."""

_BINS_PER_E = 20
"""Bins in which the doubt, 1 - confidence, falls to 1 / e. Each is 5 % of the doubt wide, as half of a sure class may
lie between 0.999 and 1; the last one ends beyond what float32 tells from 1."""

State = dict[str, Tensor]

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over the processes that train together."""


class Thresholds(Protocol):
    """Least confidence of each class."""

    def learn(self, confidence_BHW: Tensor, label_BHW: Tensor, valid_BHW: Tensor) -> None:
        """Takes note of an answer: confidence (0 to 1), predicted class (int64) and which pixels exist (bool)."""

    def values_K(self) -> Tensor:
        """The thresholds, float32, 0 to 1."""

    def state(self) -> State:
        """What was learned, for the checkpoint."""

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""


def make_thresholds(config: SelfTrainingConfig, num_classes: int, device: torch.device, total: Total) -> Thresholds:
    """The thresholds that ``keep`` names, the same in all processes.

    Raises:
        RecipeError: The recipe names thresholds for another number of classes.
    """
    if config.keep == "adaptive":
        return AdaptiveThresholds(config, num_classes, device, total)
    if config.keep == "share":
        return ShareThresholds(config, num_classes, device, total)
    return FixedThresholds(config, num_classes, device)


class FixedThresholds:
    """Those of the recipe; 1 keeps no pixel of a class."""

    def __init__(self, config: SelfTrainingConfig, num_classes: int, device: torch.device) -> None:
        values = config.threshold_of_each(num_classes) if config.enabled else [0.0] * num_classes
        self._values_K = torch.tensor(values, device=device)

    def learn(self, confidence_BHW: Tensor, label_BHW: Tensor, valid_BHW: Tensor) -> None:
        """Nothing."""

    def values_K(self) -> Tensor:
        """As the recipe has them."""
        return self._values_K

    def state(self) -> State:
        """Nothing."""
        return {}

    def load_state(self, state: State) -> None:
        """Nothing."""


class AdaptiveThresholds:
    """The moving mean of the confidence of each predicted class, between a floor and a ceiling.

    Attributes:
        mean_K: The moving mean, float32.
        seen_K: How much of it is data; it starts from nothing (Kingma and Ba's bias correction).
    """

    def __init__(self, config: SelfTrainingConfig, num_classes: int, device: torch.device, total: Total) -> None:
        self.config = config
        self._total = total
        self.mean_K = torch.zeros(num_classes, device=device)
        self.seen_K = torch.zeros(num_classes, device=device)

    def learn(self, confidence_BHW: Tensor, label_BHW: Tensor, valid_BHW: Tensor) -> None:
        """Moves the mean of the classes that this answer shows; the others stay where they were."""
        class_K111 = torch.arange(len(self.mean_K), device=label_BHW.device).view(-1, 1, 1, 1)
        mine_KBHW = ((label_BHW == class_K111) & valid_BHW & confidence_BHW.isfinite()).float()
        sums_2K = torch.stack((mine_KBHW, mine_KBHW * confidence_BHW.nan_to_num())).sum(dim=(2, 3, 4))
        count_K, sum_K = self._total(sums_2K)
        mean_K = sum_K / count_K.clamp(min=1)
        step_K = (1 - self.config.adaptive_momentum) * (count_K > 0)
        self.mean_K.lerp_(mean_K, step_K)
        self.seen_K.lerp_(torch.ones_like(self.seen_K), step_K)

    def values_K(self) -> Tensor:
        """The means between floor and ceiling."""
        mean_K = self.mean_K / self.seen_K.clamp(min=1e-6)
        return mean_K.clamp(self.config.adaptive_floor, self.config.adaptive_ceiling)

    def state(self) -> State:
        """The means."""
        return {"mean": self.mean_K, "seen": self.seen_K}

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""
        self.mean_K.copy_(state["mean"])
        self.seen_K.copy_(state["seen"])


class ShareThresholds:
    """Of every predicted class the same share, its surest pixels (class-balanced self-training, Zou et al. 2018).

    A network is surer of some classes than of others, so any threshold that they share makes the sure ones more common
    among the pseudo-labels than in its own answer, and the student that learns them, and the labeller after it, drift
    towards those. With the same share of each the classes stay as common as the labeller says they are.

    Attributes:
        histogram_KC: Moving sum of the pixels of each predicted class by confidence, float32.
    """

    def __init__(self, config: SelfTrainingConfig, num_classes: int, device: torch.device, total: Total) -> None:
        self.config = config
        self._total = total
        self.histogram_KC = torch.zeros(num_classes, BINS, device=device)

    def learn(self, confidence_BHW: Tensor, label_BHW: Tensor, valid_BHW: Tensor) -> None:
        """Moves the histograms; sums, so that an answer counts for a class by how much of it it shows."""
        known_BHW = valid_BHW & confidence_BHW.isfinite()  # a broken network is the watch's business
        step_BHW = -_BINS_PER_E * torch.log1p(-confidence_BHW.nan_to_num())
        bin_BHW = label_BHW * BINS + step_BHW.clamp(0, BINS - 1).long()
        now = torch.zeros(self.histogram_KC.numel(), device=bin_BHW.device)
        now.scatter_add_(0, bin_BHW.flatten(), known_BHW.flatten().float())  # `bincount` would wait for the device
        momentum = self.config.adaptive_momentum
        self.histogram_KC.mul_(momentum).add_(self._total(now).view_as(self.histogram_KC), alpha=1 - momentum)

    def values_K(self) -> Tensor:
        """The lower edge of the highest bin above which the share lies, so that a little more than the share is kept.

        Of a class that was never seen nothing is kept but what is as sure as float32 can tell.
        """
        tail_KC = self.histogram_KC.flip(1).cumsum(dim=1).flip(1)
        enough_KC = tail_KC >= self.config.kept_share * tail_KC[:, :1]
        lowest_K = (enough_KC.sum(dim=1) - 1).clamp(min=0)
        return -torch.expm1(lowest_K / -_BINS_PER_E)

    def state(self) -> State:
        """The histograms."""
        return {"histogram": self.histogram_KC}

    def load_state(self, state: State) -> None:
        """The reverse of `state`."""
        self.histogram_KC.copy_(state["histogram"])
