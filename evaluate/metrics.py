"""Every figure that a confusion matrix yields, and where each of them is undefined.

With TP, FP and FN the true positive, false positive and false negative pixels of one class:

    IoU       = TP / (TP + FP + FN)        Jaccard index
    precision = TP / (TP + FP)             user's accuracy
    recall    = TP / (TP + FN)             producer's accuracy
    F1        = 2 TP / (2 TP + FP + FN)    Dice coefficient

A figure whose denominator is 0 is NaN and stays out of the means: an absent class is neither a success nor a failure.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND
from salakseg.evaluate.confusion import ConfusionMatrix


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
        overall_accuracy: Share of pixels with the right class, 0 to 1; NaN without pixels.
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
    overall_accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and None for NaN: what JSON can hold."""
        return {
            "iou": list_or_none(self.iou),
            "precision": list_or_none(self.precision),
            "recall": list_or_none(self.recall),
            "f1": list_or_none(self.f1),
            "support": self.support.tolist(),
            "predicted": self.predicted.tolist(),
            "miou_without_background": self.miou_without_background.to_dict(),
            "miou_with_background": self.miou_with_background.to_dict(),
            "f1_without_background": self.f1_without_background.to_dict(),
            "f1_with_background": self.f1_with_background.to_dict(),
            "overall_accuracy": finite_or_none(self.overall_accuracy),
        }


def compute_metrics(matrix: ConfusionMatrix) -> Metrics:
    """Derives all figures from the counts."""
    counts = matrix.counts
    hits = counts.diagonal()
    support = counts.sum(axis=1)
    predicted = counts.sum(axis=0)
    iou = _ratio(hits, support + predicted - hits)
    f1 = _ratio(2 * hits, support + predicted)
    pixels = int(counts.sum())
    return Metrics(
        iou=iou,
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=f1,
        support=support,
        predicted=predicted,
        miou_without_background=mean_of_defined(np.delete(iou, BACKGROUND)),
        miou_with_background=mean_of_defined(iou),
        f1_without_background=mean_of_defined(np.delete(f1, BACKGROUND)),
        f1_with_background=mean_of_defined(f1),
        overall_accuracy=int(hits.sum()) / pixels if pixels else math.nan,
    )


def mean_of_defined(values: NDArray[np.float64]) -> Mean:
    """The mean of the values that are not NaN, and how many those are."""
    defined = values[~np.isnan(values)]
    return Mean(float(defined.mean()) if defined.size else math.nan, defined.size)


def finite_or_none(value: float) -> float | None:
    """The value for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def list_or_none(values: NDArray[np.float64]) -> list[float | None]:
    """The values for JSON, which has no NaN."""
    return [finite_or_none(value) for value in values.tolist()]


def figure_text(value: float) -> str:
    """A figure between 0 and 1 as people read it: three decimals, a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def points_text(gap: float) -> str:
    """A difference of two figures in points, which are hundredths, with its sign; empty where it is undefined."""
    if math.isnan(gap):
        return ""
    points = round(100 * gap, 1)
    return f"{points + 0.0:+.1f}"  # adding 0.0 turns -0.0 into 0.0


def percent_text(share: float) -> str:
    """A share between 0 and 1 in percent, at most four characters; a dash where it is undefined.

    A zero without decimals means none at all, 0.0 and 100 are rounded.
    """
    if math.isnan(share):
        return "-"
    if share == 0 or share >= 0.9995:
        return f"{100 * share:.0f}"
    return f"{100 * share:.1f}"


def count_text(count: int) -> str:
    """A number of pixels in at most five characters, such as 840, 12.3k or 4.56M."""
    if count < 1000:
        return str(count)
    units = ("", "k", "M", "G", "T")
    power = min((len(f"{float(f'{count:.3g}'):.0f}") - 1) // 3, len(units) - 1)
    number = float(f"{count:.3g}") / 1000**power
    return f"{number:.2f}"[:4].rstrip(".") + units[power]


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
