"""What confidence thresholds would do: how many pseudo-labels each class keeps, and how many of them are right.

Measured on held-out labelled patches, with the labels that the run's own labeller gives them: the mean of its heads'
probabilities or their votes, on the patch as it is. In training it labels augmented views, on which it is a little less
sure.

Axes: U unit, K class, B bin of confidence, R replicate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND, ClassMap
from salakseg.evaluate.bootstrap import Interval, interval_of
from salakseg.evaluate.formats import finite_or_none, list_or_none
from salakseg.network.variant import Weights

STEPS = 101
"""Thresholds 0.00, 0.01 ... 1.00 at which the curves are given."""

WANTED_PRECISION = 0.9
"""Of pseudo-labels; self-training in the quick trials of the project held its ground with 0.95 and fell with 0.8."""

UNKNOWN_THRESHOLD = 0.9
"""Of a class that is never predicted, where the recipe has none."""

LEAST_COVERAGE = 0.01
"""Share of a class's pixels below which a precision says nothing: a few pixels of one photo would decide."""


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """One threshold for each class, and what it does.

    Attributes:
        threshold: [K] 0 to 1; NaN for a class that has none.
        coverage: [K] share of the pixels predicted as the class that are kept; NaN if there are none.
        precision: [K] share of the kept ones that are right; NaN if none is kept.
        interval: [K] of the precision.
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    precision: NDArray[np.float64]
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "threshold": list_or_none(self.threshold),
            "coverage": list_or_none(self.coverage),
            "precision": list_or_none(self.precision),
            "precision_interval": self.interval.to_dict(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdAnalysis:
    """Coverage and precision of pseudo-labels over all thresholds.

    Attributes:
        labeller: Whose weights label: "ema" (a teacher) or "student".
        thresholds: [101] 0 to 1.
        coverage: [K, 101] as in `Marked`.
        precision: [K, 101] as in `Marked`.
        kept: [101] share of all pixels that are kept if every class has that threshold.
        present: The recipe's thresholds; None if it does not self-train, keeps pixels by another rule, or names
            thresholds for other classes.
        present_kept: Share of all pixels that the recipe's thresholds keep; NaN without them.
        wanted: The precision that the recommendation aims at, 0 to 1.
        recommended: The lowest thresholds from which on the precision stays at what is wanted; 1 for a class that does
            not reach it, which then keeps nothing.
        recommended_kept: Share of all pixels that these keep.
    """

    labeller: Weights
    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    precision: NDArray[np.float64]
    kept: NDArray[np.float64]
    present: Marked | None
    present_kept: float
    wanted: float
    recommended: Marked
    recommended_kept: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "labeller": self.labeller,
            "thresholds": self.thresholds.round(2).tolist(),
            "coverage": [list_or_none(row) for row in self.coverage],
            "precision": [list_or_none(row) for row in self.precision],
            "kept": list_or_none(self.kept),
            "present": None if self.present is None else self.present.to_dict(),
            "present_kept": finite_or_none(self.present_kept),
            "wanted_precision": self.wanted,
            "recommended": self.recommended.to_dict(),
            "recommended_kept": finite_or_none(self.recommended_kept),
        }


def analyse_thresholds(
    bins_UKB2: NDArray[np.int64],
    draws_RU: NDArray[np.float64],
    labeller: Weights,
    present: Sequence[float] | None,
    wanted: float = WANTED_PRECISION,
) -> ThresholdAnalysis:
    """Derives the curves and the recommendation.

    Args:
        bins_UKB2: See `ConfidenceTally.bins_PKB2`, summed by unit.
        draws_RU: See `draw_units`.
        labeller: Whose weights label.
        present: The recipe's threshold of each class, background included; None if it has none.
        wanted: Precision that the recommendation aims at, 0 to 1.
    """
    kept_UKT2 = _kept_from(bins_UKB2)
    total_KT2 = kept_UKT2.sum(axis=0)
    coverage, precision = _coverage(total_KT2), _precision(total_KT2)
    recommended = np.array([_lowest(*rows, wanted) for rows in zip(precision, coverage, strict=True)])
    bins = bins_UKB2.shape[2]
    at = np.rint(np.linspace(0, 1, STEPS) * bins).astype(int)
    pixels = max(1, int(total_KT2[:, 0].sum()))

    def marked(threshold_K: NDArray[np.float64]) -> tuple[Marked, float]:
        edge_K = np.rint(threshold_K * bins).astype(int)
        rows = np.arange(len(edge_K))
        replicates = np.einsum("ru,ukc->rkc", draws_RU, kept_UKT2[:, rows, edge_K].astype(np.float64))
        interval = interval_of(_precision(replicates), len(bins_UKB2))
        kept = float(total_KT2[rows, edge_K].sum()) / pixels
        return Marked(threshold_K, coverage[rows, edge_K], precision[rows, edge_K], interval), kept

    given = None if present is None else marked(np.asarray(present, np.float64))
    chosen, chosen_kept = marked(recommended)
    return ThresholdAnalysis(
        labeller=labeller,
        thresholds=np.linspace(0, 1, STEPS),
        coverage=coverage[:, at],
        precision=precision[:, at],
        kept=total_KT2[:, at].sum(axis=(0, 2)) / pixels,
        present=None if given is None else given[0],
        present_kept=np.nan if given is None else given[1],
        wanted=wanted,
        recommended=chosen,
        recommended_kept=chosen_kept,
    )


def present_thresholds(recipe: Mapping[str, Any], classes: int) -> list[float] | None:
    """The thresholds of a run's resolved recipe, background first; None if none take part, or not this many."""
    settings = recipe.get("selftraining", {})
    if not settings.get("enabled", False) or settings.get("keep", "fixed") != "fixed":
        return None
    given = settings.get("thresholds", ())
    others = [float(given)] * (classes - 1) if isinstance(given, int | float) else [float(value) for value in given]
    if len(others) != classes - 1:
        return None
    others.insert(BACKGROUND, float(settings.get("background_threshold", 0.0)))
    return others


