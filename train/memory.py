"""A step whose batch does not fit into the device's memory, in parts that do."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from salakseg.errors import TrainingError
from salakseg.network.device import empty_cache, is_out_of_memory
from salakseg.train.objective import Record

_LEAST = 2  # patches in a part; batch normalisation needs two


class Accumulation:
    """Runs the parts of a batch one after the other; they add up to the gradient of the whole.

    Parts count by their patches. Within a part Dice is a mean over images, and a cross entropy one over the pixels that
    count there: where parts differ in how many do, a pixel of the fuller part counts less than in one piece. Batch
    normalisation takes its statistics from a part alone, and thresholds that the student's own pass adapts learn from
    each part. But for that the gradient is that of the whole batch.

    Args:
        batch_size: Labelled patches a step in this process.
        say: Called with a line worth reading.
        alone: Whether no other process trains along; several must agree on the parts beforehand.

    Attributes:
        parts: How many parts a batch is divided into; doubled whenever memory does not suffice.
    """

    def __init__(self, batch_size: int, say: Callable[[str], None], alone: bool = True) -> None:
        self.parts = 1
        self._alone = alone
        self._batch_size = batch_size
        self._say = say

    def run(self, learn: Callable[[int, int], Record], optimizer: Optimizer) -> Record:
        """The gradient of a whole batch.

        Args:
            learn: Adds the gradient of a part, by its number and the number of parts; returns what is worth logging.
            optimizer: Whose gradients are cleared first.

        Returns:
            Means over the parts, each as much as the others; sums where a figure is a count by class.

        Raises:
            TrainingError: Not even the smallest parts fit.
        """
        while True:
            optimizer.zero_grad()
            try:
                return _merged([learn(number, self.parts) for number in range(self.parts)])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if not self._alone:
                    raise TrainingError(
                        f"A device has too little memory for {self._batch_size} patches at a time; start anew with "
                        "half the --batch-size."
                    ) from error
                if self._batch_size // (2 * self.parts) < _LEAST:
                    raise TrainingError(
                        f"The device has too little memory even for {self._batch_size // self.parts} patches at a "
                        "time; close what else uses it, or take a smaller --set data.crop or a smaller network.encoder."
                    ) from error
            # Outside the handler: the error's traceback holds on to the tensors that did not fit
            optimizer.zero_grad()
            empty_cache()
            self.parts *= 2
            self._say(
                f"attention: out of memory; from here on each batch of {self._batch_size} is learned in {self.parts} "
                "parts whose gradients are added up, so the batch stays as large"
            )


def _merged(records: list[Record]) -> Record:
    if len(records) == 1:
        return records[0]

    def merge(values: list[Tensor]) -> Tensor:
        stacked = torch.stack(values)
        return stacked.sum(dim=0) if stacked.ndim > 1 else stacked.mean()

    names = dict.fromkeys(name for record in records for name in record)
    return {name: merge([record[name] for record in records if name in record]) for name in names}
