"""The checkpoints that a report is on: opened, checked against each other and the data, and their common patches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from salakseg.classes import ClassMap
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.splits import Role, Split
from salakseg.errors import CheckpointError, DataError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.model import Segmenter
from salakseg.network.variant import Variant, Weights

Part = Literal["test", "val"]


@dataclass(slots=True)
class Subject:
    """A checkpoint that is measured.

    Attributes:
        path: The file.
        name: What tables call it: the file, with the run's name if it lies in a run.
        checkpoint: Its content.
        variant: The way to use it that its figures are for.
        device: Where its networks run.
        stamp: Time and size of the file when it was read.
    """

    path: Path
    name: str
    checkpoint: Checkpoint
    variant: Variant
    device: torch.device
    stamp: tuple[int, int]
    _models: dict[Weights, Segmenter] = field(default_factory=dict)

    def model(self, weights: Weights) -> Segmenter:
        """The network with these weights, on the device, built at the first call."""
        if weights not in self._models:
            self._models[weights] = self.checkpoint.build(weights).to(self.device)
        return self._models[weights]

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.checkpoint.network.head_dropout)


def open_subjects(
    paths: Sequence[Path], device: torch.device, weights: Weights | None = None, heads: str | None = None
) -> list[Subject]:
    """Opens checkpoints that tell the same classes apart.

    Args:
        paths: The files.
        device: Where the networks will run.
        weights: Whose weights; None for what each prefers.
        heads: Which heads; None for what each prefers.

    Raises:
        CheckpointError: A file is no checkpoint, is named twice, or tells other classes apart than the first.
        EngineError: A network has no such head.
    """
    subjects: list[Subject] = []
    for path in paths:
        stamp = file_stamp(path)
        checkpoint = load_checkpoint(path)
        if any(path.resolve() == other.path.resolve() for other in subjects):
            raise CheckpointError(f"{path} is named twice; name each checkpoint once.")
        if subjects and not checkpoint.class_map.same_as(subjects[0].checkpoint.class_map):
            raise CheckpointError(
                f"{path} tells apart {', '.join(checkpoint.class_map.names)}, but {subjects[0].path} "
                f"{', '.join(subjects[0].checkpoint.class_map.names)}; compare checkpoints of the same classes."
            )
        subjects.append(Subject(path, _name(path), checkpoint, checkpoint.choose(weights, heads), device, stamp))
    names = [subject.name for subject in subjects]
    for subject in subjects:
        if names.count(subject.name) > 1:
            subject.name = str(subject.path)
    return subjects


def file_stamp(path: Path) -> tuple[int, int]:
    """Time of the last change in nanoseconds and size in bytes; zeros where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def refuse_other_classes(subject: Subject, class_map: ClassMap) -> None:
    """Refuses a class mapping that is not the checkpoint's.

    Raises:
        DataError: It is not.
    """
    own = subject.checkpoint.class_map
    if not class_map.same_as(own):
        raise DataError(
            f"{subject.path} tells apart {', '.join(own.names)}, but {class_map.source} has "
            f"{', '.join(class_map.names)}; use the class mapping that it was trained with."
        )


def held_out_patches(
    subjects: Sequence[Subject], index: PatchIndex, part: Part | None
) -> tuple[Part, tuple[Patch, ...], int]:
    """The patches that no checkpoint has learnt from.

    Args:
        subjects: The checkpoints.
        index: All patches.
        part: Which part of their splits; None for test, or val where the first has no test part.

    Returns:
        The part; the patches that are in this part of every checkpoint's split, but for those that the weights which
        one of them began with had learned from; and how many of the first one's part that leaves out.

    Raises:
        DataError: Nothing is left.
    """
    splits = [_split_of(subject, index) for subject in subjects]
    learned = {(folder, photo) for subject in subjects for folder, photo in subject.checkpoint.learned_before}
    role = Role(part) if part else (Role.TEST if splits[0].patches(index, Role.TEST) else Role.VAL)
    first = splits[0].patches(index, role)
    if not first:
        other = "val" if role is Role.TEST else "test"
        raise DataError(
            f"{index.root} has no labelled patch in the {role.value} part of the split of {subjects[0].path}; try "
            f"--split {other}."
        )
    unseen = {patch for patch in first if (patch.photo_key.folder, patch.photo_key.name) not in learned}
    if not unseen:
        raise DataError(
            f"The weights that {subjects[0].path} began with had learned from every {role.value} patch, so nothing can "
            "judge it; train it again with the split of the run that it began with (--splits)."
        )
    common = unseen.intersection(*(split.patches(index, role) for split in splits[1:]))
    if not common:
        raise DataError(
            f"{' and '.join(str(subject.path) for subject in subjects)} have no {role.value} patch in common, and one "
            "may have been trained on what the other is judged by; compare runs that share a splits.csv."
        )
    named: Part = "test" if role is Role.TEST else "val"
    return named, tuple(patch for patch in first if patch in common), len(first) - len(common)


def _split_of(subject: Subject, index: PatchIndex) -> Split:
    """The split of the run; photos that came later are in no part."""
    split = Split.from_rows(subject.checkpoint.split)
    if not any(photo in split.roles for photo in index.photos()):
        raise DataError(f"{index.root} holds none of the photos that {subject.path} was trained and tested on.")
    return Split({photo: split.roles.get(photo, Role.GAP) for photo in index.photos()})


def _name(path: Path) -> str:
    """``RUN/best.pt`` of a checkpoint in a run, else the file's name."""
    folder = path.resolve().parent
    return f"{folder.parent.name}/{path.name}" if folder.name == "checkpoints" else path.name
