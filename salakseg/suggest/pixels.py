"""How doubtful a network's answer is at each pixel.

Axes: B image, N head, K class, H row, W column.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salakseg.network.heads import Logits, disagreement, most_probable


class Doubt(NamedTuple):
    """Doubt at each pixel, float32 [B, H, W], 0 to 1 each.

    Attributes:
        score_BHW: The mean of the parts that can be measured.
        disagreement_BHW: Jensen-Shannon distance of the heads: the square root of their divergence over its greatest
            value, ln N (Endres and Schindelin 2003: the root is a metric); 0 for a single head.
        entropy_BHW: Entropy of the mean of the heads' probabilities over its greatest value, ln K.
        unreliability_BHW: 1 minus the precision that the predicted class had on validation; 0 where nobody measured.
        label_BHW: The predicted class, int64.
        prob_BKHW: The mean of the heads' probabilities.
    """

    score_BHW: Tensor
    disagreement_BHW: Tensor
    entropy_BHW: Tensor
    unreliability_BHW: Tensor
    label_BHW: Tensor
    prob_BKHW: Tensor


def doubt_of(logits: Logits, precision_K: Sequence[float] | None = None) -> Doubt:
    """Measures doubt.

    The score is the plain mean of disagreement, entropy and unreliability. A part that cannot be measured is left out
    of it: disagreement where there is one head, unreliability without `precision_K`.

    Args:
        logits: The network's answer.
        precision_K: See `precision_of`.
    """
    heads_BNKHW = logits.heads_BNKHW.float()
    prob_BKHW = heads_BNKHW.softmax(dim=2).mean(dim=1)
    heads, classes = heads_BNKHW.shape[1:3]
    entropy_BHW = (torch.special.entr(prob_BKHW).sum(dim=1) / np.log(classes)).clamp(0, 1)
    label_BHW = most_probable(prob_BKHW, 1)
    parts = [entropy_BHW]
    apart_BHW = torch.zeros_like(entropy_BHW)
    if heads > 1:
        apart_BHW = (disagreement(heads_BNKHW) / np.log(heads)).sqrt().clamp(0, 1)
        parts.append(apart_BHW)
    unreliable_BHW = torch.zeros_like(entropy_BHW)
    if precision_K is not None:
        unreliable_BHW = (1 - entropy_BHW.new_tensor(precision_K))[label_BHW]
        parts.append(unreliable_BHW)
    score_BHW = torch.stack(parts).mean(dim=0)
    return Doubt(score_BHW, apart_BHW, entropy_BHW, unreliable_BHW, label_BHW, prob_BKHW)


def precision_of(matrix_KK: NDArray[np.int64]) -> tuple[float, ...]:
    """Precision of each predicted class, 0 to 1; 0 for a class that was never predicted: nothing speaks for it.

    Args:
        matrix_KK: Confusion matrix, rows = truth, columns = prediction.
    """
    predicted_K = matrix_KK.sum(axis=0)
    precision_K = np.diag(matrix_KK) / np.maximum(predicted_K, 1)
    return tuple(float(value) for value in precision_K)


def rarity_of(matrix_KK: NDArray[np.int64], background: int = 0) -> NDArray[np.float64]:
    """How rare each class is among the labels [K], 0 for the most frequent one, towards 1 for one that hardly occurs.

    1 - sqrt(share / greatest share). Background has 0, how rare it may be: more of it teaches nothing.

    Args:
        matrix_KK: Confusion matrix, rows = truth.
        background: Id of the background.
    """
    truth_K = matrix_KK.sum(axis=1).astype(np.float64)
    foreground_K = np.delete(truth_K, background)
    rarity_K: NDArray[np.float64] = 1 - np.sqrt(np.minimum(truth_K / max(foreground_K.max(initial=0), 1), 1))
    rarity_K[background] = 0
    return rarity_K
