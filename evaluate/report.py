"""The report on one checkpoint: what was measured, and the files it is kept in."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from salakseg.classes import ClassMap
from salakseg.errors import ClassMapError, ReportError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.metrics import Metrics, compute_metrics
from salakseg.evaluate.targets import Target, TargetComparison, compare

Split = Literal["test", "val"]
Weights = Literal["EMA", "student"]

SCHEMA = "salakseg.report"
VERSION = 1
FILES = ("confusion.csv", "confusion_normalised.csv", "per_class.csv", "report.png", "report.json")
"""The files of a report, in the order in which they are put in place: report.json, which holds everything, is last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What was measured on one checkpoint. The figures are derived from the matrix, so that they cannot disagree.

    Attributes:
        title: Name of the checkpoint.
        split: The part of the data that the matrix was counted on.
        patches: Number of patches in that part.
        class_map: The K classes.
        matrix: Counts [K, K] of pixels; the report keeps a copy.
        weights: Whose weights were measured.
        stored: The figures were stored at training time, because the data was not at hand for measuring.
        iteration: Training iteration of the checkpoint, if known.
        recipe: Name of the recipe, if known.
        target: What to compare with, if anything.
        data_root: Folder of the patches that were measured, if any were.
        notes: Sentences that a reader must know, such as one on stand-in data.

    Raises:
        ValueError: The matrix has another number of classes than the class map, or an unknown split or weights.
    """

    title: str
    split: Split
    patches: int
    class_map: ClassMap
    matrix: ConfusionMatrix
    weights: Weights
    stored: bool = False
    iteration: int | None = None
    recipe: str | None = None
    target: Target | None = None
    data_root: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.matrix.num_classes != len(self.class_map):
            raise ValueError(f"{self.matrix.num_classes} classes in the matrix, {len(self.class_map)} in the class map")
        if self.split not in get_args(Split) or self.weights not in get_args(Weights):
            raise ValueError(f"unknown split {self.split!r} or weights {self.weights!r}")
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
    def caption(self) -> str:
        """One line on what was measured."""
        parts = [f"{self.split} split", f"{self.patches:,} patches", f"{self.weights} weights"]
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
        if self.data_root is not None:
            remarks.append(f"Measured on the patches in {self.data_root}.")
        if self.stored:
            remarks.append("The data was not at hand: these are the figures stored at training time.")
        if self.split == "val":
            remarks.append("The val split also helps to choose the checkpoint, so its figures can flatter the model.")
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

        Schema version 1. Arrays run over the classes in the order of their ids, figures run from 0 to 1, and None
        stands for undefined.

        - ``schema``, ``version``: "salakseg.report", 1
        - ``title``, ``split``, ``patches``, ``weights``, ``stored``, ``iteration``, ``recipe``,
          ``data_root``, ``notes``: see `Report`
        - ``classes``: ``{id, name, color: [r, g, b]}`` each
        - ``confusion``: pixels [K][K], rows = truth, columns = prediction
        - ``metrics``: see `Metrics`; each mean is ``{value, classes}`` with the number of classes it covers
        - ``target``: None or ``{definition, expected, gap, headline_measured, headline_gap, unnamed}``, see
          `TargetComparison`; ``definition`` is the target as its TOML file holds it
        - ``remarks``: the sentences under the figures
        """
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "title": self.title,
            "split": self.split,
            "patches": self.patches,
            "weights": self.weights,
            "stored": self.stored,
            "iteration": self.iteration,
            "recipe": self.recipe,
            "data_root": self.data_root,
            "notes": list(self.notes),
            "classes": self.class_map.to_records(),
            "confusion": self.matrix.counts.tolist(),
            "metrics": self.metrics.to_dict(),
            "target": None if self.comparison is None else self.comparison.to_dict(),
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], source: str = "the report") -> Self:
        """The reverse of `to_dict`; the figures are derived again from the counts.

        Raises:
            ReportError: Another schema or version, or an entry that is missing or wrong.
        """
        if record.get("schema") != SCHEMA or record.get("version") != VERSION:
            raise ReportError(f"{source} is not a {SCHEMA} of version {VERSION}; write it anew from its checkpoint.")
        try:
            target = record["target"]
            return cls(
                **{name: record[name] for name in ("title", "split", "patches", "weights", "stored")},
                **{name: record[name] for name in ("iteration", "recipe", "data_root")},
                class_map=ClassMap.from_records(record["classes"], source),
                matrix=ConfusionMatrix.from_counts(record["confusion"]),
                target=None if target is None else Target.model_validate(target["definition"]),
                notes=tuple(record["notes"]),
            )
        except (KeyError, TypeError, ValueError, ClassMapError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ReportError(f"{source} is damaged ({reason}); write it anew from its checkpoint.") from error

    def _names(self, chosen: Iterable[Any]) -> list[str]:
        return [name for name, take in zip(self.class_map.names, chosen, strict=True) if take]


def write_report(report: Report, folder: Path) -> dict[str, Path]:
    """Writes report.json, three CSV files and report.png, replacing an older report in the folder.

    Every file is finished before the first is put in place, and if one cannot be, the older report is restored.

    Args:
        report: The report.
        folder: Where the files go; made if missing. Other files in it are left alone.

    Returns:
        The path of each file under its name, such as ``paths["report.png"]``.

    Raises:
        ReportError: The folder cannot be written to.
    """
    from salakseg.evaluate.figures import write_figure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the folder rather than beside it: a move within one file system is all or nothing.
        with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as temporary:
            staged = Path(temporary)
            _write_tables(report, staged)
            write_figure(report, staged / "report.png")
            text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
            (staged / "report.json").write_text(text + "\n", encoding="utf-8")
            _put_in_place(staged, folder)
    except OSError as error:
        raise ReportError(
            f"The report cannot be written to {folder} ({error}); close its files elsewhere or name another folder."
        ) from error
    return {name: folder / name for name in FILES}


def _put_in_place(staged: Path, folder: Path) -> None:
    replaced = staged / "replaced"
    replaced.mkdir()
    try:
        for name in FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")
            if (folder / name).exists():
                os.replace(folder / name, replaced / name)
            os.replace(staged / name, folder / name)
    except BaseException:
        # Where each file is now says what was done to it; a list of steps could lag behind an interrupt.
        for name in FILES:
            if (replaced / name).exists():
                os.replace(replaced / name, folder / name)
            elif not (staged / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise


def _write_tables(report: Report, folder: Path) -> None:
    names = report.class_map.names
    corner = "truth \\ prediction"
    counts = [[name, *row] for name, row in zip(names, report.matrix.counts.tolist(), strict=True)]
    _write_csv(folder / "confusion.csv", [corner, *names], counts)
    shares = [[name, *map(_cell, row)] for name, row in zip(names, report.matrix.normalised(), strict=True)]
    _write_csv(folder / "confusion_normalised.csv", [corner, *names], shares)

    metrics, comparison = report.metrics, report.comparison
    nothing = np.full(len(names), np.nan)
    columns = {
        "class_id": [c.id for c in report.class_map.classes],
        "class_name": names,
        "class_color": ["#{:02x}{:02x}{:02x}".format(*c.color) for c in report.class_map.classes],
        "support": metrics.support.tolist(),
        "predicted": metrics.predicted.tolist(),
        "iou": map(_cell, metrics.iou),
        "precision": map(_cell, metrics.precision),
        "recall": map(_cell, metrics.recall),
        "f1": map(_cell, metrics.f1),
        "target_iou": map(_cell, nothing if comparison is None else comparison.expected),
        "gap": map(_cell, nothing if comparison is None else comparison.gap),
    }
    _write_csv(folder / "per_class.csv", list(columns), zip(*columns.values(), strict=True))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _cell(value: float) -> str:
    """Six decimals, or an empty cell for an undefined figure."""
    return "" if np.isnan(value) else f"{value:.6f}"
