"""What is known of a run at each of its evaluations, gathered from the records of its log.

The trainer judges itself by the log that it has just written, and ``salakseg diagnose`` by the same log later: both see
the same readings, so they raise the same alarms. A figure that was not logged is NaN, and no comparison with NaN holds.

Axes: K class.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salakseg.evaluate.history import ROLLBACK, STOPPED_EARLY

Record = Mapping[str, Any]
"""A line of ``metrics.jsonl``: ``kind``, ``iteration``, and what that kind holds."""

ALARM = "alarm"
"""``event`` of the records of the kind "event" that the watch writes of an alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One evaluation, and the steps since the one before. Scores and shares run from 0 to 1; NaN is unknown.

    Attributes:
        iteration: Steps done.
        miou: Validation mIoU without background of the moving average.
        student_miou, teacher_miou: The same of student and moving average, on the same sample of validation patches.
        train_miou: The same of the moving average on a sample of labelled patches.
        kept, kept_foreground: Share of the valid pixels with a pseudo-label, of all classes and of those from 1 on.
        kept_K, pseudo_K: Kept pixels by class, and all pixels by the labeller's class; empty if unknown.
        labelled_K: Share of each class in the labelled part; empty if unknown.
        classes: Their names; empty if unknown.
        divergence: Kullback-Leibler divergence of the kept pixels' classes from the labelled ones, in nats.
        precision, precision_K: Share of the kept pixels whose pseudo-label is right, of all and by predicted class.
        precision_part: Where that was measured, "calibration" or "val"; empty if unknown.
        loss, loss_sup, loss_unsup, ce, dice, focal: Means over the steps.
        loss_broken: Whether some loss among them was no finite number.
        gradient_norm: Mean over the steps, before clipping.
        skipped: Share of the steps without a finite gradient, which moved no weight.
        learning_rate: The encoder's, at the end.
        images_per_second: Labelled and unlabelled ones, evaluations included.
        memory_gib, memory_share: The most that the device had in use, also as a share of what it has.
        batch_parts: Parts that a batch is learned in.
        stopped: Whether the run stopped early here.
        rolled_back: Whether the trainer went back to its best checkpoint since the evaluation before.
    """

    iteration: int
    miou: float = math.nan
    student_miou: float = math.nan
    teacher_miou: float = math.nan
    train_miou: float = math.nan
    kept: float = math.nan
    kept_foreground: float = math.nan
    kept_K: tuple[float, ...] = ()
    pseudo_K: tuple[float, ...] = ()
    labelled_K: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    divergence: float = math.nan
    precision: float = math.nan
    precision_K: tuple[float, ...] = ()
    precision_part: str = ""
    loss: float = math.nan
    loss_sup: float = math.nan
    loss_unsup: float = math.nan
    ce: float = math.nan
    dice: float = math.nan
    focal: float = math.nan
    loss_broken: bool = False
    gradient_norm: float = math.nan
    skipped: float = math.nan
    learning_rate: float = math.nan
    images_per_second: float = math.nan
    memory_gib: float = math.nan
    memory_share: float = math.nan
    batch_parts: float = 1
    stopped: bool = False
    rolled_back: bool = False

    @property
    def gap(self) -> float:
        """MIoU on labelled patches minus validation mIoU."""
        return round(self.train_miou - self.miou, 6)  # 0.61 - 0.60 is a little more than 0.01 in binary


def readings_of(records: Sequence[Record]) -> list[Reading]:
    """The readings of a whole log, one for each evaluation, by rising iteration."""
    ends = sorted({int(record["iteration"]) for record in records if record["kind"] == "val"})
    places = {record["iteration"]: place for place, record in enumerate(records) if record["kind"] == "val"}
    readings: list[Reading] = []
    before, begin = -1, 0
    for end in ends:
        own = [(place, record) for place, record in enumerate(records) if before < record["iteration"] <= end]
        # A rollback at an evaluation is written after it, one where the numbers broke before the next one
        back = [place for place in range(begin, places[end]) if _event(records[place]) == ROLLBACK]
        # What the steps before it said is of weights that are gone
        since = [r for place, r in own if r["kind"] != "train" or place >= max(back, default=0)]
        readings.append(_reading(end, since, bool(back)))
        before, begin = end, places[end]
    return readings


def kl_divergence(counts_K: Sequence[float], reference_K: Sequence[float]) -> float:
    """Kullback-Leibler divergence of one histogram of classes from another, in nats.

    A millionth is added to every class's share of both, so that a class that the reference lacks costs much, and not
    infinitely much.

    Args:
        counts_K: 0 or more each.
        reference_K: The same.

    Returns:
        0 or more; NaN where either is empty or they do not fit.
    """
    if len(counts_K) != len(reference_K) or sum(counts_K) <= 0 or sum(reference_K) <= 0:
        return math.nan
    smooth = 1e-6
    whole = 1 + smooth * len(counts_K)
    p_K = [(value / sum(counts_K) + smooth) / whole for value in counts_K]
    q_K = [(value / sum(reference_K) + smooth) / whole for value in reference_K]
    return max(sum(p * math.log(p / q) for p, q in zip(p_K, q_K, strict=True)), 0.0)


def _reading(iteration: int, records: Sequence[Record], rolled_back: bool) -> Reading:
    steps = [record for record in records if record["kind"] == "train"]
    # A recorded curve has all in one kind; of a key that several records have, the last one at the evaluation counts
    here: dict[str, Any] = {}
    for record in records:
        if record["kind"] in ("val", "watch") and record["iteration"] == iteration:
            here.update(record)
    kept_K, labelled_K = _sums(steps, "kept_pixels"), _numbers(here.get("labelled_share"))

    def mean(key: str) -> float:
        own = [value for record in steps if math.isfinite(value := _number(record.get(key)))]
        return math.fsum(own) / len(own) if own else _number(here.get(key))

    return Reading(
        iteration=iteration,
        miou=_number(here.get("miou_without_background")),
        student_miou=_number(here.get("student_miou")),
        teacher_miou=_number(here.get("teacher_miou")),
        train_miou=_number(here.get("train_miou")),
        kept=mean("kept_share"),
        kept_foreground=mean("kept_share_foreground"),
        kept_K=kept_K,
        pseudo_K=_sums(steps, "pseudo_pixels"),
        labelled_K=labelled_K,
        classes=tuple(map(str, here["classes"])) if isinstance(here.get("classes"), list) else (),
        divergence=kl_divergence(kept_K, labelled_K),
        precision=_number(here.get("pseudo_precision")),
        precision_K=_numbers(here.get("pseudo_precision_of_class")),
        precision_part=str(here.get("pseudo_precision_part", "")),
        loss=mean("loss"),
        loss_sup=mean("loss_sup"),
        loss_unsup=mean("loss_unsup"),
        ce=mean("ce"),
        dice=mean("dice"),
        focal=mean("focal"),
        # null is how JSON has a loss that is no number; a record without the key says nothing
        loss_broken=any("loss" in record and not math.isfinite(_number(record["loss"])) for record in steps),
        gradient_norm=mean("gradient_norm"),
        skipped=mean("skipped_share"),
        learning_rate=_number(steps[-1].get("learning_rate")) if steps else _number(here.get("learning_rate")),
        images_per_second=_number(here.get("images_per_second")),
        memory_gib=_number(here.get("memory_gib")),
        memory_share=_number(here.get("memory_share")),
        batch_parts=_number(here.get("batch_parts", 1)),
        stopped=any(_event(record) == STOPPED_EARLY for record in records if record["iteration"] == iteration),
        rolled_back=rolled_back,
    )


def _event(record: Record) -> object:
    return record.get("event") if record["kind"] == "event" else None


def _sums(records: Iterable[Record], key: str) -> tuple[float, ...]:
    """Counts by class, added up."""
    rows = [row for record in records if (row := _numbers(record.get(key)))]
    return tuple(map(sum, zip(*rows, strict=True))) if len({len(row) for row in rows}) == 1 else ()


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(map(_number, value)) if isinstance(value, list | tuple) else ()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
