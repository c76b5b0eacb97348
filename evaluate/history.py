"""The history of a training run: what was measured on the way, and what had been planned.

It comes from the run's log (`read_history`), from the records in a checkpoint (`history_of_records`), or from numbers
(`TrainingHistory` itself, for curves that somebody else wrote down).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from salakseg.errors import ReportError

Series = tuple[tuple[int, float], ...]
"""Pairs of (iteration, value) by rising iteration; a value that was logged as undefined is NaN."""

_KINDS = ("train", "val", "watch")

_KEYS = {
    "miou_without_background": "val_miou",
    "miou_with_background": "val_miou_with_background",
    **{
        name: name
        for name in (
            *("learning_rate", "kept_share", "kept_share_foreground", "pseudo_precision", "train_miou"),
            *("loss", "loss_sup", "loss_unsup", "ce", "dice", "focal", "gradient_norm"),
        )
    },
}
"""Key in a record of the log -> series of `TrainingHistory`."""

_SHARES = (
    "val_miou",
    "val_miou_with_background",
    "train_miou",
    "kept_share",
    "kept_share_foreground",
    "pseudo_precision",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the recipe had planned; None is unknown.

    Attributes:
        iterations: Training steps.
        warmup: Steps of the warm-up.
        peak_rate: Learning rate of the encoder at the end of the warm-up.
        evaluate_every: Steps between two evaluations.
        patience: Evaluations without a new best after which the run stops.
        tells_its_end: Whether the log of such a run says why it stopped; those of other programs do not.
        ce, dice: Weights of these parts of the loss.
        selftraining: Whether unlabelled patches take part.
        selftraining_start: First step with pseudo-labels.
        selftraining_weight: Weight of the loss on pseudo-labels.
        labeller: Who labels, "student" or "teacher".
        class_weighted: Whether class weights act on pseudo-labels.
        keep: What says which pseudo-labels count, such as "fixed" for thresholds of the recipe.
        background_threshold: Least confidence of a background pixel, 0 to 1; None also where thresholds are not fixed.
        least_threshold: The lowest of the thresholds of the classes from 1 on, 0 to 1; the same.
    """

    iterations: int | None = None
    warmup: int | None = None
    peak_rate: float | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    tells_its_end: bool = False
    ce: float | None = None
    dice: float | None = None
    selftraining: bool | None = None
    selftraining_start: int | None = None
    selftraining_weight: float | None = None
    labeller: str | None = None
    class_weighted: bool | None = None
    keep: str | None = None
    background_threshold: float | None = None
    least_threshold: float | None = None

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> Self:
        """The plan of a recipe as a checkpoint keeps it; what is missing or of another kind is unknown.

        Args:
            recipe: Nested tables of plain values, see `salakseg.train.recipe.Recipe`.
        """
        schedule, loss, selftraining, optimizer, evaluation = (
            _table(recipe, name) for name in ("schedule", "loss", "selftraining", "optimizer", "evaluation")
        )
        class_weighted = _flag(selftraining, "class_weighted")
        if loss.get("class_weights") == "none":
            class_weighted = False  # there are no weights that could apply to pseudo-labels
        labeller, keep = selftraining.get("labeller"), selftraining.get("keep")
        thresholds = selftraining if keep in (None, "fixed") else {}  # the others have no effect
        return cls(
            iterations=_count(schedule, "iterations"),
            warmup=_count(schedule, "warmup"),
            peak_rate=_number(optimizer, "learning_rate"),
            evaluate_every=_count(evaluation, "every"),
            patience=_count(evaluation, "patience"),
            tells_its_end="smoothing" in evaluation,  # a setting of this trainer alone
            ce=_number(loss, "ce"),
            dice=_number(loss, "dice"),
            selftraining=_flag(selftraining, "enabled"),
            selftraining_start=_count(selftraining, "start"),
            selftraining_weight=_number(selftraining, "weight"),
            labeller=labeller if isinstance(labeller, str) else None,
            class_weighted=class_weighted,
            keep=keep if isinstance(keep, str) else None,
            background_threshold=_number(thresholds, "background_threshold"),
            least_threshold=_least(thresholds.get("thresholds")),
        )

    def rate_share(self, iteration: int) -> float:
        """Share of the peak rate in the step that led to an iteration, by the schedule that every recipe has.

        Linear warm-up from 0, then a cosine to 0. The recipe is part of the record of a run, so a rate that follows
        from it is known even where none was logged; a test holds this against the trainer's own schedule.

        Returns:
            0 to 1; NaN if the plan is unknown.
        """
        if self.iterations is None or self.warmup is None or self.warmup >= self.iterations:
            return math.nan
        before = max(iteration - 1, 0)  # the rate of a step is set by the number of steps done before it
        if before < self.warmup:
            return (before + 1) / (self.warmup + 1)
        progress = (before - self.warmup) / (self.iterations - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHistory:
    """The course of one run. A series without entries was not logged.

    Attributes:
        plan: What had been planned.
        stopped_early: True: patience ran out. False: it did not, so a run shorter than its plan was interrupted or
            is still going. None: unknown.
        watched: Why the trainer's watch ended the run; empty where it did not.
        went_back: Iteration at which the trainer last went back to its best network, if it did.
        score_name: What ``val_miou`` is called, with whether background is in it.
        val_miou: Validation mIoU by which the best checkpoint is chosen, 0 to 1, without background.
        val_miou_with_background: Validation mIoU of all classes, 0 to 1.
        train_miou: mIoU on training patches, counted over the same classes as ``val_miou``, 0 to 1.
        learning_rate: The encoder's.
        kept_share: Share of the valid pixels of the unlabelled batch that had a pseudo-label, 0 to 1.
        kept_share_foreground: The same, counting kept pixels of the classes from 1 on only.
        pseudo_precision: Share of the kept pixels whose pseudo-label is right, 0 to 1.
        loss: The whole loss.
        loss_sup, loss_unsup: On labels and on pseudo-labels.
        ce, dice, focal: Parts of ``loss_sup``, unweighted.
        gradient_norm: Before clipping.

    Raises:
        ValueError: A share beyond 0 to 1, such as a percentage.
    """

    plan: Plan = Plan()
    stopped_early: bool | None = None
    watched: str = ""
    went_back: int | None = None
    score_name: str = "validation mIoU without background"
    val_miou: Series = ()
    val_miou_with_background: Series = ()
    train_miou: Series = ()
    learning_rate: Series = ()
    kept_share: Series = ()
    kept_share_foreground: Series = ()
    pseudo_precision: Series = ()
    loss: Series = ()
    loss_sup: Series = ()
    loss_unsup: Series = ()
    ce: Series = ()
    dice: Series = ()
    focal: Series = ()
    gradient_norm: Series = ()

    def __post_init__(self) -> None:
        for name in _KEYS.values():
            # a dict, since what was logged last about an iteration counts
            series = tuple(sorted({int(iteration): float(value) for iteration, value in getattr(self, name)}.items()))
            if name in _SHARES and any(value < 0 or value > 1 for _, value in series):
                raise ValueError(f"{name} does not lie between 0 and 1")
            object.__setattr__(self, name, series)

    @property
    def ended(self) -> int | None:
        """The last iteration that anything is known of; None without any record."""
        logged = [series[-1][0] for series in self.series().values() if series]
        return max(logged, default=None)

    def series(self) -> dict[str, Series]:
        """Every series by its name, empty ones too."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name in _KEYS.values()}


def finite(series: Series) -> Series:
    """The entries of a series that are numbers."""
    return tuple((iteration, value) for iteration, value in series if math.isfinite(value))


def read_history(path: Path, recipe: Mapping[str, Any]) -> TrainingHistory:
    """Reads the log of a run.

    Args:
        path: The run's ``metrics.jsonl``.
        recipe: The recipe as the checkpoint keeps it; empty if unknown.

    Raises:
        ReportError: The file cannot be read, or no line of it is a record.
    """
    return history_of(read_records(path), Plan.from_recipe(recipe), str(path))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a run's log, of all kinds.

    A line that cannot be read, such as the last one of a run that was killed, is passed over. An empty log, of a run
    that has logged nothing yet, gives none.

    Args:
        path: The run's ``metrics.jsonl``.

    Returns:
        Plain values with at least ``kind`` and ``iteration`` each, in the order of the file.

    Raises:
        ReportError: The file cannot be read, or no line of it is a record.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError as error:
        raise ReportError(f"The training log {path} does not exist; it lies in the run's folder.") from error
    except OSError as error:
        raise ReportError(f"The training log {path} cannot be read ({error}); check its permissions.") from error
    records = [record for line in lines if (record := _record(line)) is not None]
    if not records and any(line.strip() for line in lines):
        raise ReportError(f"{path} is no training log: no line is a record; take metrics.jsonl of the run's folder.")
    return records


def history_of_records(records: Iterable[Mapping[str, Any]], recipe: Mapping[str, Any]) -> TrainingHistory:
    """The history in a checkpoint, which has the evaluations up to that checkpoint and no losses.

    Args:
        records: `Checkpoint.history`.
        recipe: `Checkpoint.recipe`.

    Raises:
        ReportError: A figure is impossible.
    """
    sound = [{"kind": "val", **record} for record in records if _is_record(record)]
    return history_of(sound, Plan.from_recipe(recipe), "The checkpoint's history", whole=False)


def history_of(records: Sequence[Mapping[str, Any]], plan: Plan, source: str, whole: bool = True) -> TrainingHistory:
    """The history in the records of a log; kinds that hold no series are passed over.

    Args:
        records: See `read_records`.
        plan: What had been planned.
        source: Where the records come from, for the message.
        whole: Whether the records reach to the end of the run.

    Raises:
        ReportError: A figure is impossible.
    """
    series: dict[str, list[tuple[int, float]]] = {name: [] for name in _KEYS.values()}
    for record in records:
        if record["kind"] not in _KINDS:
            continue
        for key, name in _KEYS.items():
            value = record.get(key, "")
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                series[name].append((int(record["iteration"]), _float(value)))
    try:
        ending, reason = _told_ending(records)
        stop = ending == STOPPED_EARLY or _stopped_early(tuple(series["val_miou"]), plan, whole)
        watched = reason if ending == WATCHED else ""
        values: dict[str, Any] = {name: tuple(pairs) for name, pairs in series.items()}
        return TrainingHistory(plan=plan, stopped_early=stop, watched=watched, went_back=_went_back(records), **values)
    except ValueError as error:
        raise ReportError(f"{source} is damaged ({error}); is it of another program?") from error


STOPPED_EARLY = "stopped early"
WATCHED = "stopped by the watch"
ROLLBACK = "rollback"
RESUMED = "resumed"
"""The ``event`` of the records that say so."""


def _went_back(records: Sequence[Mapping[str, Any]]) -> int | None:
    found = [int(r["iteration"]) for r in records if r["kind"] == "event" and r.get("event") == ROLLBACK]
    return max(found, default=None)


def _told_ending(records: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What the log says of its end, and why; a run that was gone on with has such records further up."""
    last = max((record["iteration"] for record in records if record["kind"] == "val"), default=None)
    for record in reversed(records):
        event = record.get("event")
        if record["kind"] == "event" and event == RESUMED:
            break
        if record["kind"] == "event" and event in (STOPPED_EARLY, WATCHED) and record["iteration"] == last:
            return event, str(record.get("reason", "")) or "no reason is logged."
    return "", ""


def _stopped_early(val_miou: Series, plan: Plan, whole: bool) -> bool | None:
    """Whether patience ran out where no record says so, by the distance from the best evaluation to the last one.

    Args:
        val_miou: The evaluations.
        plan: The plan.
        whole: Whether the records reach to the end of the run; those in the best checkpoint end with the best.
    """
    evaluations = finite(val_miou)
    if not evaluations or plan.iterations is None:
        return None
    last = evaluations[-1][0]
    if last >= plan.iterations:
        return False
    if plan.tells_its_end:
        return False if whole else None
    if plan.patience is None or plan.evaluate_every is None:
        return None
    best, _ = max(evaluations, key=lambda entry: entry[1])  # the first of equals, as the trainer counts
    if last - best >= plan.patience * plan.evaluate_every:
        return True
    return False if whole else None


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "kind" in record and _is_record(record) else None


def _is_record(record: Mapping[str, Any]) -> bool:
    iteration = record.get("iteration")
    whole = isinstance(iteration, int) or (isinstance(iteration, float) and iteration.is_integer())
    return whole and not isinstance(iteration, bool) and 0 <= (iteration or 0) < 10**15


def _float(value: float | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:  # JSON has integers of any length
        return math.nan


def _table(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = recipe.get(name)
    return table if isinstance(table, Mapping) else {}


def _number(table: Mapping[str, Any], key: str) -> float | None:
    value = table.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(table: Mapping[str, Any], key: str) -> int | None:
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _flag(table: Mapping[str, Any], key: str) -> bool | None:
    value = table.get(key)
    return value if isinstance(value, bool) else None


def _least(thresholds: object) -> float | None:
    values = thresholds if isinstance(thresholds, list | tuple) else [thresholds]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return min(numbers) if numbers and len(numbers) == len(values) else None
