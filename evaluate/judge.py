"""Evaluating a checkpoint: which part of the data, which weights, and what is known without the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.inference import confusion_of
from salakseg.evaluate.report import Report
from salakseg.evaluate.targets import Target
from salakseg.network.checkpoint import Checkpoint, Weights, load_checkpoint

Part = Literal["test", "val"]


def judge(
    path: Path,
    target: Target,
    *,
    data_root: Path | None = None,
    fallback_root: Path | None = None,
    class_map: ClassMap | None = None,
    part: Part | None = None,
    weights: Weights = "ema",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measures a checkpoint on held-out patches, or repeats what was stored at training time.

    Args:
        path: The checkpoint.
        target: What to compare with.
        data_root: Where the patches are; None means where they were at training time.
        fallback_root: Where they may be if they are neither named nor where they were.
        class_map: The data's classes; they must be the checkpoint's. None takes the checkpoint's.
        part: "test" or "val"; None means test, or val where the split has no test part.
        weights: "ema" or "student".
        device: torch device.
        progress: Called with patches done and to do.

    Raises:
        CheckpointError: The file is no checkpoint.
        DataError: The wanted part is empty, the classes differ, or the data was named but is not there.
    """
    checkpoint = load_checkpoint(path)
    if class_map is not None and not class_map.same_as(checkpoint.class_map):
        raise DataError(
            f"{path} tells apart {', '.join(checkpoint.class_map.names)}, but {class_map.source} has "
            f"{', '.join(class_map.names)}; use the class mapping that it was trained with."
        )
    root = data_root or Path(checkpoint.data_root)
    if data_root is None and not root.is_dir() and fallback_root is not None:
        root = fallback_root
    if data_root is None and not root.is_dir():
        return _stored(checkpoint, path, target, part, weights)
    index = index_patches(root)
    split = _split_of(checkpoint, index, path)
    role = Role(part) if part else (Role.TEST if split.patches(index, Role.TEST) else Role.VAL)
    patches = split.patches(index, role)
    if not patches:
        raise DataError(f"{root} has no labelled patch in the {role.value} part of the run's split; try --split val.")
    model = checkpoint.build(weights).to(device)
    matrix = confusion_of(
        model,
        index,
        patches,
        class_map or checkpoint.class_map,
        torch.device(device),
        checkpoint.mean,
        checkpoint.std,
        progress,
    )
    measured: Part = "test" if role is Role.TEST else "val"
    return _report(checkpoint, path, target, matrix, measured, len(patches), weights, root)


def _split_of(checkpoint: Checkpoint, index: PatchIndex, path: Path) -> Split:
    """The split of the run; photos that came later are in no part."""
    split = Split.from_rows(checkpoint.split)
    if not any(photo in split.roles for photo in index.photos()):
        raise DataError(f"{index.root} holds none of the photos that {path} was trained and tested on.")
    return Split({photo: split.roles.get(photo, Role.GAP) for photo in index.photos()})


def _stored(checkpoint: Checkpoint, path: Path, target: Target, part: Part | None, weights: Weights) -> Report:
    stored = checkpoint.evaluation
    where = f"the patches of {path} are not at {checkpoint.data_root!r}"
    if not stored:
        raise DataError(f"{where}, and it was never validated; name the patches with --data-root.")
    if part not in (None, stored["part"]) or weights != "ema":
        raise DataError(
            f"{where}, and it stores only the {stored['part']} figures of the EMA; name the patches with --data-root."
        )
    matrix = ConfusionMatrix.from_counts(stored["matrix"])
    return _report(checkpoint, path, target, matrix, stored["part"], stored["patches"], weights, None)


def _report(
    checkpoint: Checkpoint,
    path: Path,
    target: Target,
    matrix: ConfusionMatrix,
    part: Part,
    patches: int,
    weights: Weights,
    root: Path | None,
) -> Report:
    return Report(
        title=path.name,
        split=part,
        patches=patches,
        class_map=checkpoint.class_map,
        matrix=matrix,
        weights="EMA" if weights == "ema" else "student",
        stored=root is None,
        data_root=None if root is None else str(root),
        iteration=checkpoint.iteration,
        recipe=checkpoint.recipe_name,
        target=target,
    )
