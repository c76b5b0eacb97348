"""The tables of a report as CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.evaluate.findings import Contender, Findings
from salakseg.evaluate.metrics import OVERALL, PER_CLASS
from salakseg.evaluate.report import Report


def write_tables(report: Report, folder: Path) -> None:
    """Writes confusion.csv, confusion_normalised.csv and per_class.csv, and per_photo.csv and variants.csv if measured.

    Figures have six decimals; an undefined one is an empty cell.

    Args:
        report: The report.
        folder: Where the files go.

    Raises:
        OSError: A file cannot be written.
    """
    names = report.class_map.names
    corner = "truth \\ prediction"
    counts = [[name, *row] for name, row in zip(names, report.matrix.counts.tolist(), strict=True)]
    _write(folder / "confusion.csv", [corner, *names], counts)
    shares = [[name, *map(_cell, row)] for name, row in zip(names, report.matrix.normalised(), strict=True)]
    _write(folder / "confusion_normalised.csv", [corner, *names], shares)
    _write_per_class(report, folder / "per_class.csv")
    if report.findings is not None:
        _write_per_photo(report.findings, names, folder / "per_photo.csv")
        _write_variants((*report.findings.variants, *report.findings.runs[1:]), names, folder / "variants.csv")


def _write_per_class(report: Report, path: Path) -> None:
    metrics, comparison = report.metrics, report.comparison
    nothing = np.full(len(report.class_map), np.nan)
    columns: dict[str, Iterable[Any]] = {
        "class_id": [c.id for c in report.class_map.classes],
        "class_name": report.class_map.names,
        "class_color": ["#{:02x}{:02x}{:02x}".format(*c.color) for c in report.class_map.classes],
        "support": metrics.support.tolist(),
        "predicted": metrics.predicted.tolist(),
    }
    figures: dict[str, NDArray[np.float64]] = {name: getattr(metrics, name) for name in PER_CLASS}
    if report.findings is not None:
        figures["boundary_iou"] = report.findings.boundary_iou
    for name, values in figures.items():
        columns[name] = map(_cell, values)
        if report.findings is not None:
            interval = report.interval(name)
            columns[f"{name}_low"], columns[f"{name}_high"] = map(_cell, interval.low), map(_cell, interval.high)
    columns["target_iou"] = map(_cell, nothing if comparison is None else comparison.expected)
    columns["gap"] = map(_cell, nothing if comparison is None else comparison.gap)
    _write(path, list(columns), zip(*columns.values(), strict=True))


def _write_per_photo(findings: Findings, names: Sequence[str], path: Path) -> None:
    header = ["folder", "photo", "patches", "pixels", *OVERALL, "classes_in_miou", *(f"iou {name}" for name in names)]
    rows = (
        [
            place.folder,
            place.photo,
            place.patches,
            place.pixels,
            *(_cell(place.metrics.overall_value(name)) for name in OVERALL),
            place.metrics.miou_without_background.classes,
            *map(_cell, place.metrics.iou),
        ]
        for place in findings.places
    )
    _write(path, header, rows)


def _write_variants(contenders: Iterable[Contender], names: Sequence[str], path: Path) -> None:
    header = [
        "name",
        "weights",
        "heads",
        "tta",
        *OVERALL,
        "classes_in_miou",
        "difference",
        "difference_low",
        "difference_high",
    ]
    rows = (
        [
            one.name,
            one.way.variant.weights,
            one.way.variant.heads,
            int(one.way.tta),
            *(_cell(one.metrics.overall_value(name)) for name in OVERALL),
            one.metrics.miou_without_background.classes,
            *map(_cell, (one.difference, *one.interval.ends)),
            *map(_cell, one.metrics.iou),
        ]
        for one in contenders
    )
    _write(path, [*header, *(f"iou {name}" for name in names)], rows)


def _write(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _cell(value: float) -> str:
    """Six decimals, or an empty cell for an undefined figure."""
    return "" if np.isnan(value) else f"{value:.6f}"
