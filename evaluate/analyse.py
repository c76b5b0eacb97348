"""From what one pass counted to findings: intervals, comparisons, thresholds, calibration, places.

Axes: P photo, U unit, V variant, R replicate, K class.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND
from salakseg.evaluate.bootstrap import (
    LEAST_UNITS,
    LEAST_UNITS_OF_A_CLASS,
    Interval,
    complete_means,
    draw_units,
    interval_of,
    resample_figures,
)
from salakseg.evaluate.boundary import boundary_iou
from salakseg.evaluate.calibration import calibration_of
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.ensemble import Evaluation, Row
from salakseg.evaluate.failures import confused_pairs, error_places, folders_of, places_of
from salakseg.evaluate.findings import Contender, Findings
from salakseg.evaluate.metrics import OVERALL, PER_CLASS, compute_metrics
from salakseg.evaluate.subjects import Subject
from salakseg.evaluate.thresholds import WANTED_PRECISION, analyse_thresholds, present_thresholds
from salakseg.evaluate.units import UnitKind, units_of

MEANS_OF = {
    "iou": {"miou_without_background": 1, "miou_with_background": 0},
    "f1": {"f1_without_background": 1, "f1_with_background": 0},
    "recall": {"balanced_accuracy": 0},
    "boundary_iou": {"boundary_miou_without_background": 1, "boundary_miou_with_background": 0},
}
"""The means of each figure and the class from which on each is taken."""

N = TypeVar("N", bound=np.generic)


def analyse(
    evaluation: Evaluation,
    subjects: Sequence[Subject],
    *,
    unit: UnitKind = "block",
    wanted_precision: float = WANTED_PRECISION,
    left_out: int = 0,
) -> Findings:
    """Derives all findings but the pictures and the cost.

    Args:
        evaluation: What the pass counted.
        subjects: The checkpoints of the pass.
        unit: What is resampled.
        wanted_precision: Of pseudo-labels, for the recommended thresholds.
        left_out: Patches of the part that another checkpoint, or one that these began with, does not hold out.
    """
    recipe = subjects[0].checkpoint.recipe
    gap = int(recipe.get("data", {}).get("gap", 0))
    evaluation = _with_labels(evaluation)
    unit_P = units_of(evaluation.photos, unit, gap, evaluation.places, evaluation.ground_blocks)
    units = max(unit_P) + 1
    draws_RU = draw_units(units)
    counts_UVKK = _by_unit(evaluation.counts_PVKK, unit_P)
    edges_UK3 = _by_unit(evaluation.edges.counts_PK3, unit_P)
    own_KK = evaluation.counts_PVKK[:, 0].sum(axis=0)
    contenders = list(zip(evaluation.rows, _contenders(evaluation, counts_UVKK, draws_RU), strict=True))
    return Findings(
        photos=len(evaluation.photos),
        unit=unit,
        units=units,
        block=gap + 1,
        ground_blocks=sum(photo in evaluation.ground_blocks for photo in evaluation.photos),
        intervals=_intervals(counts_UVKK[:, 0], edges_UK3, draws_RU),
        boundary_iou=boundary_iou(edges_UK3.sum(axis=0)),
        variants=_mark_best([contender for row, contender in contenders if row.subject == 0]),
        cost=None,
        runs=_runs(contenders, subjects) if len(subjects) > 1 else (),
        disagreement={weights: tally.share_NN for weights, tally in evaluation.disagreement.items()},
        thresholds=analyse_thresholds(
            _by_unit(evaluation.labeller.bins_PKB2, unit_P),
            draws_RU,
            evaluation.labeller_weights,
            present_thresholds(recipe, len(own_KK)),
            wanted_precision,
        ),
        calibration=calibration_of(
            _by_unit(evaluation.confidence.reliability_PB3, unit_P),
            draws_RU,
            evaluation.rows[0].way.variant.temperature,
        ),
        folders=folders_of(evaluation.photos, evaluation.patches_P, evaluation.counts_PVKK[:, 0]),
        places=places_of(evaluation.photos, evaluation.patches_P, evaluation.counts_PVKK[:, 0]),
        pairs=confused_pairs(own_KK),
        errors=error_places(evaluation.edges.near_P4, evaluation.edges.distances),
        left_out=left_out,
        rare=_rare(counts_UVKK[:, 0]) if units >= LEAST_UNITS else (),
    )


def _with_labels(evaluation: Evaluation) -> Evaluation:
    """Without the photos that show nothing but ignored pixels, which are no units to resample."""
    labelled_P = evaluation.counts_PVKK[:, 0].sum(axis=(1, 2)) > 0
    return evaluation if labelled_P.all() else evaluation.of_photos(labelled_P)


def _intervals(
    counts_UKK: NDArray[np.int64], edges_UK3: NDArray[np.int64], draws_RU: NDArray[np.float64]
) -> dict[str, Interval]:
    """Intervals of all figures; none for a class that too few units show."""
    units, classes = counts_UKK.shape[:2]
    replicates = resample_figures(counts_UKK, draws_RU, [*PER_CLASS, *OVERALL])
    edges = (draws_RU @ edges_UK3.reshape(units, -1).astype(np.float64)).reshape(-1, classes, 3)
    replicates["boundary_iou"] = boundary_iou(edges)
    for name in (*PER_CLASS, "boundary_iou"):
        defined_K = ~np.isnan(replicates[name]).all(axis=0)
        for mean, beginning in MEANS_OF.get(name, {}).items():
            replicates[mean] = complete_means(replicates[name], defined_K & (np.arange(classes) >= beginning))
    seen_K = (counts_UKK.sum(axis=2) > 0).sum(axis=0) >= LEAST_UNITS_OF_A_CLASS
    for name in (*PER_CLASS, "boundary_iou"):
        replicates[name] = np.where(seen_K, replicates[name], np.nan)
    return {name: interval_of(values, units) for name, values in replicates.items()}


def _rare(counts_UKK: NDArray[np.int64]) -> tuple[int, ...]:
    """Classes with true pixels that too few units show for an interval."""
    units_K = (counts_UKK.sum(axis=2) > 0).sum(axis=0)
    return tuple(np.flatnonzero((units_K > 0) & (units_K < LEAST_UNITS_OF_A_CLASS)).tolist())


def _contenders(
    evaluation: Evaluation, counts_UVKK: NDArray[np.int64], draws_RU: NDArray[np.float64]
) -> list[Contender]:
    """Each row beside the first, over the same draws and the same classes: those with true pixels.

    A class that a variant invents lowers its mIoU by a whole class for a single pixel; that must not choose.
    """
    true_K = counts_UVKK[:, 0].sum(axis=(0, 2)) > 0
    true_K[BACKGROUND] = False
    found: list[Contender] = []
    scores: list[tuple[float, NDArray[np.float64]]] = []
    for v, row in enumerate(evaluation.rows):
        iou_RK = resample_figures(counts_UVKK[:, v], draws_RU, ["iou"])["iou"]
        metrics = compute_metrics(ConfusionMatrix.from_counts(counts_UVKK[:, v].sum(axis=0)))
        scores.append((float(complete_means(metrics.iou[None], true_K)[0]), complete_means(iou_RK, true_K)))
        (own, own_R), (first, first_R) = scores[v], scores[0]
        found.append(
            Contender(
                name=row.way.text,
                way=row.way,
                metrics=metrics,
                difference=own - first,
                interval=interval_of(own_R - first_R, len(counts_UVKK)),
                is_subject=v == 0,
                is_best=False,
            )
        )
    return found


def _runs(contenders: Sequence[tuple[Row, Contender]], subjects: Sequence[Subject]) -> tuple[Contender, ...]:
    """The checkpoints, each as it is used by default, and their mean."""
    chosen = [(row, contender) for row, contender in contenders if contender.is_subject or row.subject != 0]
    names = [f"mean of the {len(subjects)}" if row.subject is None else subjects[row.subject].name for row, _ in chosen]
    return _mark_best([replace(run, name=name) for (_, run), name in zip(chosen, names, strict=True)])


def _mark_best(contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    differences = np.nan_to_num([contender.difference for contender in contenders])
    best = int(differences.argmax())  # the first of equals: the report's own before others
    return tuple(replace(contender, is_best=number == best) for number, contender in enumerate(contenders))


def _by_unit(values_P: NDArray[N], unit_P: Sequence[int]) -> NDArray[N]:
    """Sums over the photos of each unit, [P, ...] to [U, ...]."""
    summed = np.zeros((max(unit_P) + 1, *values_P.shape[1:]), values_P.dtype)
    np.add.at(summed, np.asarray(unit_P), values_P)
    return summed
