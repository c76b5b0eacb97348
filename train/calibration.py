"""How right the pseudo-labels are: the labeller's answer to labelled patches that nobody trains on.

Axes: B image, K class, H row, W column.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.inference import Example, to_input
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.train.pseudo import Target

Answer = Callable[[Tensor], Target]
"""Targets for normalised images [B, 3, H, W], as the student would learn them."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How many of the kept pseudo-labels are right.

    Attributes:
        matrix: Kept pixels with a label, rows = label, columns = pseudo-label.
        seen: All pixels with a label, kept or not.
    """

    matrix: ConfusionMatrix
    seen: int

    @property
    def overall(self) -> float:
        """Share of the kept pixels that are right, 0 to 1; NaN where none is kept."""
        counts_KK = self.matrix.counts
        return float(counts_KK.trace() / counts_KK.sum()) if counts_KK.any() else float("nan")

    @property
    def of_class_K(self) -> NDArray[np.float64]:
        """The same of each predicted class, float64 [K]; NaN for a class that is not predicted."""
        counts_KK = self.matrix.counts
        kept_K = counts_KK.sum(axis=0)
        right_K = np.full(len(kept_K), np.nan)
        np.divide(counts_KK.diagonal(), kept_K, out=right_K, where=kept_K > 0)
        return right_K

    @property
    def kept(self) -> float:
        """Share of the pixels with a label that are kept, 0 to 1; NaN without any."""
        return float(self.matrix.counts.sum()) / self.seen if self.seen else float("nan")


def pseudo_label_precision(
    answer: Answer, examples: Iterable[Sequence[Example]], num_classes: int, device: torch.device
) -> Precision:
    """Compares pseudo-labels with labels.

    Patches are seen whole and unchanged, which is the labeller's weak view without its random crop and scale.

    Args:
        answer: The labeller.
        examples: Labelled patches in batches of one size each.
        num_classes: K.
        device: Where the labeller works.
    """
    matrix, seen = ConfusionMatrix(num_classes), 0
    for batch in examples:
        label_BHW = np.stack([example.label_HW for example in batch])
        with torch.no_grad():
            target = answer(to_input(batch, device, IMAGENET_MEAN, IMAGENET_STD))
        pseudo_BHW = target.label_BHW.to(torch.uint8).cpu().numpy()
        kept_BHW = (pseudo_BHW != IGNORE_INDEX) & (label_BHW != IGNORE_INDEX)
        seen += int((label_BHW != IGNORE_INDEX).sum())
        matrix.update(label_BHW[kept_BHW], pseudo_BHW[kept_BHW])
    return Precision(matrix, seen)
