"""What a run would cost, measured on three real steps; nothing is written.

The steps are taken where everything takes part: unlabelled patches, and in a multi-scale recipe one batch at the
largest size. Memory is that of the largest step, time is an estimate on the safe side: steps before self-training
begins are quicker than those measured.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from salakseg.data.splits import Role
from salakseg.data.survey import survey_masks
from salakseg.evaluate.inference import confusion_of
from salakseg.train.branches import MULTI_SCALE_EVERY
from salakseg.train.data import TrainingData
from salakseg.train.loop import Trainer
from salakseg.train.measuring import draw_samples
from salakseg.train.parts import part_sizes
from salakseg.train.skipped import Skipped

STEPS = 3
"""Steps that are measured; the first only warms up, and its time is not counted."""

_EVALUATED = 16  # validation patches that an evaluation is measured on

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PartCount:
    """How much a part holds.

    Attributes:
        role: The part.
        patches: Its patches.
        pixels_K: Labelled pixels of each class, int64; None where no mask is looked at.
    """

    role: Role
    patches: int
    pixels_K: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would cost.

    Attributes:
        device: Where it was measured.
        iterations: Steps of the run.
        evaluations: Evaluations of the run, all of them; early stopping may save some.
        step_seconds: A plain step.
        large_step_seconds: A step with a multi-scale batch at the largest size; of other recipes a plain one.
        large_share: Share of such steps.
        evaluation_seconds: One evaluation: the whole validation part, and the patches that are looked at beside it.
        memory_bytes: Most memory in use; None where the system does not tell.
        memory_of: What was measured.
    """

    device: str
    iterations: int
    evaluations: int
    step_seconds: float
    large_step_seconds: float
    large_share: float
    evaluation_seconds: float
    memory_bytes: int | None
    memory_of: str

    @property
    def training_seconds(self) -> float:
        """All steps."""
        mean = (1 - self.large_share) * self.step_seconds + self.large_share * self.large_step_seconds
        return self.iterations * mean

    @property
    def total_seconds(self) -> float:
        """All steps and evaluations."""
        return self.training_seconds + self.evaluations * self.evaluation_seconds


def count_data(data: TrainingData, progress: Progress) -> list[PartCount]:
    """Patches and labelled pixels of each part; the masks of the parts that are held out are read for it.

    Raises:
        DataError: A mask that cannot be used.
    """
    counts = []
    for role in Role:
        patches = data.part(role)
        pixels: NDArray[np.int64] | None = None
        if role is Role.LABELLED:
            pixels = data.class_pixels
        elif role is not Role.UNLABELLED and patches:
            survey = survey_masks(data.index, patches, data.class_map, progress, skip_damaged=True)
            pixels = survey.total(list(survey.pixels), len(data.class_map))
        counts.append(PartCount(role, len(patches), pixels))
    return counts


def estimate(trainer: Trainer, progress: Progress) -> Estimate:
    """Takes three steps and evaluates a few patches.

    Args:
        trainer: Fresh, and of no use afterwards: its weights have moved, its views are set to the largest size.
        progress: Called with steps done and to do.

    Raises:
        DataError: A patch that cannot be used.
        TrainingError: The device's memory does not suffice.
    """
    recipe, device = trainer.recipe, trainer.fabric.device
    trainer.skipped = Skipped(part_sizes(trainer.data.index, trainer.data.split), None, trainer.say)
    multi_scale = recipe.augment.multi_scale
    if multi_scale:  # as large as they come
        augment = recipe.augment.model_copy(update={"scale_min": recipe.augment.scale_max})
        trainer.views.recipe = recipe.model_copy(update={"augment": augment})
    trainer.iteration = _first(trainer)
    before = _begin_memory(device)
    seconds: list[tuple[bool, float]] = []
    batches = trainer.batches()
    try:
        since = time.perf_counter()
        for number, (labelled, unlabelled) in enumerate(batches, start=1):
            assert labelled is not None
            is_large = multi_scale and trainer.iteration % MULTI_SCALE_EVERY == MULTI_SCALE_EVERY - 1
            trainer.step(labelled, unlabelled)
            _wait(device)
            now = time.perf_counter()
            seconds.append((is_large, now - since))
            since = now
            progress(number, STEPS)
            if number == STEPS:
                break
    finally:
        batches.close()
    memory, memory_of = _memory(device, before)
    warm = seconds[1:] or seconds
    plain = [taken for is_large, taken in warm if not is_large] or [taken for _, taken in warm]
    large = [taken for is_large, taken in warm if is_large] or plain
    every, iterations = recipe.evaluation.every, recipe.schedule.iterations
    return Estimate(
        device=str(device),
        iterations=iterations,
        evaluations=-(-iterations // every),
        step_seconds=float(np.mean(plain)),
        large_step_seconds=float(np.mean(large)),
        large_share=1 / MULTI_SCALE_EVERY if multi_scale else 0.0,
        evaluation_seconds=_evaluation_seconds(trainer),
        memory_bytes=memory,
        memory_of=memory_of,
    )


def _first(trainer: Trainer) -> int:
    """The first step to take: with pseudo-labels, and so that the last of the three has a multi-scale batch."""
    recipe = trainer.recipe
    end = max(recipe.schedule.iterations - STEPS, 0)
    begin = min(recipe.selftraining.start, end) if recipe.selftraining.enabled else 0
    large = begin + (MULTI_SCALE_EVERY - STEPS - begin) % MULTI_SCALE_EVERY
    return large if recipe.augment.multi_scale and large <= end else begin


def _evaluation_seconds(trainer: Trainer) -> float:
    """Time of a whole evaluation, by a few patches; the first pass warms up."""
    patches = trainer.data.part(Role.VAL)
    some = patches[:_EVALUATED]
    if not some:
        return 0.0

    def evaluate() -> float:
        since = time.perf_counter()
        confusion_of(
            trainer.ema.model,
            trainer.data.index,
            some,
            trainer.data.class_map,
            trainer.fabric.device,
            on_unreadable=lambda *_: None,
        )
        return time.perf_counter() - since

    evaluate()
    sample, recipe = draw_samples(trainer), trainer.recipe
    beside = len(sample.labelled) + len(sample.val)  # moving average on labelled ones, student on validation
    beside += len(sample.val) if len(sample.val) < len(patches) else 0  # and the moving average on the same
    beside += len(sample.calibration) if recipe.selftraining.enabled else 0  # the labeller
    return evaluate() * (len(patches) + beside) / len(some)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _begin_memory(device: torch.device) -> int:
    """What there is before the steps, in bytes: nothing on a GPU, whose peak counts network and optimizer too."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    return _peak_of_process() or 0


def _memory(device: torch.device, before: int) -> tuple[int | None, str]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "peak of what was allocated on the GPU"
    peak = _peak_of_process()
    if device.type != "cpu" or peak is None:
        return None, "memory of this device is not measured"
    return peak - before, "growth of the process's peak during the steps, beside what network and program take"


def _peak_of_process() -> int | None:
    """Most resident memory that this process has had, in bytes; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
