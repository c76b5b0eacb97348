"""Evaluating checkpoints: which patches, one pass over them, and what follows from it. Read `judge` first."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.errors import DataError, ReportError, TargetError
from salakseg.evaluate.analyse import analyse
from salakseg.evaluate.choose import choose_variant, fit_temperature
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.diagnosis import diagnose
from salakseg.evaluate.ensemble import Evaluation, evaluate
from salakseg.evaluate.examples import choose_pictures, draw_pictures
from salakseg.evaluate.findings import Findings
from salakseg.evaluate.history import TrainingHistory, history_of_records, read_history
from salakseg.evaluate.inference import Bar, read_batches, to_input
from salakseg.evaluate.recorded import load_recorded
from salakseg.evaluate.report import Report
from salakseg.evaluate.subjects import Part, Subject, held_out_patches, open_subjects, refuse_other_classes
from salakseg.evaluate.targets import Target, load_target
from salakseg.evaluate.thresholds import WANTED_PRECISION
from salakseg.evaluate.timing import cost_of
from salakseg.evaluate.units import UnitKind
from salakseg.evaluate.variants import Way
from salakseg.network.variant import Variant, Weights

DEFAULT_TARGET = "diversenet"

_TIMED = 4  # patches that the cost is measured on


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a checkpoint.

    Attributes:
        target: Name or file of a target; None for the DiverseNet target, whether it has the classes or not.
        data_root: Where the patches are; None means where they were at training time.
        fallback_root: Where they may be if they are neither named nor where they were.
        class_map: The data's classes; they must be the checkpoint's. None takes the checkpoint's.
        part: "test" or "val"; None means test, or val where the split has no test part.
        weights: Whose weights; None for what the checkpoint prefers.
        heads: How heads are combined; None for what the checkpoint prefers.
        tta: Whether every variant is also tried with flips and turns.
        ensemble: Whether the mean of several checkpoints is measured too.
        unit: What is resampled for the intervals.
        wanted_precision: Of pseudo-labels, for the recommended thresholds, 0 to 1.
        write_default: Whether the variant that is best on validation is stored in the first checkpoint.
        write_temperature: Whether a temperature is fitted on validation and stored in the first checkpoint.
        recorded: Whether results of earlier trainers are shown beside.
        notes: Sentences that a reader must know.
        device: torch device.
    """

    target: str | None = None
    data_root: Path | None = None
    fallback_root: Path | None = None
    class_map: ClassMap | None = None
    part: Part | None = None
    weights: Weights | None = None
    heads: str | None = None
    tta: bool = False
    ensemble: bool = False
    unit: UnitKind = "block"
    wanted_precision: float = WANTED_PRECISION
    write_default: bool = False
    write_temperature: bool = False
    recorded: bool = False
    notes: tuple[str, ...] = ()
    device: str = "cpu"


def _no_bar(_: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None)


def judge(paths: Sequence[Path], question: Question, bar: Bar = _no_bar) -> Report:
    """Measures checkpoints on held-out patches, or repeats what was stored at training time.

    Args:
        paths: The checkpoints. The report is on the first; the others are compared with it.
        question: What is asked.
        bar: Makes progress bars.

    Raises:
        CheckpointError: A file is no checkpoint, or the checkpoints tell different classes apart.
        DataError: The wanted part is empty, the classes differ, a picture is broken, or the data was named but is not
            there.
        EngineError: A network has no such head.
        TargetError: The target cannot be read, or was named and shares no class with the checkpoint.
        ReportError: Something is asked that needs the patches, or a single checkpoint cannot give.
    """
    subjects = open_subjects(paths, torch.device(question.device), question.weights, question.heads)
    first = subjects[0]
    if question.class_map is not None:
        refuse_other_classes(first, question.class_map)
    target = _target(question, first)
    if question.ensemble and len(subjects) == 1:
        raise ReportError("--ensemble averages several checkpoints, but only one is named.")
    root = _root(first, question)
    if root is None:
        return _stored(subjects, question, target)
    index = index_patches(root)
    notes = list(question.notes)
    if question.write_default:
        notes.append(choose_variant(first, index, question.unit, bar))
    if question.write_temperature and question.write_default and first.variant.votes:
        notes.append(f"No temperature was fitted: {first.variant.text} has none.")  # the choice itself is good
    elif question.write_temperature:
        notes.append(fit_temperature(first, index, bar))
    part, patches, left_out = held_out_patches(subjects, index, question.part)
    with bar("evaluate") as progress:
        evaluation = evaluate(subjects, index, patches, tta=question.tta, ensemble=question.ensemble, progress=progress)
    matrix = ConfusionMatrix.from_counts(evaluation.counts_PVKK[:, 0].sum(axis=0))
    if not matrix.counts.any():
        raise DataError(f"The {part} part of {root} has masks, but no pixel in them is labelled; label some.")
    findings = analyse(
        evaluation, subjects, unit=question.unit, wanted_precision=question.wanted_precision, left_out=left_out
    )
    report = _report(subjects, question, target, matrix, part, len(patches), tuple(notes))
    findings = _complete(findings, report, evaluation, first, index, bar)
    return replace(report, findings=findings, data=_printable(root.resolve().name), way=evaluation.rows[0].way)


