"""What is counted beside the confusion matrices, photo by photo, while the patches pass by.

Axes: B image, N head, K class, H row, W column, P photo.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.evaluate.boundary import boundary_counts, boundary_distance, near_edge

BINS = 300
"""Bins of confidence between 0 and 1: their edges hold every hundredth and every fifteenth."""

RELIABILITY_BINS = 15
"""Bins of the reliability diagram and of the expected calibration error, as usual since Guo et al. 2017."""


def confusions(label_BHW: Tensor, prediction_BHW: Tensor, classes: int) -> NDArray[np.int64]:
    """Confusion matrix of every image of a batch.

    Args:
        label_BHW: True class ids of any integer dtype, 255 where ignored.
        prediction_BHW: Predicted class ids, each 0 to K-1, on the same device.
        classes: K.

    Returns:
        [B, K, K] int64, rows = truth, columns = prediction.
    """
    images = len(label_BHW)
    # Ignored pixels are counted in a row of their own, which is cut off: cheaper than picking out the others
    row_BHW = label_BHW.long()
    row_BHW = row_BHW.where(row_BHW != IGNORE_INDEX, classes)
    first = torch.arange(images, device=label_BHW.device).view(-1, 1, 1) * (classes + 1)
    cell_BHW = (first + row_BHW) * classes + prediction_BHW
    counts = torch.bincount(cell_BHW.view(-1), minlength=images * (classes + 1) * classes)
    return counts.view(images, classes + 1, classes)[:, :classes].cpu().numpy()


class ConfidenceTally:
    """How often pixels of each confidence are right, by photo and predicted class.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._bins: list[NDArray[np.uint32]] = []
        self._reliability: list[NDArray[np.float64]] = []

    def add(self, photo_B: list[int], label_BHW: Tensor, prob_BKHW: Tensor) -> None:
        """Counts a batch.

        Args:
            photo_B: Number of each image's photo.
            label_BHW: True class ids, 255 where ignored.
            prob_BKHW: Probabilities.
        """
        images, classes = prob_BKHW.shape[:2]
        confidence_BHW, class_BHW = prob_BKHW.max(dim=1)
        image_B11 = torch.arange(images, device=label_BHW.device).view(-1, 1, 1)
        bin_BHW = (confidence_BHW * BINS).long().clamp_(0, BINS - 1)
        ignored_BHW = label_BHW == IGNORE_INDEX
        # Ignored pixels go into a cell behind all others, which is cheaper than picking out the rest
        cell_BHW = ((image_B11 * classes + class_BHW) * BINS + bin_BHW) * 2 + (class_BHW == label_BHW)
        cells = images * classes * BINS * 2
        counts = torch.bincount(cell_BHW.masked_fill_(ignored_BHW, cells).view(-1), minlength=cells + 1)[:cells]
        bins = counts.view(images, classes, BINS, 2).cpu().numpy()
        coarse_BHW = bin_BHW.div_(BINS // RELIABILITY_BINS, rounding_mode="floor").add_(image_B11 * RELIABILITY_BINS)
        size = images * RELIABILITY_BINS
        coarse = coarse_BHW.masked_fill_(ignored_BHW, size).view(-1)
        sums = torch.bincount(*_exact(coarse, confidence_BHW.reshape(-1)), minlength=size + 1)[:size]
        by_bin = bins.sum(axis=1).reshape(images, RELIABILITY_BINS, -1, 2).sum(axis=2)
        confidence = sums.view(images, RELIABILITY_BINS).cpu().numpy()
        reliability = np.stack([by_bin.sum(axis=-1), by_bin[..., 1], confidence], axis=-1).astype(np.float64)
        for b, photo in enumerate(photo_B):
            while photo >= len(self._bins):
                self._bins.append(np.zeros((self._classes, BINS, 2), np.uint32))
                self._reliability.append(np.zeros((RELIABILITY_BINS, 3)))
            self._bins[photo] += bins[b].astype(np.uint32)
            self._reliability[photo] += reliability[b]

    def of_photos(self, chosen_P: NDArray[np.bool_]) -> "ConfidenceTally":
        """The tally of some photos alone."""
        some = ConfidenceTally(self._classes)
        some._bins = [bins for bins, take in zip(self._bins, chosen_P, strict=True) if take]
        some._reliability = [sums for sums, take in zip(self._reliability, chosen_P, strict=True) if take]
        return some

    @property
    def bins_PKB2(self) -> NDArray[np.int64]:
        """Pixels [P, K, 300, 2] by photo, predicted class, bin of confidence, and wrong (0) or right (1)."""
        return np.stack(self._bins).astype(np.int64)

    @property
    def reliability_PB3(self) -> NDArray[np.float64]:
        """[P, 15, 3] pixels, right pixels and summed confidence by photo and coarse bin of confidence."""
        return np.stack(self._reliability)


def _exact(cell_N: Tensor, value_N: Tensor) -> tuple[Tensor, Tensor]:
    """Cells and their values in float64, on the CPU where the device has none."""
    if value_N.device.type == "mps":
        cell_N, value_N = cell_N.cpu(), value_N.cpu()
    return cell_N, value_N.double()


class DisagreementTally:
    """How often two heads predict different classes.

    Args:
        heads: N.
    """

    def __init__(self, heads: int) -> None:
        self._pixels = 0
        self._different = np.zeros((heads, heads), np.int64)

    def add(self, winners_BNHW: Tensor, valid_BHW: Tensor) -> NDArray[np.float64]:
        """Counts a batch.

        Args:
            winners_BNHW: The class that each head predicts.
            valid_BHW: Which pixels count.

        Returns:
            [B] share of the valid pixels of each image on which the heads are not of one mind; 0 without any.
        """
        self._pixels += int(valid_BHW.sum())
        heads = winners_BNHW.shape[1]
        for one in range(heads):
            for other in range(one + 1, heads):
                different = int(((winners_BNHW[:, one] != winners_BNHW[:, other]) & valid_BHW).sum())
                self._different[one, other] += different
                self._different[other, one] += different
        split_BHW = (winners_BNHW != winners_BNHW[:, :1]).any(dim=1) & valid_BHW
        share_B: NDArray[np.float64] = (
            (split_BHW.sum(dim=(1, 2)) / valid_BHW.sum(dim=(1, 2)).clamp(min=1)).cpu().double().numpy()
        )
        return share_B

    @property
    def share_NN(self) -> NDArray[np.float64]:
        """Share of the valid pixels on which two heads differ, [N, N], 0 to 1; NaN without pixels."""
        return self._different / self._pixels if self._pixels else np.full(self._different.shape, np.nan)


class EdgeTally:
    """What the boundary IoU is made of, by photo, and how many of the errors lie near an edge.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._counts: list[NDArray[np.int64]] = []
        self._near: list[NDArray[np.int64]] = []
        self.distances: set[int] = set()

    def add(self, photo: int, label_HW: NDArray[np.uint8], prediction_HW: NDArray[np.uint8]) -> None:
        """Counts one image."""
        distance = boundary_distance(*label_HW.shape)
        valid_HW = label_HW != IGNORE_INDEX
        edge_HW = near_edge(label_HW, valid_HW, distance)
        wrong_HW = (label_HW != prediction_HW) & valid_HW
        while photo >= len(self._counts):
            self._counts.append(np.zeros((self._classes, 3), np.int64))
            self._near.append(np.zeros(4, np.int64))
        self._counts[photo] += boundary_counts(label_HW, prediction_HW, self._classes, distance, edge_HW)
        parts = (edge_HW & wrong_HW, wrong_HW, edge_HW, valid_HW)
        self._near[photo] += [int(np.count_nonzero(part)) for part in parts]
        self.distances.add(distance)

    def of_photos(self, chosen_P: NDArray[np.bool_]) -> "EdgeTally":
        """The tally of some photos alone."""
        some = EdgeTally(self._classes)
        some._counts = [counts for counts, take in zip(self._counts, chosen_P, strict=True) if take]
        some._near = [near for near, take in zip(self._near, chosen_P, strict=True) if take]
        some.distances = self.distances
        return some

    @property
    def counts_PK3(self) -> NDArray[np.int64]:
        """See `boundary_counts`."""
        return np.stack(self._counts)

    @property
    def near_P4(self) -> NDArray[np.int64]:
        """Pixels by photo: wrong and near an edge of the truth, wrong, near an edge, all valid."""
        return np.stack(self._near)
