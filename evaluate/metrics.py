"""Every figure that a confusion matrix yields, and where each of them is undefined.

With TP, FP and FN the true positive, false positive and false negative pixels of one class, N all pixels:

    IoU       = TP / (TP + FP + FN)        Jaccard index
    precision = TP / (TP + FP)             user's accuracy
    recall    = TP / (TP + FN)             producer's accuracy
    F1        = 2 TP / (2 TP + FP + FN)    Dice coefficient
    kappa     = (p_o - p_e) / (1 - p_e)    Cohen 1960; p_o = overall accuracy, p_e = agreement expected by chance
    MCC       = Gorodkin 2004, equation 8  Matthews correlation coefficient of several classes

A figure whose denominator is 0 is NaN and stays out of the means: an absent class is neither a success nor a failure.
All functions take counts with any leading axes, so that the thousands of matrices of a bootstrap cost one call.
Axes: ... any, K true class, K predicted class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import figure_text, finite_or_none, list_or_none

Counts = NDArray[np.int64] | NDArray[np.float64]

PER_CLASS = ("iou", "f1", "precision", "recall")
"""Figures of each class."""

OVERALL = (
    "miou_without_background",
    "miou_with_background",
    "f1_without_background",
    "f1_with_background",
    "overall_accuracy",
    "balanced_accuracy",
    "kappa",
    "mcc",
    "frequency_weighted_iou",
)
"""Figures over all classes; the names are those of `Metrics`."""

TITLES = {
    "miou_without_background": "mIoU without background",
    "miou_with_background": "mIoU with background",
    "f1_without_background": "mean F1 without background",
    "f1_with_background": "mean F1 with background",
    "overall_accuracy": "overall accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation (MCC)",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_miou_without_background": "boundary mIoU without background",
    "boundary_miou_with_background": "boundary mIoU with background",
}
"""The figures over all classes as people read them."""


@dataclass(frozen=True, slots=True)
class Mean:
    """An unweighted mean over classes.

    Attributes:
        value: 0 to 1; NaN when no class has a figure.
        classes: Number of classes with a figure, which are the ones the mean covers.
    """

    value: float
    classes: int

    @property
    def text(self) -> str:
        """The mean for people, with the number of classes that it covers."""
        return f"{figure_text(self.value)} ({self.classes} {'class' if self.classes == 1 else 'classes'})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {"value": finite_or_none(self.value), "classes": self.classes}


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """The figures of one confusion matrix; arrays run over the K classes in the order of their ids.

    Attributes:
        iou: [K] float64, 0 to 1; NaN for a class neither in the truth nor predicted. A class that is predicted but
            has no truth pixels has IoU 0.
        precision: [K] float64, 0 to 1; NaN for a class never predicted.
        recall: [K] float64, 0 to 1; NaN for a class without truth pixels.
        f1: [K] float64, 0 to 1; NaN where the IoU is.
        support: [K] int64, truth pixels.
        predicted: [K] int64, predicted pixels.
        miou_without_background: Mean IoU of the classes from 1 on.
        miou_with_background: Mean IoU of all classes.
        f1_without_background: Mean F1 of the classes from 1 on.
        f1_with_background: Mean F1 of all classes.
        balanced_accuracy: Mean recall of all classes.
        overall_accuracy: Share of pixels with the right class, 0 to 1; NaN without pixels.
        kappa: -1 to 1; NaN where truth and prediction are one and the same class throughout.
        mcc: -1 to 1; NaN where truth or prediction is one class throughout.
        frequency_weighted_iou: Mean IoU, each class weighted by its truth pixels, 0 to 1; NaN without pixels.
    """

    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    predicted: NDArray[np.int64]
    miou_without_background: Mean
    miou_with_background: Mean
    f1_without_background: Mean
    f1_with_background: Mean
    balanced_accuracy: Mean
    overall_accuracy: float
    kappa: float
    mcc: float
    frequency_weighted_iou: float

    def overall(self, name: str) -> Mean | float:
        """A figure of `OVERALL`."""
        value: Mean | float = getattr(self, name)
        return value

    def overall_value(self, name: str) -> float:
        """A figure of `OVERALL` as a number."""
        value = self.overall(name)
        return value.value if isinstance(value, Mean) else value

    def overall_text(self, name: str) -> str:
        """A figure of `OVERALL` for people; means say how many classes they cover."""
        value = self.overall(name)
        return value.text if isinstance(value, Mean) else figure_text(value)

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and None for NaN: what JSON can hold."""
        overall = {name: self.overall(name) for name in OVERALL}
        return {
            **{name: list_or_none(getattr(self, name)) for name in PER_CLASS},
            "support": self.support.tolist(),
            "predicted": self.predicted.tolist(),
            **{name: v.to_dict() if isinstance(v, Mean) else finite_or_none(v) for name, v in overall.items()},
        }


