"""What is stored in a checkpoint for everybody who uses it: its best variant, and a temperature.

Both are chosen on the validation part, never on test: what is chosen on the patches that it is then measured on looks
better than it is.
"""

from dataclasses import replace

from salakseg.data.patches import PatchIndex
from salakseg.errors import DataError, ReportError
from salakseg.evaluate.analyse import analyse
from salakseg.evaluate.calibration import LogitSample
from salakseg.evaluate.ensemble import evaluate
from salakseg.evaluate.formats import points_range_text, points_text
from salakseg.evaluate.inference import Bar
from salakseg.evaluate.subjects import Subject, held_out_patches
from salakseg.network.checkpoint import save_checkpoint


def choose_variant(subject: Subject, index: PatchIndex, bar: Bar) -> str:
    """Stores the variant with the highest mIoU without background on validation; flips and turns stay a matter of use.

    Args:
        subject: The checkpoint, which is written anew; its variant becomes the chosen one.
        index: The patches.
        bar: Makes a progress bar.

    Returns:
        A sentence on what was chosen.

    Raises:
        DataError: There is no validation part.
        CheckpointError: The checkpoint cannot be written.
    """
    _, patches, _ = held_out_patches([subject], index, "val")
    with bar("choosing on val") as progress:
        evaluation = evaluate([subject], index, patches, progress=progress)
    best = analyse(evaluation, [subject]).best
    before = subject.variant.text
    if not best.is_subject:
        subject.variant = best.way.variant
    _store(subject)
    if best.is_subject:
        return f"On {len(patches)} val patches nothing beats what the checkpoint prefers already: {before}."
    told = "" if best.interval.decided else ", which the patches cannot tell from none"
    interval = points_range_text(*best.interval.ends)
    return (
        f"Stored as the checkpoint's default: {best.name}, on {len(patches)} val patches "
        f"{points_text(best.difference)} points of mIoU over {before}{f' ({interval}{told})' if interval else ''}."
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
        ReportError: The variant is a vote, which has no temperature.
        CheckpointError: The checkpoint cannot be written.
    """
    variant = subject.variant
    _, patches, _ = held_out_patches([subject], index, "val")
    if variant.votes:
        raise ReportError(f"{variant.text} has no temperature; ask for it with --heads mean or --heads prob.")
    sample = LogitSample(len(patches))
    with bar("fitting on val") as progress:
        evaluate([subject], index, patches, samples={variant.weights: sample}, progress=progress)
    if not sample:
        raise DataError(f"{index.root} has no labelled pixel in the val part, so no temperature can be fitted.")
    subject.variant = replace(variant, temperature=round(sample.fit(variant.heads), 4))
    _store(subject)
    return (
        f"Stored as the checkpoint's default: {variant.text} at temperature {subject.variant.temperature:.3g}, fitted "
        f"on {len(patches)} val patches."
    )


def _store(subject: Subject) -> None:
    subject.checkpoint.variant = subject.variant
    save_checkpoint(subject.checkpoint, subject.path)
