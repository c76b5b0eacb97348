"""Figures of runs: means over seeds, paired bootstraps by image, and how the bars are met.

Axes: U image, R replicate, K class.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND
from salakseg.errors import DataError
from salakseg.evaluate.bootstrap import complete_means, draw_units, interval_of, resample_figures
from salakseg.evaluate.history import ROLLBACK
from salakseg.evaluate.metrics import figures_of

Images = Mapping[str, Sequence[Sequence[int]]]
"""Confusion matrix of each image, rows = truth."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One run on one set of images.

    Attributes:
        method: Its name.
        seed: Its seed.
        images: Names of the images, sorted.
        counts_UKK: Their confusion matrices, int64.
    """

    method: str
    seed: int
    images: tuple[str, ...]
    counts_UKK: NDArray[np.int64]

    @classmethod
    def of(cls, method: str, seed: int, images: Images) -> "Result":
        """From what is stored."""
        names = tuple(sorted(images))
        return cls(method, seed, names, np.array([images[name] for name in names], np.int64))

    @property
    def iou_K(self) -> NDArray[np.float64]:
        """IoU of each class over all pixels; NaN where undefined."""
        return figures_of(self.counts_UKK.sum(axis=0))["iou"]

    def miou(self, background: bool = False) -> float:
        """Mean IoU over all pixels of all images."""
        name = "miou_with_background" if background else "miou_without_background"
        return float(figures_of(self.counts_UKK.sum(axis=0))[name])

    @property
    def miou_images_alike(self) -> float:
        """The same without background, as if all images had as many pixels: else the few largest decide."""
        return _miou((self.counts_UKK / self.counts_UKK.sum(axis=(1, 2), keepdims=True)).sum(axis=0))


def mean_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1); NaN as the deviation of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")


@dataclass(frozen=True, slots=True)
class Difference:
    """What one method has more than another.

    Attributes:
        value: Difference of the mIoUs without class 0, each of the counts averaged over its seeds.
        by_image: Ends of its 95 % interval, images resampled.
        by_scene: The same with whole scenes resampled, whose images resemble each other.
    """

    value: float
    by_image: tuple[float, float]
    by_scene: tuple[float, float]


def difference(ours: Sequence[Result], others: Sequence[Result]) -> Difference:
    """A paired bootstrap: the same images are drawn for both.

    Args:
        ours: A method's runs, one for each seed.
        others: Another's, on the same images.

    Raises:
        DataError: The images differ.
    """
    if {result.images for result in ours} != {result.images for result in others}:
        raise DataError("Two methods were not scored on the same images; score both again, with all parts at hand.")
    names = ours[0].images
    first, second = (np.mean([r.counts_UKK for r in group], axis=0) for group in (ours, others))
    scenes = sorted({name.partition("/")[0] for name in names})
    member = np.array([[name.partition("/")[0] == scene for name in names] for scene in scenes], np.float64)

    def gap(a_UKK: NDArray[np.float64], b_UKK: NDArray[np.float64]) -> tuple[float, float]:
        draws_RU = draw_units(len(a_UKK))
        classes_K = a_UKK.sum(axis=(0, 2)) > 0
        classes_K[BACKGROUND] = False
        a, b = (complete_means(resample_figures(c, draws_RU, ["iou"])["iou"], classes_K) for c in (a_UKK, b_UKK))  # type: ignore[arg-type]
        return interval_of(a - b, len(a_UKK)).ends

    value = _miou(first.sum(axis=0)) - _miou(second.sum(axis=0))
    by_scene = [np.einsum("su,ukl->skl", member, counts) for counts in (first, second)]
    return Difference(value, gap(first, second), gap(by_scene[0], by_scene[1]))


def _miou(counts_KK: NDArray[np.float64]) -> float:
    return float(figures_of(counts_KK)["miou_without_background"])


def gap_closed(
    ours: Sequence[Result],
    floor: Sequence[Result],
    ceiling: Sequence[Result],
    score: Callable[[Result], float] = Result.miou,
) -> dict[int, float]:
    """Share of the way from the floor to the ceiling, for each seed that all three have and that has such a way."""
    by_seed = [{result.seed: score(result) for result in group} for group in (ours, floor, ceiling)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys() & by_seed[2].keys())
    ways = {seed: by_seed[2][seed] - by_seed[1][seed] for seed in seeds}
    return {seed: (by_seed[0][seed] - by_seed[1][seed]) / way for seed, way in ways.items() if way > 0}


def rarest_class(result: Result) -> int:
    """The class from 1 on with the fewest true pixels, but some."""
    support_K = result.counts_UKK.sum(axis=(0, 2)).astype(np.float64)
    support_K[BACKGROUND] = np.inf
    support_K[support_K == 0] = np.inf
    return int(support_K.argmin())


def best_minus_end(record: Mapping[str, Any]) -> float:
    """How far a run fell on validation from its best evaluation to its last."""
    scores = [point["miou_without_background"] for point in record["curve"]]
    return float(max(scores) - scores[-1])


def stop_of(record: Mapping[str, Any], patience: float) -> tuple[int, float]:
    """Where a run would have stopped early.

    Args:
        record: The run.
        patience: Share of the run without a new best after which it stops.

    Returns:
        Iteration of the stop, and the best validation until then.
    """
    total = record["recipe"]["schedule"]["iterations"]
    best, since = -1.0, 0
    for point in record["curve"]:
        if point["miou_without_background"] > best:
            best, since = point["miou_without_background"], point["iteration"]
        elif point["iteration"] - since >= patience * total:
            return int(point["iteration"]), best
    return int(total), best


def went_back_at(record: Mapping[str, Any]) -> list[int] | None:
    """Iterations at which the guard led a run back to its best network; None of a run whose record does not tell."""
    events = record.get("events")
    return None if events is None else [event["iteration"] for event in events if event["event"] == ROLLBACK]


def times_gone_back(record: Mapping[str, Any]) -> int | None:
    """How often it did; None of a run whose record does not tell."""
    found = went_back_at(record)
    return None if found is None else len(found)


def pseudo_at(record: Mapping[str, Any], end: str) -> tuple[float, float]:
    """Share kept and precision of the pseudo-labels at the run's ``best`` or ``end``; NaN without self-training."""
    iteration = record["validation"][end]["iteration"]
    found = next(point["pseudo"] for point in record["curve"] if point["iteration"] == iteration)
    if found is None:
        return float("nan"), float("nan")
    precision = found["precision"]
    return found["kept_share"], float("nan") if precision is None else precision
