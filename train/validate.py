"""Validation of the moving average, and what is known of the run's course by it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from salakseg.data.patches import Patch
from salakseg.data.splits import Role
from salakseg.errors import DataError, UnreadableError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import list_or_none
from salakseg.evaluate.inference import confusion_of
from salakseg.evaluate.metrics import compute_metrics
from salakseg.train.data import TrainingData
from salakseg.train.parallel import summed
from salakseg.train.run import RunLog
from salakseg.train.settings import EvaluationConfig
from salakseg.train.skipped import Skipped, skip_of
from salakseg.train.stopping import stop_reason


class Validation:
    """Evaluates networks on the whole patches of the validation part, and remembers how the run went.

    Args:
        config: When to evaluate, and how long to wait for a new best.
        data: Patches and split.
        say: Called with a line worth reading.
        skipped: Patches that cannot be read; they are left out for the whole run.

    Attributes:
        history: One record for each evaluation.
        best_score: mIoU without background of the best network that was kept, 0 to 1.
        evaluation: Part, number of patches and confusion matrix of the last evaluation, as checkpoints hold them.
    """

    def __init__(
        self, config: EvaluationConfig, data: TrainingData, say: Callable[[str], None], skipped: Skipped
    ) -> None:
        self.config = config
        self.data = data
        self.say = say
        self.history: list[dict[str, Any]] = []
        self.best_score = -math.inf
        self.skipped = skipped
        self.evaluation: dict[str, Any] = {}

    def evaluate(self, model: nn.Module, iteration: int, fabric: Fabric, log: RunLog) -> bool:
        """Evaluates a network and writes down what comes out.

        Returns:
            Whether it is the best so far.

        Raises:
            DataError: The part shows nothing but background.
        """
        matrix = self.confusion(model, fabric)
        metrics = compute_metrics(matrix)
        values = {
            "miou_without_background": metrics.miou_without_background.value,
            "miou_with_background": metrics.miou_with_background.value,
            "iou": list_or_none(metrics.iou),
            "overall_accuracy": metrics.overall_accuracy,
        }
        log.write("val", iteration, values)
        self.history.append({"iteration": iteration, **values})
        self.evaluation = {
            "part": Role.VAL.value,
            "patches": int(summed(torch.tensor([len(self._mine(fabric))]), fabric)),
            "matrix": matrix.counts.tolist(),
        }
        score = metrics.miou_without_background.value
        if math.isnan(score):
            raise DataError(
                f"The validation part of {self.data.index.root} shows nothing but background; give it photos with "
                "other classes in splits.csv, or remove that file for a new split."
            )
        better = score > self.best_score
        self.say(
            f"step {iteration}: validation mIoU without background {score:.4f}, with it "
            f"{metrics.miou_with_background.value:.4f}{' (best so far)' if better else ''}"
        )
        self.best_score = max(score, self.best_score)
        return better

    def confusion(self, model: nn.Module, fabric: Fabric) -> ConfusionMatrix:
        """Confusion matrix of a network on the validation part; processes that train together share the work."""

        def skip(patch: Patch, error: UnreadableError) -> None:
            if self.history:
                self.say(f"attention: from here on validation is without {patch.image}, which cannot be read any more")
            self.skipped.add([skip_of(patch, Role.VAL.value, error, self.data.index.root)])

        matrix = confusion_of(
            model, self.data.index, self._mine(fabric), self.data.class_map, fabric.device, on_unreadable=skip
        )
        return ConfusionMatrix.from_counts(summed(torch.tensor(matrix.counts), fabric).numpy())

    def _mine(self, fabric: Fabric) -> list[Patch]:
        """The patches that this process validates on."""
        mine = self.data.part(Role.VAL)[fabric.global_rank :: fabric.world_size]
        return [patch for patch in mine if patch not in self.skipped]

    def stop_reason(self) -> str | None:
        """Why the run shall stop early; None to go on."""
        return stop_reason(scores_of(self.history), self.config)


def scores_of(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """The mIoU without background of each evaluation, as early stopping wants it."""
    return [float(record["miou_without_background"]) for record in history]
