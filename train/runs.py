"""What the files of a run say about it: state, progress, best evaluation. No checkpoint is opened.

What can be known: a run that holds its folder's lock is running, on this machine or on one whose locks the disk shares.
How it ended stands in the last record of its log, an event; one for Ctrl-C or a signal says how far it had come.
Without one it was interrupted by a kill or a power cut. Logs from before there were events are judged by their
evaluations. Steps since the last record are not counted.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from salakseg.train.recipe import Recipe
from salakseg.train.stopping import stop_reason


class State(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    STOPPED = "stopped early"
    FAILED = "failed"
    DAMAGED = "damaged"

    @property
    def is_over(self) -> bool:
        """Whether the run came to an end of its own, so that there is nothing to go on with."""
        return self in (State.FINISHED, State.STOPPED)


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation of a run.

    Attributes:
        miou_without_background, miou_with_background: 0 to 1, NaN where unknown.
        iteration: When it was.
    """

    miou_without_background: float
    miou_with_background: float
    iteration: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a line.

    Attributes:
        path: Its folder.
        recipe: Name of the recipe, empty where unknown.
        state: How it stands.
        reason: Why it ended or what is damaged, empty where there is nothing to say.
        iteration: Steps done by the last record.
        planned: Steps of the recipe, 0 where unknown.
        best: The evaluation with the best mIoU without background, None before the first one.
        trained_at: When its log was last written to.
        seconds: Time that the logged steps took, with evaluations between them; NaN where unknown.
    """

    path: Path
    recipe: str
    state: State
    reason: str
    iteration: int
    planned: int
    best: Best | None
    trained_at: datetime
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, null where unknown."""
        best = self.best
        return {
            "path": str(self.path),
            "recipe": self.recipe or None,
            "state": self.state.value,
            "reason": self.reason or None,
            "iteration": self.iteration,
            "planned": self.planned or None,
            "best_miou_without_background": None if best is None else _plain(best.miou_without_background),
            "best_miou_with_background": None if best is None else _plain(best.miou_with_background),
            "best_iteration": None if best is None else best.iteration,
            "trained_at": self.trained_at.isoformat(timespec="seconds"),
            "seconds": _plain(self.seconds),
        }


def list_runs(runs: Path) -> list[RunSummary]:
    """The runs of a folder, and of the ladders in it, the one that was trained last first."""
    folders = [path for pattern in ("*", "*/*") for path in runs.glob(pattern) if is_run(path)]
    return sorted((read_run(path) for path in folders), key=lambda run: run.trained_at, reverse=True)


def is_run(path: Path) -> bool:
    """Whether a folder is a run, if only what is left of one."""
    return path.is_dir() and any((path / name).exists() for name in ("recipe.toml", "metrics.jsonl", "checkpoints"))


def read_run(path: Path) -> RunSummary:
    """What the files of a run say. Never an error: a damaged one says so."""
    recipe, damage = _read_recipe(path / "recipe.toml")
    records, lost = _read_records(path / "metrics.jsonl")
    state, reason = _ending(records, recipe)
    if _is_held(path):
        state, reason = State.RUNNING, ""
    elif damage or lost:
        state, reason = State.DAMAGED, damage or lost
    schedule = recipe.get("schedule")
    planned = schedule.get("iterations") if isinstance(schedule, Mapping) else None
    return RunSummary(
        path=path,
        recipe=str(recipe.get("name", "")),
        state=state,
        reason=reason,
        iteration=max((record["iteration"] for record in records), default=0),
        planned=planned if isinstance(planned, int) else 0,
        best=_best(records),
        trained_at=_trained_at(path),
        seconds=_seconds(records),
    )


def ending_of(path: Path) -> State:
    """How a run ended by its own log, whether or not a process holds it just now."""
    return _ending(_read_records(path / "metrics.jsonl")[0], _read_recipe(path / "recipe.toml")[0])[0]


def _read_recipe(path: Path) -> tuple[dict[str, Any], str]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})"


def _read_records(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The records of a log; a last line that is cut short is what a kill leaves, others are damage."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"{path.name} cannot be read ({error.strerror})"
    records, bad = [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("iteration"), int):
            records.append(record)
        else:
            bad.append(number)
    if bad and bad != [len(lines)]:
        return records, f"{path.name}: line {bad[0]} is no record"
    return records, ""


def _ending(records: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> tuple[State, str]:
    last = records[-1] if records else {}
    if last.get("kind") == "event":
        event, reason = str(last.get("event")), str(last.get("reason") or "")
        if event == "finished":
            return State.FINISHED, reason
        if event.startswith("stopped"):
            return State.STOPPED, reason
        if event == "failed":
            return State.FAILED, reason
    try:
        known = Recipe.model_validate(dict(recipe))
    except ValidationError:  # of another version
        return State.INTERRUPTED, ""
    evaluations = [record for record in records if record.get("kind") == "val"]
    if evaluations and evaluations[-1]["iteration"] >= known.schedule.iterations:  # the last step is not the end
        return State.FINISHED, ""
    scores = [_score(record) for record in evaluations]
    # An evaluation is the last thing that happened also where the watch has added its records to it
    ended_there = bool(evaluations) and last["iteration"] == evaluations[-1]["iteration"]
    if ended_there and (reason_then := stop_reason(scores, known.evaluation)) is not None:
        return State.STOPPED, reason_then
    return State.INTERRUPTED, ""


def _is_held(path: Path) -> bool:
    """Whether a process trains the run now; nothing is created for the question."""
    lock = path / ".lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # a disk without locks, or a folder that may only be read
        return False


def _best(records: Sequence[Mapping[str, Any]]) -> Best | None:
    evaluations = [record for record in records if record.get("kind") == "val" and not math.isnan(_score(record))]
    if not evaluations:
        return None
    best = max(evaluations, key=_score)  # of equal ones the first, whose checkpoint was kept
    return Best(_score(best), _number(best.get("miou_with_background")), best["iteration"])


def _score(record: Mapping[str, Any]) -> float:
    return _number(record.get("miou_without_background"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Time of the steps by the rates between records: an interruption does not count."""
    total, before = 0.0, 0
    for record in records:
        rate = _number(record.get("steps_per_second"))
        if record.get("kind") == "train" and rate > 0:
            total += (record["iteration"] - before) / rate
            before = record["iteration"]
    return total if before else math.nan


def _trained_at(path: Path) -> datetime:
    for name in ("metrics.jsonl", "recipe.toml", "."):
        try:
            return datetime.fromtimestamp((path / name).stat().st_mtime).astimezone()
        except OSError:
            continue
    return datetime.fromtimestamp(0).astimezone()


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
