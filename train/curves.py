"""Curves of training runs from files of many makes, as the records of a log.

A run's own ``metrics.jsonl`` is read as it is; besides there are tables (CSV) and JSON, with a row or an object for
each evaluation.
"""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from salakseg.errors import ReportError
from salakseg.evaluate.history import STOPPED_EARLY, Plan, history_of, read_records

_ITERATION = ("iteration", "iter", "step", "it")
_MIOU = ("miou_without_background", "val_miou", "miou", "validation_miou", "val/miou_without_background")


def read_curve(path: Path, plan: Plan) -> list[dict[str, Any]]:
    """Reads the records of a run.

    Args:
        path: ``metrics.jsonl`` of a run, a CSV file with a header, or a JSON file with a list of objects or an object
            of lists. Each row has an iteration (``iteration`` or ``step``) and a validation mIoU (``miou`` or
            ``val_miou``), and whatever else a log has, such as ``kept_share`` or ``train_miou``; shares run to 1.
        plan: What was planned; where it tells that patience ran out, the last record says so.

    Returns:
        Plain values by rising iteration, with ``kind`` and ``iteration`` each.

    Raises:
        ReportError: The file cannot be read, or has no curve.
    """
    if path.suffix.lower() == ".jsonl":
        records = read_records(path)
        if not any(record["kind"] == "val" for record in records):
            raise ReportError(f"{path} has no evaluation yet; wait for the first one.")
        return records
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    records = sorted((_record(row, number, path) for number, row in rows), key=lambda record: record["iteration"])
    if not records:
        raise ReportError(f"{path} has no evaluation; expected a row for each, with iteration and miou.")
    # A table has no record of how the run ended, whatever recipe it is held against
    if history_of(records, replace(plan, tells_its_end=False), str(path)).stopped_early:
        records.append({"kind": "event", "iteration": records[-1]["iteration"], "event": STOPPED_EARLY})
    return records


def _record(row: Mapping[str, Any], number: int, path: Path) -> dict[str, Any]:
    """One evaluation; ``number`` is where it stands, for the message."""
    named = {str(key).strip().casefold(): value for key, value in row.items() if key is not None}
    iteration, miou = (next((named[key] for key in keys if key in named), None) for keys in (_ITERATION, _MIOU))
    where = f"{path} row {number}"
    at = _number(iteration)
    if not (at >= 0 and at.is_integer()):
        raise ReportError(f"{where}: {iteration!r} is no iteration; expected a column iteration with whole numbers.")
    score = _number(miou)
    if not 0 <= score <= 1:
        raise ReportError(f"{where}: {miou!r} is no mIoU from 0 to 1; expected a column miou (percents are not taken).")
    known = {key: value for key, text in named.items() if math.isfinite(value := _number(text))}
    return {**known, "kind": "val", "iteration": int(at), "miou_without_background": score}


def _csv_rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    lines = _text(path).splitlines()
    separator = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    try:
        rows = list(csv.DictReader(lines, delimiter=separator))
    except csv.Error as error:
        raise ReportError(f"{path} cannot be read as a CSV file ({error}).") from error
    return [(number, row) for number, row in enumerate(rows, start=2)]


def _json_rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is no JSON file ({error}).") from error
    if isinstance(content, dict):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len({len(value) for value in lists.values()}) > 1:
            raise ReportError(f"{path} has lists of different lengths; each needs an entry for every evaluation.")
        content = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ReportError(f"{path} holds no curve; expected a list of objects, or an object of lists.")
    return list(enumerate(content, start=1))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ReportError(f"{path} does not exist; name a metrics.jsonl, a CSV or a JSON file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} cannot be read as text in UTF-8 ({error}).") from error


def _number(value: object) -> float:
    """A number, or what reads as one; else NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
