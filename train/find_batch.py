"""The largest batch that fits into a GPU's memory, found by trying."""

import gc
from collections.abc import Callable
from dataclasses import replace

import torch

from salakseg.errors import TrainingError
from salakseg.train.estimate import estimate
from salakseg.train.loop import Trainer
from salakseg.train.memory import Accumulation

LEAST, MOST = 2, 512
"""Batches that are tried; beyond the largest no recipe of this package gains anything."""


def largest_batch(trainer: Trainer, progress: Callable[[int, bool], None]) -> int:
    """The largest number of labelled patches a step, with as many unlabelled ones, that fits.

    Real steps are taken, in a multi-scale recipe with one batch at the largest size.

    Args:
        trainer: A trainer of the run, which is not changed.
        progress: Called with a batch size that was tried, and whether it fits.

    Raises:
        TrainingError: The device is no GPU, or not even the smallest batch fits.
    """
    if trainer.fabric.device.type != "cuda":
        raise TrainingError(
            f"--find-batch tries how much fits into a GPU, and this run is on {trainer.fabric.device}; add "
            "--device cuda, or choose --batch-size by hand."
        )

    def tried(batch_size: int) -> bool:
        fitting = fits(trainer, batch_size)
        progress(batch_size, fitting)
        return fitting

    found = search(tried)
    if found == 0:
        raise TrainingError(
            f"Not even batches of {LEAST} fit into the memory of {trainer.fabric.device}; take a smaller --set "
            "data.crop or a smaller network.encoder."
        )
    return found


def search(fits: Callable[[int], bool]) -> int:
    """The largest number from `LEAST` to `MOST` that fits, where whatever is smaller fits, too; 0 if none does."""
    low, high = 0, LEAST
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    if low == 0:
        return 0
    high = min(high, MOST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fits(trainer: Trainer, batch_size: int) -> bool:
    """Whether steps with a batch of this size go through in one piece."""
    try:
        return _goes_through(trainer, batch_size)
    finally:  # out here, where no local name holds on to the trial
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _goes_through(trainer: Trainer, batch_size: int) -> bool:
    data = trainer.recipe.data.model_copy(update={"batch_size": batch_size})
    recipe = trainer.recipe.model_copy(update={"data": data})
    try:
        other = Trainer(recipe, replace(trainer.data), trainer.run_folder, trainer.fabric, _silent, load_weights=False)
        other.accumulation = Accumulation(batch_size, _silent, alone=False)
        estimate(other, lambda *_: None)
    except (TrainingError, torch.OutOfMemoryError) as error:
        if isinstance(error, TrainingError) and not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        return False
    return True


def _silent(_: str) -> None:
    pass
