"""What a map holds at each pixel, from the blended probabilities: class, confidence, probabilities.

Axes: K classes, H rows, W columns; a layer is [bands, H, W].
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX

ProbabilityType = Literal["uint8", "float16"]

CLASSES, CONFIDENCE, PROBABILITIES = "classes", "confidence", "probabilities"
"""Names of the layers."""

PERCENT_NODATA = 255
"""Where a layer in percent, 0 to 100, knows nothing; a layer of float16 has not-a-number there."""

_IN_CACHE = 2**16
"""Pixels that are compared at once: few enough to stay in a core's cache."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Which layers a map has beside the classes.

    Attributes:
        classes: Number of classes, K.
        confidence: Whether the probability of the class in percent is written.
        probabilities: As what the probabilities of all classes are written: uint8, percent; float16, 0 to 1 rounded to
            half precision (in float32, since GDAL 3.10 fills half-float blocks up with stray memory); or not.
    """

    classes: int
    confidence: bool = False
    probabilities: ProbabilityType | None = None

    @property
    def bands(self) -> dict[str, int]:
        """Number of bands by layer."""
        found = {CLASSES: 1}
        if self.confidence:
            found[CONFIDENCE] = 1
        if self.probabilities is not None:
            found[PROBABILITIES] = self.classes
        return found

    def is_float(self, layer: str) -> bool:
        """Whether a layer holds float16 values."""
        return layer == PROBABILITIES and self.probabilities == "float16"

    def of(self, prob_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
        """The layers of some pixels.

        Args:
            prob_KHW: Blended probabilities [K, H, W]; their sum is below one beside pixels that no tile covers.
            valid_HW: Which pixels are to be known [H, W].

        Returns:
            Arrays [bands, H, W] by layer, uint8 or float32. A pixel that no tile covers is unknown whatever
            `valid_HW` says; it never falls to class 0.
        """
        label_HW, best_HW = _strongest(prob_KHW)
        unknown_HW = ~valid_HW | ~(best_HW > 0)
        label_HW[unknown_HW] = IGNORE_INDEX
        found: dict[str, NDArray[np.generic]] = {CLASSES: label_HW[None]}
        if not (self.confidence or self.probabilities):
            return found
        total_HW = np.where(unknown_HW, 1, prob_KHW.sum(axis=0)).astype(np.float32)
        if self.confidence:
            found[CONFIDENCE] = _percent(best_HW / total_HW, unknown_HW)[None]
        if self.probabilities == "uint8":
            found[PROBABILITIES] = _percent(prob_KHW / total_HW, unknown_HW)
        elif self.probabilities == "float16":
            half_KHW = (prob_KHW / total_HW).astype(np.float16)  # rounded here, GDAL takes float32 only
            found[PROBABILITIES] = np.where(unknown_HW, np.float32(np.nan), half_KHW.astype(np.float32))
        return found


def _percent(prob: NDArray[np.float32], unknown_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    percent: NDArray[np.uint8] = np.rint(100 * prob).clip(0, 100).astype(np.uint8)
    percent[..., unknown_HW] = PERCENT_NODATA
    return percent


def _strongest(prob_KHW: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The argmax over classes and the maximum; numpy's argmax copies all and counts in int64."""
    height, width = prob_KHW.shape[1:]
    label_HW, best_HW = np.zeros((height, width), np.uint8), np.empty((height, width), np.float32)
    rows = max(1, _IN_CACHE // width)
    for top in range(0, height, rows):
        part_KHW, label, best = prob_KHW[:, top : top + rows], label_HW[top : top + rows], best_HW[top : top + rows]
        best[:] = part_KHW[0]
        for class_id in range(1, len(part_KHW)):
            np.copyto(label, np.uint8(class_id), where=part_KHW[class_id] > best)
            np.maximum(best, part_KHW[class_id], out=best)
    return label_HW, best_HW
