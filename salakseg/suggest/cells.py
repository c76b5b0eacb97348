"""What is remembered of each picture that the network has looked at: some numbers, never its pixels.

A *cell* is one picture for the network: a patch, a window of a larger photo, or a tile of an orthomosaic.

Axes: N cells, Q bins, K class, C channel of the encoder, B image, H row, W column.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salakseg.suggest.pixels import Doubt

BINS = 32
"""Bins of the pixels' scores, 0 to 1: which scores are high is known only when all pixels have been seen."""

_WHOLE = 65535  # shares are stored in 16 bits


def cell_type(classes: int, channels: int) -> np.dtype[Any]:
    """The record of a cell.

    item and row and column (of a window in its photo; 0 for a whole picture) say which it is; pixels counts its valid
    pixels; score, disagreement, entropy and unreliability are means over them, 0 to 1; scores [Q] are shares by bin of
    the score in 1/65535; prob [K] is the mean of the probabilities; feature [C] the encoder's last map, averaged.
    """
    return np.dtype(
        [
            ("item", "<u4"),
            ("row", "<u2"),
            ("col", "<u2"),
            ("pixels", "<u4"),
            ("score", "<f4"),
            ("disagreement", "<f4"),
            ("entropy", "<f4"),
            ("unreliability", "<f4"),
            ("scores", "<u2", (BINS,)),
            ("prob", "<f2", (classes,)),
            ("feature", "<f2", (channels,)),
        ]
    )


def summarise(doubt: Doubt, valid_BHW: Tensor, feature_BC: Tensor) -> NDArray[Any]:
    """The records of a batch, without item, row and column.

    Args:
        doubt: Of its pixels.
        valid_BHW: Which pixels count, bool, on the same device.
        feature_BC: Mean features.

    Returns:
        Records [B] of `cell_type`.
    """
    weight_BHW = valid_BHW.float()
    pixels_B = weight_BHW.sum(dim=(1, 2))
    least_B = pixels_B.clamp(min=1)

    def mean(value_BHW: Tensor) -> Tensor:
        return (value_BHW * weight_BHW).sum(dim=(1, 2)) / least_B

    bin_BHW = (doubt.score_BHW * BINS).long().clamp(0, BINS - 1)  # of what is no number, anything
    count_BQ = torch.zeros(len(pixels_B), BINS, device=weight_BHW.device)
    count_BQ.scatter_add_(1, bin_BHW.flatten(1), weight_BHW.flatten(1))
    prob_BK = (doubt.prob_BKHW * weight_BHW.unsqueeze(1)).sum(dim=(2, 3)) / least_B.unsqueeze(1)
    cells = np.zeros(len(pixels_B), cell_type(prob_BK.shape[1], feature_BC.shape[1]))
    cells["pixels"] = pixels_B.cpu().numpy()
    for name in ("score", "disagreement", "entropy", "unreliability"):
        cells[name] = mean(getattr(doubt, f"{name}_BHW")).cpu().numpy()
    cells["scores"] = (count_BQ / least_B.unsqueeze(1) * _WHOLE).round().cpu().numpy()
    cells["prob"] = prob_BK.cpu().numpy()
    cells["feature"] = feature_BC.float().clamp(-6e4, 6e4).cpu().numpy()  # within half precision
    return cells


def shares_of(scores_NQ: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Shares by bin [N, Q], 0 to 1, of what `cell_type` stores."""
    return scores_NQ / _WHOLE
