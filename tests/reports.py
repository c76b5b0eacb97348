"""Reports that several tests share, made of numbers alone."""

from typing import Any

import numpy as np

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.evaluate.bootstrap import Interval
from salakseg.evaluate.calibration import Calibration
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.diagnosis import diagnose
from salakseg.evaluate.failures import ErrorPlaces, Place, confused_pairs
from salakseg.evaluate.findings import Contender, Cost, Findings
from salakseg.evaluate.history import TrainingHistory
from salakseg.evaluate.metrics import OVERALL, PER_CLASS, compute_metrics
from salakseg.evaluate.report import Report
from salakseg.evaluate.targets import load_target
from salakseg.evaluate.thresholds import Marked, ThresholdAnalysis
from salakseg.evaluate.variants import Way, ways_of
from salakseg.network.variant import Variant


def odd_names() -> ClassMap:
    """Seven classes whose names are markup, quotes and formulas."""
    names = (
        "__background__",
        "<script>alert(1)</script>",
        "\"&'",
        "$a$ and $b$",
        "</style><b>",
        "{{ 7 * 7 }}",
        "javascript:alert(1)",
    )
    return ClassMap(tuple(LandClass(i, name, (255 - i, 255 - 9 * i, 200)) for i, name in enumerate(names)))


def some_classes(count: int) -> ClassMap:
    """The salak classes, or as many numbered ones as are wanted."""
    if count == len(SALAK):
        return SALAK
    return ClassMap(tuple(LandClass(i, f"Class {i:02d}", (4 * i % 256, 255 - i, 90)) for i in range(count)))


def some_counts(classes: int, seed: int = 0) -> ConfusionMatrix:
    """Mostly right, and class 1 of several neither in the truth nor predicted."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 900, (classes, classes)) + np.diag(generator.integers(2000, 60_000, classes))
    if classes > 2:
        counts[1] = counts[:, 1] = 0
    return ConfusionMatrix.from_counts(counts)


def stored_report(classes: int = 7, **changes: object) -> Report:
    """A report on figures that were stored at training time."""
    facts: dict[str, Any] = {
        "title": "tiny/best.pt",
        "split": "val",
        "patches": 20,
        "class_map": some_classes(classes),
        "way": Way(Variant()),
        "target": load_target("diversenet"),
        "notes": ("These are stand-in data.",),
    }
    facts |= changes
    facts.setdefault("matrix", some_counts(len(facts["class_map"])))
    return Report(**facts)


def measured_report(classes: int = 7, **changes: object) -> Report:
    """A report on figures that were measured, but for pictures."""
    history = TrainingHistory(val_miou=((100, 0.2), (200, 0.5)), learning_rate=((100, 1e-3), (200, 1e-4)))
    facts: dict[str, Any] = {
        "split": "test",
        "findings": some_findings(classes),
        "data": "patches",
        "iteration": 200,
        "recipe": "quick",
        "history": history,
        "diagnosis": diagnose(history),
    }
    return stored_report(classes, **(facts | changes))


def some_findings(classes: int = 7, **changes: object) -> Findings:
    """Findings that agree with each other as far as anybody looks."""
    metrics = compute_metrics(some_counts(classes))
    intervals = {name: _around(getattr(metrics, name)) for name in PER_CLASS}
    intervals |= {name: _around(np.asarray(metrics.overall_value(name))) for name in OVERALL}
    intervals["boundary_iou"] = _around(0.5 * metrics.iou)
    for name in ("boundary_miou_without_background", "boundary_miou_with_background"):
        intervals[name] = _around(np.asarray(np.nanmean(0.5 * metrics.iou)))
    variants = tuple(
        Contender(
            name=way.text,
            way=way,
            metrics=metrics,
            difference=0.001 * number,
            interval=Interval(np.asarray(-0.02 + 0.004 * number), np.asarray(0.03 + 0.004 * number)),
            is_subject=number == 0,
            is_best=number == 11,
        )
        for number, way in enumerate(ways_of(2, tta=False))
    )
    places = tuple(
        Place(f"salak-1-{number % 2 + 1}", f"DJI_{number:04d}", number, compute_metrics(some_counts(classes, number)))
        for number in range(1, 31)
    )
    facts: dict[str, Any] = {
        "photos": 30,
        "unit": "block",
        "units": 12,
        "block": 4,
        "intervals": intervals,
        "boundary_iou": 0.5 * metrics.iou,
        "variants": variants,
        "cost": Cost(0.42, 0.21, "cpu"),
        "runs": variants[:2],
        "disagreement": {"ema": np.array([[0, 0.1], [0.1, 0]]), "student": np.array([[0, 0.2], [0.2, 0]])},
        "thresholds": some_thresholds(classes),
        "calibration": Calibration(
            confidence=np.append(np.nan, np.linspace(0.1, 0.97, 14)),
            accuracy=np.append(np.nan, np.linspace(0.1, 0.9, 14)),
            share=np.append(0.0, np.full(14, 1 / 14)),
            ece=0.04,
            interval=Interval(np.asarray(0.02), np.asarray(0.07)),
            temperature=1.0,
        ),
        "folders": tuple(Place(f"salak-1-{number}", "", 15, metrics) for number in (1, 2)),
        "places": places,
        "pairs": confused_pairs(some_counts(classes).counts),
        "errors": ErrorPlaces(0.7, 0.2, (2,)),
    }
    return Findings(**(facts | changes))


def some_thresholds(classes: int) -> ThresholdAnalysis:
    """Curves that fall and rise; class 1 of several is never predicted, and class 0 never right enough."""
    steps = np.linspace(0, 1, 101)
    coverage = np.tile(1 - steps**3, (classes, 1))
    precision = np.tile(0.6 + 0.4 * steps, (classes, 1))
    if classes > 2:
        coverage[1] = precision[1] = np.nan
    chosen = np.full(classes, 0.75)
    chosen[0] = 1.0

    def marked(threshold: np.ndarray[Any, np.dtype[np.float64]]) -> Marked:
        at = np.rint(100 * threshold).astype(int)
        rows = np.arange(classes)
        return Marked(threshold, coverage[rows, at], precision[rows, at], _around(precision[rows, at]))

    return ThresholdAnalysis(
        labeller="ema",
        thresholds=steps,
        coverage=coverage,
        precision=precision,
        kept=coverage[-1],
        present=marked(np.full(classes, 0.5)),
        present_kept=0.88,
        wanted=0.9,
        recommended=marked(chosen),
        recommended_kept=0.6,
    )


def _around(values: np.ndarray[Any, np.dtype[np.float64]]) -> Interval:
    return Interval(np.maximum(values - 0.05, 0), np.minimum(values + 0.04, 1))