def recipe_fragment(analysis: ThresholdAnalysis, class_map: ClassMap, base: str) -> str | None:
    """The recommendation as a recipe that changes another one.

    A class that is never predicted says nothing of its threshold, and keeps what it has.

    Args:
        analysis: The analysis, of the validation part: thresholds chosen on test would spoil the test of the next run.
        class_map: Its classes.
        base: Name of the recipe that it changes.

    Returns:
        TOML for `salakseg train --recipe FILE`; None if no class would keep anything.
    """
    marked, usual = analysis.recommended, analysis.present
    if not analysis.recommended_kept > 0:
        return None
    values: list[float] = []
    lines = [
        f"Confidence thresholds from which on {100 * analysis.wanted:.0f} % of each class's pseudo-labels are right,",
        "measured on validation patches; in brackets the 95 % interval. 1 keeps nothing.",
    ]
    for c in class_map.classes:
        value, told = float(marked.threshold[c.id]), "is never as right as that"
        if np.isnan(analysis.coverage[c.id, 0]):
            value, told = (
                UNKNOWN_THRESHOLD if usual is None else float(usual.threshold[c.id]),
                "is never predicted here",
            )
        elif value < 1:
            low, high = marked.interval[c.id].ends
            span = "no interval" if np.isnan(low) else f"{100 * low:.0f} to {100 * high:.0f}"
            told = f"keeps {100 * marked.coverage[c.id]:.0f} %, {100 * marked.precision[c.id]:.0f} % right ({span})"
        values.append(round(value, 2))
        lines.append(f"{value:.2f}  {c.name} {told}")
    others = [value for class_id, value in enumerate(values) if class_id != BACKGROUND]
    # Thresholds count where self-training keeps pixels by them, which not every recipe does
    counts = {"enabled": True, "keep": "fixed"}
    thresholds = {"background_threshold": values[BACKGROUND], "thresholds": others}
    table = {"base": base, "selftraining": counts | thresholds}
    comment = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    return f"{comment}\n{tomli_w.dumps(table)}"


def _kept_from(bins_UKB2: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels [U, K, B + 1, 2] whose confidence reaches the lower edge of each bin; none reach the last edge."""
    kept = np.cumsum(bins_UKB2[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.concatenate([kept, np.zeros_like(kept[:, :, :1])], axis=2)


def _coverage(kept_KT2: NDArray[np.int64]) -> NDArray[np.float64]:
    pixels = kept_KT2.sum(axis=-1).astype(np.float64)
    total = pixels[..., :1]
    return np.where(total > 0, pixels / np.where(total > 0, total, 1), np.nan)


def _precision(kept: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of right ones [...] among kept pixels [..., 2], wrong and right."""
    pixels = kept.sum(axis=-1)
    return np.where(pixels > 0, kept[..., 1] / np.where(pixels > 0, pixels, 1), np.nan)


def _lowest(precision_T: NDArray[np.float64], coverage_T: NDArray[np.float64], wanted: float) -> float:
    """The lowest threshold, to the hundredth, from which on what is kept is precise enough; 1 if there is none."""
    steps = len(precision_T) - 1
    good = 1.0
    for hundredth in range(99, -1, -1):
        edge = round(hundredth / 100 * steps)
        if not coverage_T[edge] >= LEAST_COVERAGE:
            continue
        if precision_T[edge] < wanted:
            break
        good = hundredth / 100
    return good
