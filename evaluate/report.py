"""The report on one checkpoint: everything that its tables, pictures and files are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from salakseg.classes import ClassMap
from salakseg.evaluate.bootstrap import Interval
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.diagnosis import Diagnosis
from salakseg.evaluate.findings import Findings
from salakseg.evaluate.formats import counted
from salakseg.evaluate.history import TrainingHistory
from salakseg.evaluate.metrics import PER_CLASS, Metrics, compute_metrics
from salakseg.evaluate.recorded import Recorded
from salakseg.evaluate.targets import Target, TargetComparison, compare
from salakseg.evaluate.variants import Way

Split = Literal["test", "val"]

SCHEMA = "salakseg.report"
VERSION = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What was measured on one checkpoint. The figures are derived from the matrix, so that they cannot disagree.

    Attributes:
        title: Name of the checkpoint.
        split: The part of the data that the matrix was counted on.
        patches: Number of patches in that part.
        class_map: The K classes.
        matrix: Counts [K, K] of pixels; the report keeps a copy.
        way: How the checkpoint was used.
        findings: What else a pass over the patches gave; None if the figures were stored at training time, because the
            data was not at hand for measuring.
        iteration: Training iteration of the checkpoint, if known.
        recipe: Name of the recipe, if known.
        validation: The checkpoint's own `evaluation`.
        target: What to compare with, if anything.
        data: Name of the folder of the patches that were measured, if any were; without what lies above it, since
            reports are passed on.
        history: How the training went, if it is known.
        diagnosis: What that says.
        recorded: Results of earlier trainers to show beside.
        notes: Sentences that a reader must know, such as one on stand-in data.

    Raises:
        ValueError: The matrix has another number of classes than the class map, or an unknown split.
    """

    title: str
    split: Split
    patches: int
    class_map: ClassMap
    matrix: ConfusionMatrix
    way: Way
    findings: Findings | None = None
    iteration: int | None = None
    recipe: str | None = None
    validation: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None
    data: str | None = None
    history: TrainingHistory | None = None
    diagnosis: Diagnosis | None = None
    recorded: Recorded | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.matrix.num_classes != len(self.class_map):
            raise ValueError(f"{self.matrix.num_classes} classes in the matrix, {len(self.class_map)} in the class map")
        if self.split not in get_args(Split):
            raise ValueError(f"unknown split {self.split!r}")
        object.__setattr__(self, "matrix", self.matrix.copy())

    @cached_property
    def metrics(self) -> Metrics:
        """The figures of the matrix."""
        return compute_metrics(self.matrix)

    @cached_property
    def comparison(self) -> TargetComparison | None:
        """The figures beside the target, if there is one."""
        return None if self.target is None else compare(self.target, self.class_map, self.metrics)

    @property
    def stored(self) -> bool:
        """Whether the figures were stored at training time."""
        return self.findings is None

    def interval(self, name: str) -> Interval:
        """The interval of a figure, see `Findings.intervals`; NaN where nothing was resampled."""
        if self.findings is not None:
            return self.findings.intervals[name]
        nothing = np.full(len(self.class_map) if name in PER_CLASS else (), np.nan)
        return Interval(nothing, nothing)

    @property
    def headline_gap_interval(self) -> Interval | None:
        """The interval of the distance to the target's headline."""
        if self.target is None:
            return None
        name = "miou_with_background" if self.target.headline_with_background else "miou_without_background"
        return self.interval(name) - self.target.headline_miou

    @property
    def caption(self) -> str:
        """One line on what was measured."""
        parts = [f"{self.split} split", counted(self.patches, "patch", "patches")]
        if self.findings is not None:
            ground = self.findings.ground_blocks
            if self.findings.photos > ground:
                parts.append(counted(self.findings.photos - ground, "photo", "photos"))
            if ground:
                parts.append(counted(ground, "block of ground", "blocks of ground"))
        parts.append(self.way.text)
        if self.iteration is not None:
            parts.append(f"iteration {self.iteration:,}")
        if self.recipe is not None:
            parts.append(f"recipe {self.recipe}")
        if self.stored:
            parts.append("figures stored at training time")
        return ", ".join(parts)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Every sentence that belongs under the figures: the notes, then what the figures themselves call for."""
        remarks = list(self.notes)
        if self.data is not None:
            remarks.append(f"Measured on the patches in the folder {self.data}.")
        if self.stored:
            remarks.append("The data was not at hand: these are the figures stored at training time.")
        if self.split == "val":
            remarks.append(
                "The val split also helps to choose the checkpoint, and its variant and temperature if these were "
                "chosen, so its figures can flatter the model."
            )
        if self.findings is not None:
            remarks.extend(self.findings.remarks)
            if self.split == "test":
                remarks.append(
                    "The recommended thresholds are for looking at: `salakseg report --split val` writes them as a "
                    "recipe, since what is chosen on test spoils the test."
                )
            rare = [self.class_map.names[class_id] for class_id in self.findings.rare]
            if rare:
                remarks.append(f"In too few {self.findings.unit}s for an interval: {', '.join(rare)}.")
        missing = self.metrics.support == 0
        predicted = self.metrics.predicted > 0
        absent = self._names(missing & ~predicted)
        if absent:
            remarks.append(f"Neither in this split nor predicted, so without IoU and in no mean: {', '.join(absent)}.")
        invented = self._names(missing & predicted)
        if invented:
            remarks.append(f"Predicted without a true pixel here, so IoU 0 in the mean: {', '.join(invented)}.")
        if self.comparison is not None:
            remarks.extend(self.comparison.remarks)
        return tuple(remarks)

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values, the content of report.json.

        Schema version 3. Arrays run over the classes in the order of their ids, figures run from 0 to 1, intervals are
        ``{low, high}`` and hold 95 %, and None stands for undefined.

        - ``schema``, ``version``: "salakseg.report", 3
        - ``title``, ``split``, ``patches``, ``stored``, ``iteration``, ``recipe``, ``data``, ``notes``: `Report`
        - ``validation``: what the checkpoint says of its own validation, by which it is known again
        - ``variant``: ``{weights, heads, temperature, tta, text}``, see `Way`
        - ``classes``: ``{id, name, color: [r, g, b]}`` each
        - ``confusion``: pixels [K][K], rows = truth, columns = prediction
        - ``metrics``: see `Metrics`; each mean is ``{value, classes}`` with the number of classes it covers
        - ``target``: None or ``{definition, expected, gap, headline_measured, headline_gap, headline_gap_interval,
          unnamed}``, see `TargetComparison`; ``definition`` is the target as its TOML file holds it
        - ``findings``: None for stored figures, else see `Findings`: ``resampling`` (unit, units, intervals by figure),
          ``boundary_iou``, ``variants`` and ``runs`` (metrics, paired difference and its interval each), ``cost``,
          ``disagreement``, ``thresholds``, ``calibration``, ``folders``, ``photo_figures``, ``confused_pairs``,
          ``errors``, ``worst_patches``
        - ``training``: None or the `Diagnosis`: findings with their bands, peak, decline and the paragraph
        - ``recorded``: None or results of earlier trainers, see `Recorded`
        - ``remarks``: the sentences under the figures
        """
        target = None if self.comparison is None else self.comparison.to_dict()
        if target is not None and self.headline_gap_interval is not None:
            target["headline_gap_interval"] = self.headline_gap_interval.to_dict()
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "title": self.title,
            "split": self.split,
            "patches": self.patches,
            "variant": self.way.to_dict(),
            "stored": self.stored,
            "iteration": self.iteration,
            "recipe": self.recipe,
            "validation": dict(self.validation),
            "data": self.data,
            "notes": list(self.notes),
            "classes": self.class_map.to_records(),
            "confusion": self.matrix.counts.tolist(),
            "metrics": self.metrics.to_dict(),
            "target": target,
            "findings": None if self.findings is None else self.findings.to_dict(),
            "training": None if self.diagnosis is None else self.diagnosis.to_dict(),
            "recorded": None if self.recorded is None else self.recorded.model_dump(mode="json"),
            "remarks": list(self.remarks),
        }

    def _names(self, chosen: Iterable[Any]) -> list[str]:
        return [name for name, take in zip(self.class_map.names, chosen, strict=True) if take]