def compute_metrics(matrix: ConfusionMatrix) -> Metrics:
    """Derives all figures from the counts."""
    counts = matrix.counts
    figures = figures_of(counts)
    iou, f1, recall = figures["iou"], figures["f1"], figures["recall"]
    return Metrics(
        iou=iou,
        precision=figures["precision"],
        recall=recall,
        f1=f1,
        support=counts.sum(axis=1),
        predicted=counts.sum(axis=0),
        miou_without_background=mean_of_defined(np.delete(iou, BACKGROUND)),
        miou_with_background=mean_of_defined(iou),
        f1_without_background=mean_of_defined(np.delete(f1, BACKGROUND)),
        f1_with_background=mean_of_defined(f1),
        balanced_accuracy=mean_of_defined(recall),
        overall_accuracy=float(figures["overall_accuracy"]),
        kappa=float(figures["kappa"]),
        mcc=float(figures["mcc"]),
        frequency_weighted_iou=float(figures["frequency_weighted_iou"]),
    )


def figures_of(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """All figures of one or many confusion matrices.

    Args:
        counts: [..., K, K] counts of 0 or more, rows = truth, columns = prediction.

    Returns:
        [..., K] for each name of `PER_CLASS` and [...] for each of `OVERALL`, float64; NaN where undefined.
    """
    # As floats: products of pixel counts overflow int64, while sums stay exact up to 2**53
    counts = np.asarray(counts, np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    pixels, right = truth.sum(axis=-1), hits.sum(axis=-1)
    iou = _ratio(hits, truth + predicted - hits)
    f1 = _ratio(2 * hits, truth + predicted)
    recall = _ratio(hits, truth)
    chance = (truth * predicted).sum(axis=-1)
    spread = (pixels**2 - (truth**2).sum(axis=-1)) * (pixels**2 - (predicted**2).sum(axis=-1))
    return {
        "iou": iou,
        "f1": f1,
        "precision": _ratio(hits, predicted),
        "recall": recall,
        "miou_without_background": _mean(np.delete(iou, BACKGROUND, axis=-1)),
        "miou_with_background": _mean(iou),
        "f1_without_background": _mean(np.delete(f1, BACKGROUND, axis=-1)),
        "f1_with_background": _mean(f1),
        "overall_accuracy": _ratio(right, pixels),
        "balanced_accuracy": _mean(recall),
        "kappa": _ratio(pixels * right - chance, pixels**2 - chance),
        "mcc": _ratio(pixels * right - chance, np.sqrt(spread)),
        "frequency_weighted_iou": _ratio((truth * np.nan_to_num(iou)).sum(axis=-1), pixels),
    }


def mean_of_defined(values: NDArray[np.float64]) -> Mean:
    """The mean of the values that are not NaN, and how many those are."""
    return Mean(float(_mean(values)), int((~np.isnan(values)).sum()))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means along the last axis over what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.nan_to_num(values).sum(axis=-1), defined.sum(axis=-1))


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:  # noqa: ANN401
    ratio = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=ratio, where=np.asarray(whole) > 0)
    return ratio
