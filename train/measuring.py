"""What is measured at an evaluation beside the validation itself, always on the same patches.

Axes: B image, K class.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from salakseg.data.patches import Patch
from salakseg.data.splits import Role
from salakseg.errors import UnreadableError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import finite_or_none, list_or_none
from salakseg.evaluate.inference import confusion_of, read_batches
from salakseg.evaluate.metrics import compute_metrics
from salakseg.train.calibration import Precision, pseudo_label_precision
from salakseg.train.parallel import summed
from salakseg.train.pseudo import Target
from salakseg.train.skipped import skip_of

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer


@dataclass(frozen=True, slots=True)
class Samples:
    """The patches that are looked at, the same at every evaluation.

    Attributes:
        labelled: Of the labelled part, for the gap between training and validation.
        val: Of the validation part, for student beside moving average.
        calibration: Where pseudo-labels are compared with labels.
        calibration_part: Which part these are of. Without a calibration part they are of the validation part; that is
            written down, and nothing is decided by it.
    """

    labelled: tuple[Patch, ...]
    val: tuple[Patch, ...]
    calibration: tuple[Patch, ...]
    calibration_part: Role


def draw_samples(trainer: "Trainer") -> Samples:
    """Draws the patches by the recipe's seed."""
    config, data = trainer.recipe.health, trainer.data
    part = Role.CALIBRATION if data.part(Role.CALIBRATION) else Role.VAL

    def some(role: Role, stream: int) -> tuple[Patch, ...]:
        patches = data.part(role)
        order = np.random.default_rng([trainer.recipe.seed, 7, stream]).permutation(len(patches))
        return tuple(patches[place] for place in sorted(order[: config.sample].tolist()))

    return Samples(some(Role.LABELLED, 0), some(Role.VAL, 1), some(part, 2), part)


def measure(trainer: "Trainer", samples: Samples) -> dict[str, Any]:
    """The figures of the records of the kind "watch"; processes that train together share the work.

    Returns:
        Plain values. `train/readings.py` says what they mean; a figure that is undefined is None.
    """
    memory_gib, memory_share = memory_in_use(trainer.fabric.device)
    class_map = trainer.data.class_map
    values: dict[str, Any] = {
        "memory_gib": memory_gib,
        "memory_share": memory_share,
        "batch_parts": trainer.accumulation.parts,
        "classes": list(class_map.names),
        "labelled_share": list_or_none(trainer.data.class_pixels / trainer.data.class_pixels.sum()),
    }
    if not samples.val:
        return values
    values["train_miou"] = _miou(_confusion(trainer, trainer.ema.model, samples.labelled))
    values["student_miou"] = _miou(_confusion(trainer, trainer.network, samples.val))
    if len(samples.val) == len(trainer.data.part(Role.VAL)):
        values["teacher_miou"] = _miou(ConfusionMatrix.from_counts(trainer.validation.evaluation["matrix"]))
    else:
        values["teacher_miou"] = _miou(_confusion(trainer, trainer.ema.model, samples.val))
    # Before self-training begins the same figure says what it would begin with, where the thresholds are known by then
    config = trainer.recipe.selftraining
    if config.enabled and (config.keep == "fixed" or trainer.iteration > config.start):
        precision = _precision(trainer, samples.calibration)
        values |= {
            "pseudo_precision": finite_or_none(precision.overall),
            "pseudo_precision_of_class": list_or_none(precision.of_class_K),
            "pseudo_precision_part": samples.calibration_part.value,
            "calibration_kept_share": finite_or_none(precision.kept),
        }
    return values


def memory_in_use(device: torch.device) -> tuple[float | None, float | None]:
    """The most memory in use since the last call in GiB, and as a share of what the device has.

    On a CPU the most that this process ever had, where the system tells; its share says little and is None.
    """
    if device.type == "cuda":
        most, whole = torch.cuda.max_memory_reserved(device), torch.cuda.mem_get_info(device)[1]
        torch.cuda.reset_peak_memory_stats(device)
        return most / 2**30, most / whole
    if sys.platform == "win32" or device.type != "cpu":
        return None, None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20), None  # kilobytes, on a Mac bytes


def _miou(matrix: ConfusionMatrix) -> float | None:
    return finite_or_none(compute_metrics(matrix).miou_without_background.value)


def _confusion(trainer: "Trainer", model: nn.Module, patches: Sequence[Patch]) -> ConfusionMatrix:
    matrix = confusion_of(
        model,
        trainer.data.index,
        _mine(trainer, patches),
        trainer.data.class_map,
        trainer.fabric.device,
        on_unreadable=_leaving_out(trainer),
    )
    return _added_up(trainer, matrix)


def _precision(trainer: "Trainer", patches: Sequence[Patch]) -> Precision:
    def answer(image_BCHW: torch.Tensor) -> Target:
        exists_BHW = torch.ones_like(image_BCHW[:, 0], dtype=torch.bool)
        return trainer.labeller.label(trainer.answer(image_BCHW), exists_BHW, learn=False)[0]

    batches = read_batches(
        trainer.data.index, _mine(trainer, patches), trainer.data.class_map, on_unreadable=_leaving_out(trainer)
    )
    own = pseudo_label_precision(answer, batches, len(trainer.data.class_map), trainer.fabric.device)
    seen = int(summed(torch.tensor([own.seen]), trainer.fabric))
    return Precision(_added_up(trainer, own.matrix), seen)


def _mine(trainer: "Trainer", patches: Sequence[Patch]) -> list[Patch]:
    mine = patches[trainer.fabric.global_rank :: trainer.fabric.world_size]
    return [patch for patch in mine if patch not in trainer.skipped]


def _added_up(trainer: "Trainer", matrix: ConfusionMatrix) -> ConfusionMatrix:
    return ConfusionMatrix.from_counts(summed(torch.tensor(matrix.counts), trainer.fabric).numpy())


def _leaving_out(trainer: "Trainer") -> Callable[[Patch, UnreadableError], None]:
    """Takes down a patch of a sample that cannot be read."""

    def leave_out(patch: Patch, error: UnreadableError) -> None:
        part = trainer.data.split.roles[patch.photo_key].value
        trainer.skipped.add([skip_of(patch, part, error, trainer.data.index.root)])

    return leave_out