def _complete(
    findings: Findings, report: Report, evaluation: Evaluation, subject: Subject, index: PatchIndex, bar: Bar
) -> Findings:
    """Adds what needs the network once more: pictures, and the time of the best variant."""
    class_map = report.class_map
    wanted = choose_pictures(evaluation.worst, findings.pairs, report.metrics.iou)
    with bar("pictures") as progress:
        pictures = draw_pictures(subject, index, wanted, class_map, progress)
    some = [place for place in index.patches if place.mask is not None and place.photo_key in evaluation.photos]
    batch = next(read_batches(index, some[:_TIMED], class_map, subject.heads * len(class_map)))
    image_BCHW = to_input(batch, subject.device, subject.checkpoint.mean, subject.checkpoint.std)
    return replace(findings, pictures=pictures, cost=cost_of(subject, findings.best.way, image_BCHW))


def _target(question: Question, subject: Subject) -> Target:
    """The target; one that was named must have to do with the classes."""
    target = load_target(question.target or DEFAULT_TARGET)
    names = subject.checkpoint.class_map.names
    if question.target is not None and target.classes and not target.matches(subject.checkpoint.class_map):
        raise TargetError(
            f"The target {question.target} names none of the classes of {subject.path} ({', '.join(names)}); give its "
            "classes these names or aliases."
        )
    return target


def _root(subject: Subject, question: Question) -> Path | None:
    """Where the patches are, None if they are nowhere to be found and nobody said where they should be."""
    if question.data_root is not None:
        return question.data_root
    own = subject.checkpoint.data_root
    if os.path.isdir(own or ""):  # Path.is_dir fails where one may not look
        return Path(own)
    fallback = question.fallback_root
    return fallback if fallback is not None and os.path.isdir(fallback) else None


def _stored(subjects: Sequence[Subject], question: Question, target: Target) -> Report:
    first = subjects[0]
    stored = first.checkpoint.evaluation
    where = f"the patches of {first.path} are not at {first.checkpoint.data_root!r}"
    if not stored:
        raise DataError(f"{where}, and it was never validated; name the patches with --data-root.")
    plain = (first.variant.weights, first.variant.heads) == (Variant().weights, Variant().heads)
    if question.part not in (None, stored["part"]) or not plain:
        raise DataError(
            f"{where}, and it stores only the {stored['part']} figures of the EMA; name the patches with --data-root."
        )
    asked = question.tta or question.ensemble or question.write_default or question.write_temperature
    if asked or len(subjects) > 1:
        raise DataError(f"{where}, and what was asked needs them; name the patches with --data-root.")
    matrix = ConfusionMatrix.from_counts(stored["matrix"])
    return _report(subjects, question, target, matrix, stored["part"], stored["patches"], question.notes)


def _report(
    subjects: Sequence[Subject],
    question: Question,
    target: Target,
    matrix: ConfusionMatrix,
    part: Part,
    patches: int,
    notes: tuple[str, ...],
) -> Report:
    first = subjects[0]
    history, unread = _history(first)
    return Report(
        title=_printable(first.name),
        split=part,
        patches=patches,
        class_map=first.checkpoint.class_map,
        matrix=matrix,
        way=Way(first.variant),
        iteration=first.checkpoint.iteration,
        recipe=first.checkpoint.recipe_name,
        validation=first.checkpoint.evaluation,
        target=target,
        history=history,
        diagnosis=diagnose(history) if history.val_miou else None,
        recorded=load_recorded() if question.recorded else None,
        notes=tuple(map(_printable, (*notes, *unread))),
    )


def _history(subject: Subject) -> tuple[TrainingHistory, tuple[str, ...]]:
    """From the run's log, which goes on after the checkpoint; from the checkpoint itself where there is none.

    A log that cannot be read must not cost the report; what is wrong with it becomes a note.
    """
    checkpoint = subject.checkpoint
    log = subject.path.resolve().parent.parent / "metrics.jsonl"
    try:
        if subject.path.resolve().parent.name == "checkpoints" and log.is_file():
            return read_history(log, checkpoint.recipe), ()
        return history_of_records(checkpoint.history, checkpoint.recipe), ()
    except ReportError as error:
        return TrainingHistory(), (f"How the training went is not known: {error}",)


def _printable(text: str) -> str:
    """The text without what is no character: names of files and flags can hold any byte."""
    return text.encode("utf-8", "replace").decode("utf-8")
