"""Whether 80 % confidence means right in 80 % of the cases, and the temperature that makes it so.

Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks": the expected calibration error over 15
bins of the highest probability (equation 3), and temperature scaling (section 4.2) by the likelihood of labels.

Axes: B image, N head, K class, H row, W column, S sampled pixel, P photo, R replicate.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.evaluate.bootstrap import Interval, interval_of
from salakseg.evaluate.formats import finite_or_none, list_or_none
from salakseg.network.heads import Logits, combine_heads

_SAMPLE = 200_000  # pixels that a temperature is fitted on: its error is then far below a hundredth
COLDEST, HOTTEST = 0.05, 20.0
"""Range in which a temperature is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The reliability of the report's variant.

    Attributes:
        confidence: [15] mean confidence of the pixels in each bin; NaN in an empty one.
        accuracy: [15] share of them that are right, likewise.
        share: [15] share of all pixels.
        ece: Expected calibration error, 0 to 1.
        interval: Of the expected calibration error.
        temperature: Of the variant that was measured.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]
    ece: float
    interval: Interval
    temperature: float

    @property
    def bias(self) -> float:
        """Mean confidence minus accuracy over all pixels: above 0 the network is too sure of itself."""
        return float(np.nansum((self.confidence - self.accuracy) * self.share))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "bins": {
                "confidence": list_or_none(self.confidence),
                "accuracy": list_or_none(self.accuracy),
                "share": list_or_none(self.share),
            },
            "ece": finite_or_none(self.ece),
            "ece_interval": self.interval.to_dict(),
            "bias": finite_or_none(self.bias),
            "temperature": self.temperature,
        }


def calibration_of(
    reliability_UB3: NDArray[np.float64], draws_RU: NDArray[np.float64], temperature: float
) -> Calibration:
    """The reliability diagram and its error.

    Args:
        reliability_UB3: See `ConfidenceTally.reliability_PB3`, summed by unit.
        draws_RU: See `draw_units`.
        temperature: Of the variant.
    """
    total = reliability_UB3.sum(axis=0)
    pixels = total[:, 0]
    filled = np.where(pixels > 0, pixels, np.nan)
    bins = reliability_UB3.shape[1]
    replicates = _ece((draws_RU @ reliability_UB3.reshape(len(reliability_UB3), -1)).reshape(-1, bins, 3))
    return Calibration(
        confidence=total[:, 2] / filled,
        accuracy=total[:, 1] / filled,
        share=pixels / max(1.0, float(pixels.sum())),
        ece=float(_ece(total)),
        interval=interval_of(replicates, len(reliability_UB3)),
        temperature=temperature,
    )


def _ece(reliability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected calibration error [...] of [..., bins, 3] pixels, right pixels and summed confidence."""
    gap = np.abs(reliability[..., 2] - reliability[..., 1]).sum(axis=-1)
    pixels = reliability[..., 0].sum(axis=-1)
    return np.where(pixels > 0, gap / np.where(pixels > 0, pixels, 1), np.nan)


class LogitSample:
    """Logits of some labelled pixels, evenly from all patches, in bounded memory.

    Args:
        patches: How many patches will come.
        seed: Which pixels are taken.
    """

    def __init__(self, patches: int, seed: int = 0) -> None:
        self._each = max(1, _SAMPLE // max(1, patches))
        self._generator = np.random.default_rng(seed)
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, logits: Logits, label_BHW: Tensor) -> None:
        """Takes some pixels of every image of a batch."""
        for b in range(len(label_BHW)):
            labelled = (label_BHW[b] != IGNORE_INDEX).nonzero().cpu()
            if len(labelled) == 0:
                continue
            chosen = self._generator.integers(0, len(labelled), min(self._each, len(labelled)))
            row, col = labelled[torch.from_numpy(chosen)].T
            self._logits.append(logits.heads_BNKHW[b][:, :, row, col].permute(2, 0, 1).float().cpu())
            self._labels.append(label_BHW[b][row, col].long().cpu())

    def __bool__(self) -> bool:
        return bool(self._labels)

    def fit(self, heads: str) -> float:
        """The temperature at which the labels are most likely, 0.05 to 20.

        Args:
            heads: How the heads are combined; not a vote, which has no temperature.

        Raises:
            ValueError: No labelled pixel was seen.
        """
        if not self._labels:
            raise ValueError("no labelled pixel was seen")
        heads_SNK, label_S = torch.cat(self._logits), torch.cat(self._labels)
        logits = Logits(heads_SNK[..., None, None], heads_SNK.mean(dim=1)[..., None, None])

        def cost(log_temperature: float) -> float:
            prob_SK = combine_heads(logits, heads, float(np.exp(log_temperature)))[..., 0, 0]
            right_S = prob_SK[torch.arange(len(label_S)), label_S]
            return float(-right_S.clamp(min=1e-12).log().mean())

        bounds = (np.log(COLDEST), np.log(HOTTEST))
        return float(np.exp(minimize_scalar(cost, bounds=bounds, method="bounded").x))
