"""What was found out with the patches at hand, beside the confusion matrix: everything that needs a pass over them.

Axes: K class, N head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND
from salakseg.evaluate.bootstrap import FEW_UNITS, LEAST_UNITS, REPLICATES, Interval
from salakseg.evaluate.calibration import Calibration
from salakseg.evaluate.examples import Picture
from salakseg.evaluate.failures import ConfusedPair, ErrorPlaces, Place
from salakseg.evaluate.formats import counted, finite_or_none, list_or_none
from salakseg.evaluate.metrics import Mean, Metrics, mean_of_defined
from salakseg.evaluate.thresholds import ThresholdAnalysis
from salakseg.evaluate.units import UnitKind
from salakseg.evaluate.variants import Way
from salakseg.network.variant import Weights


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A variant or another checkpoint beside what the report is on.

    Attributes:
        name: The variant or the checkpoint, for people.
        way: How the checkpoint is used.
        metrics: Its figures on the same patches.
        difference: Its mean IoU minus that of what the report is on, -1 to 1, over the classes without background that
            have true pixels: classes that one of them invents would otherwise decide.
        interval: Of the difference, by resampling the same units for both.
        is_subject: Whether it is what the report is on.
        is_best: Whether no other of the table has a higher difference.
    """

    name: str
    way: Way
    metrics: Metrics
    difference: float
    interval: Interval
    is_subject: bool
    is_best: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "name": self.name,
            "variant": self.way.to_dict(),
            "metrics": self.metrics.to_dict(),
            "difference": finite_or_none(self.difference),
            "difference_interval": self.interval.to_dict(),
            "is_subject": self.is_subject,
            "is_best": self.is_best,
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """What the best variant takes.

    Attributes:
        best_seconds: Seconds a megapixel of the best variant.
        plain_seconds: The same of the moving average's mean of logits.
        device: Where that was measured.
    """

    best_seconds: float
    plain_seconds: float
    device: str

    @property
    def ratio(self) -> float:
        """How many times as long the best variant takes."""
        return self.best_seconds / self.plain_seconds

    @property
    def text(self) -> str:
        """The ratio for people; what lies within the noise of a measurement is not told apart."""
        plain = "the EMA's mean of the logits"
        return f"about as long as {plain}" if 0.8 < self.ratio < 1.25 else f"{self.ratio:.1f} times as long as {plain}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "best_seconds_a_megapixel": self.best_seconds,
            "plain_seconds_a_megapixel": self.plain_seconds,
            "ratio": self.ratio,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Everything that a pass over the patches gives.

    Attributes:
        photos: Photos measured.
        unit: What was resampled.
        units: How many of these there are.
        block: Photos in a block at most.
        intervals: Of the figures by name: those of `PER_CLASS` and ``boundary_iou`` [K], those of `OVERALL` and of
            `boundary_means` single.
        boundary_iou: [K] 0 to 1; NaN for a class without an edge.
        variants: Every variant of the checkpoint, the report's own first.
        cost: What the best of them takes; None where it was not measured.
        runs: The checkpoints that are compared, the report's first; empty if it is the only one.
        disagreement: [N, N] share of pixels on which two heads differ, by weights; empty with a single head.
        thresholds: Coverage and precision of pseudo-labels.
        calibration: Reliability of the report's variant.
        folders: Figures by folder.
        places: Figures by photo.
        pairs: Confused classes.
        errors: Border or inside.
        pictures: Where it fails.
        left_out: Patches of the part that another checkpoint, or one that these began with, does not hold out.
        rare: Classes with too few units for an interval, by id.
        ground_blocks: How many of the photos are blocks of ground, each with the patches of a square.
    """

    photos: int
    unit: UnitKind
    units: int
    block: int
    intervals: Mapping[str, Interval]
    boundary_iou: NDArray[np.float64]
    variants: tuple[Contender, ...]
    cost: Cost | None
    runs: tuple[Contender, ...]
    disagreement: Mapping[Weights, NDArray[np.float64]]
    thresholds: ThresholdAnalysis
    calibration: Calibration
    folders: tuple[Place, ...]
    places: tuple[Place, ...]
    pairs: tuple[ConfusedPair, ...]
    errors: ErrorPlaces
    pictures: tuple[Picture, ...] = field(default=())
    left_out: int = 0
    rare: tuple[int, ...] = ()
    ground_blocks: int = 0

    @property
    def unit_text(self) -> str:
        """What was resampled, for people, such as "12 blocks of up to 4 photos"."""
        if self.ground_blocks and self.unit != "folder":
            only = " of ground" if self.ground_blocks == self.photos else " of ground or photos"
            return f"{self.units} {_plural('block', self.units)}{only}"
        if self.unit == "block" and self.block > 1:
            return f"{self.units} {_plural('block', self.units)} of up to {self.block} photos"
        kind = "photo" if self.unit == "block" else self.unit
        return f"{self.units} {_plural(kind, self.units)}"

    @property
    def boundary_means(self) -> dict[str, Mean]:
        """Mean boundary IoU without and with background, by name."""
        return {
            "boundary_miou_without_background": mean_of_defined(np.delete(self.boundary_iou, BACKGROUND)),
            "boundary_miou_with_background": mean_of_defined(self.boundary_iou),
        }

    @property
    def best(self) -> Contender:
        """The variant with the highest mIoU without background."""
        return next(variant for variant in self.variants if variant.is_best)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that belong under the figures."""
        told = [f"Intervals hold 95 %, by resampling {self.unit_text} {REPLICATES:,} times."]
        if self.units < LEAST_UNITS:
            told = [f"There are no intervals: {self.unit_text} are too few to resample; {LEAST_UNITS} would do."]
        elif self.units < FEW_UNITS:
            told.append(f"With so few to resample ({self.units}) the intervals are rough, and rather too narrow.")
        if not self.best.is_subject:
            told.append(
                f"The best of {len(self.variants)} variants on the same patches flatters itself; "
                "`salakseg report --write-default` chooses on validation."
            )
        if self.left_out:
            told.append(
                f"{counted(self.left_out, 'patch was', 'patches were')} left out: not held out by every checkpoint "
                "that is compared here, or by one that these began with."
            )
        return tuple(told)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None. Pictures are left out."""
        return {
            "photos": self.photos,
            "resampling": {
                "unit": self.unit,
                "units": self.units,
                "photos_a_block": self.block,
                "replicates": REPLICATES,
                "level": 0.95,
                "intervals": {name: interval.to_dict() for name, interval in self.intervals.items()},
            },
            "boundary_iou": list_or_none(self.boundary_iou),
            **{name: mean.to_dict() for name, mean in self.boundary_means.items()},
            "variants": [variant.to_dict() for variant in self.variants],
            "cost": None if self.cost is None else self.cost.to_dict(),
            "runs": [run.to_dict() for run in self.runs],
            "disagreement": {
                weights: [list_or_none(row) for row in shares] for weights, shares in self.disagreement.items()
            },
            "thresholds": self.thresholds.to_dict(),
            "calibration": self.calibration.to_dict(),
            "folders": [place.to_dict() for place in self.folders],
            "photo_figures": [place.to_dict() for place in self.places],
            "confused_pairs": [
                {
                    "truth": pair.truth,
                    "prediction": pair.prediction,
                    "pixels": pair.pixels,
                    "share_of_truth": pair.share_of_truth,
                    "share_of_errors": pair.share_of_errors,
                }
                for pair in self.pairs
            ],
            "errors": self.errors.to_dict(),
            "worst_patches": [
                {"why": one.kind, "classes": list(one.classes), "pixels": one.pixels, "patch": picture.name}
                for picture in self.pictures
                for one in [picture.wanted]
            ],
        }


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
