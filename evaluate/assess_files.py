"""The files that the assessment of a map is kept in."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salakseg.errors import SampleError
from salakseg.evaluate.assess import Assessment
from salakseg.evaluate.formats import finite_or_none
from salakseg.evaluate.olofsson import Estimate
from salakseg.mapping.files import write_whole

SCHEMA = "salakseg.accuracy"
VERSION = 1
FILES = ("counts.csv", "per_class.csv", "accuracy.json")
"""The files, in the order in which they are written: accuracy.json, which holds everything, is last."""


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that is a file, or holds an older assessment that is not to be replaced.

    Raises:
        SampleError: Either of them.
    """
    if folder.exists() and not folder.is_dir():
        raise SampleError(f"{folder} is a file; --out names a folder for {', '.join(FILES)}.")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise SampleError(f"{folder / there[0]} exists; name another folder or replace it with --overwrite.")


def write_assessment(assessment: Assessment, folder: Path) -> None:
    """Writes accuracy.json, per_class.csv and counts.csv, replacing those of an older assessment.

    Args:
        assessment: The assessment.
        folder: Where the files go; made if missing.

    Raises:
        SampleError: The folder cannot be made.
        RasterError: A file cannot be written.
    """
    names = assessment.land_cover.class_map.names
    counts = [[name, *row] for name, row in zip(names, assessment.counts_KK.tolist(), strict=True)]
    columns = _columns(assessment)
    texts = {
        "counts.csv": _csv_text(["map \\ label", *names], counts),
        "per_class.csv": _csv_text(list(columns), zip(*columns.values(), strict=True)),
        "accuracy.json": json.dumps(to_dict(assessment), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SampleError(f"{folder} cannot be made ({error.strerror}); name another folder.") from error
    for name in FILES:
        write_whole(folder / name, texts[name])


def to_dict(assessment: Assessment) -> dict[str, Any]:
    """The whole assessment as plain values, the content of accuracy.json.

    Schema version 1. Arrays run over the classes in the order of their ids, None stands for undefined.

    - ``schema``, ``version``: "salakseg.accuracy", 1
    - ``map``, ``points``: the files
    - ``design``: "stratified" or "simple"; ``seed``: of the sample that salakseg drew, None for others
    - ``unit``: of the areas, "ha" or "px"
    - ``classes``: ``{id, name, color: [r, g, b]}`` each
    - ``counts``: labelled points [K][K], rows = the map's class, columns = the label
    - ``mapped_pixels``, ``mapped_areas``: [K]
    - ``proportions``: the error matrix in shares of the mapped area [K][K]
    - ``overall``, ``users``, ``producers``, ``shares``, ``areas``: ``{value, standard_error, half_width}`` each;
      single numbers or [K], with value ± half_width the 95 % interval
    - ``remarks``: the sentences under the figures
    """
    estimates = assessment.estimates
    figures = ("overall", "users", "producers", "shares", "areas")
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "map": str(assessment.land_cover.path),
        "points": str(assessment.points),
        "design": assessment.design,
        "seed": None if assessment.drawn is None else assessment.drawn.seed,
        "unit": assessment.unit,
        "classes": assessment.land_cover.class_map.to_records(),
        "counts": assessment.counts_KK.tolist(),
        "mapped_pixels": assessment.land_cover.pixels_K.tolist(),
        "mapped_areas": assessment.mapped_K.tolist(),
        "proportions": estimates.proportions.tolist(),
        **{name: _plain(getattr(estimates, name)) for name in figures},
        "remarks": list(assessment.remarks),
    }


def _plain(figure: Estimate) -> dict[str, Any]:
    parts = {"value": figure.value, "standard_error": figure.standard_error, "half_width": figure.half_width}
    return {
        name: finite_or_none(float(part)) if np.ndim(part) == 0 else [finite_or_none(float(one)) for one in part]
        for name, part in parts.items()
    }


def _columns(assessment: Assessment) -> dict[str, Sequence[object]]:
    estimates, unit = assessment.estimates, assessment.unit
    classes = assessment.land_cover.class_map.classes
    columns: dict[str, Sequence[object]] = {
        "class_id": [c.id for c in classes],
        "class_name": [c.name for c in classes],
        "points": assessment.counts_KK.sum(axis=1).tolist(),
        f"mapped_{unit}": [_cell(area) for area in assessment.mapped_K],
    }
    for name, figure in (
        (f"area_{unit}", estimates.areas),
        ("share", estimates.shares),
        ("users_accuracy", estimates.users),
        ("producers_accuracy", estimates.producers),
    ):
        columns[name] = [_cell(value) for value in figure.value]
        columns[f"{name}_ci95"] = [_cell(value) for value in figure.half_width]
    return columns


def _cell(value: float) -> str:
    """Six decimals, or an empty cell for an undefined figure."""
    return "" if np.isnan(value) else f"{value:.6f}"


def _csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()
