"""What is stored in a checkpoint for everybody who uses it: its best variant, and a temperature.

Both are chosen on the validation part, never on test: what is chosen on the patches that it is then measured on looks
better than it is.
"""

from dataclasses import replace

from salakseg.data.patches import Patch, PatchIndex
from salakseg.errors import CheckpointError, DataError, ReportError
from salakseg.evaluate.analyse import analyse
from salakseg.evaluate.calibration import COLDEST, HOTTEST, LogitSample
from salakseg.evaluate.ensemble import evaluate
from salakseg.evaluate.formats import counted, points_range_text, points_text
from salakseg.evaluate.inference import Bar
from salakseg.evaluate.subjects import Subject, file_stamp, held_out_patches
from salakseg.evaluate.units import UnitKind
from salakseg.network.checkpoint import save_checkpoint


def choose_variant(subject: Subject, index: PatchIndex, unit: UnitKind, bar: Bar) -> str:
    """Stores the variant with the highest mIoU without background on validation; flips and turns stay a matter of use.

    Args:
        subject: The checkpoint, which is written anew; its variant becomes the chosen one.
        index: The patches.
        unit: What is resampled for the interval of the gain.
        bar: Makes a progress bar.

    Returns:
        A sentence on what was chosen.

    Raises:
        DataError: There is no validation part, or no labelled pixel in it.
        CheckpointError: The checkpoint cannot be written, or was changed meanwhile.
    """
    patches = _val_patches(subject, index)
    with bar("choosing on val") as progress:
        evaluation = evaluate([subject], index, patches, progress=progress)
    if not evaluation.counts_PVKK.any():
        raise DataError(f"{index.root} has no labelled pixel in the val part, so no variant can be chosen on it.")
    best = analyse(evaluation, [subject], unit=unit).best
    before = subject.variant
    chosen = best.way.variant
    subject.variant = before if best.is_subject else subject.checkpoint.choose(chosen.weights, chosen.heads)
    on = counted(len(patches), "val patch", "val patches")
    if subject.variant == subject.checkpoint.variant:
        return f"On {on} nothing beats what the checkpoint prefers already: {subject.variant.text}."
    _store(subject)
    if best.is_subject:
        return f"Stored as the checkpoint's default: {before.text}, which nothing beats on {on}."
    interval = points_range_text(*best.interval.ends)
    sure = f"{interval}{'' if best.interval.decided else ', which may be chance'}" if interval else "may be chance"
    return (
        f"Stored as the checkpoint's default: {best.name}, on {on} {points_text(best.difference)} points of mIoU over "
        f"{before.text} ({sure})."
    )


def fit_temperature(subject: Subject, index: PatchIndex, bar: Bar) -> str:
    """Fits the temperature of the checkpoint's variant on validation and stores it.

    Args:
        subject: The checkpoint, which is written anew.
        index: The patches.
        bar: Makes a progress bar.

    Returns:
        A sentence on the result.

    Raises:
        DataError: There is no validation part.
        ReportError: The variant is a vote, which has no temperature, or none suits it.
        CheckpointError: The checkpoint cannot be written, or was changed meanwhile.
    """
    variant = subject.variant
    patches = _val_patches(subject, index)
    if variant.votes:
        raise ReportError(f"{variant.text} has no temperature; ask for it with --heads mean or --heads prob.")
    sample = LogitSample(len(patches))
    with bar("fitting on val") as progress:
        evaluate([subject], index, patches, samples={variant.weights: sample}, progress=progress)
    if not sample:
        raise DataError(f"{index.root} has no labelled pixel in the val part, so no temperature can be fitted.")
    temperature = sample.fit(variant.heads)
    if not COLDEST * 1.01 < temperature < HOTTEST * 0.99:
        raise ReportError(
            f"No temperature from {COLDEST} to {HOTTEST} suits {subject.path} on its val part: its confidence has "
            "nothing to do with what is right there; nothing was stored."
        )
    subject.variant = replace(variant, temperature=round(temperature, 4))
    _store(subject)
    return (
        f"Stored as the checkpoint's default: {variant.text} at temperature {subject.variant.temperature:.3g}, fitted "
        f"on {counted(len(patches), 'val patch', 'val patches')}."
    )


def _val_patches(subject: Subject, index: PatchIndex) -> tuple[Patch, ...]:
    _, patches, _ = held_out_patches([subject], index, "val")
    return patches


def _store(subject: Subject) -> None:
    if subject.path.is_dir():
        raise CheckpointError(
            f"{subject.path} is a bundle, which stays as it was released; store the default in the checkpoint (.pt) "
            "and export that anew."
        )
    if file_stamp(subject.path) != subject.stamp:
        raise CheckpointError(
            f"{subject.path} was written anew while it was evaluated, perhaps by a training that goes on; nothing was "
            "stored, run the command again."
        )
    subject.checkpoint.variant = subject.variant
    save_checkpoint(subject.checkpoint, subject.path)
    subject.stamp = file_stamp(subject.path)
