"""What TensorBoard shows of a run beside the numbers of its log: figures by class, and pictures.

Axes: K class, H row, W column, C channel.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from salakseg.classes import IGNORE_INDEX
from salakseg.data.patches import Patch
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.inference import Example, read_batches, to_input
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.network.heads import most_probable
from salakseg.train.board_pictures import draw_confusion, draw_predictions
from salakseg.train.run import RunLog
from salakseg.train.watch import Verdict

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer

PATCHES = 4
"""Patches whose predictions are shown."""


class Board:
    """Shows a run on TensorBoard.

    Args:
        trainer: Whose run.
        patches: To choose from, of the validation part; the same ones are shown at every evaluation.
    """

    def __init__(self, trainer: "Trainer", patches: Sequence[Patch]) -> None:
        self._trainer = trainer
        self._examples = choose_examples(trainer, patches)

    def show(self, verdict: Verdict, log: RunLog) -> None:
        """Shows an evaluation."""
        trainer, reading = self._trainer, verdict.reading
        names = trainer.data.class_map.names
        kept_K = _shares(reading.kept_K, reading.pseudo_K)
        iou_K = [math.nan if value is None else value for value in trainer.validation.history[-1]["iou"]]
        for title, values_K in (("iou", iou_K), ("pseudo_precision", reading.precision_K), ("kept_share", kept_K)):
            for name, value in zip(names, values_K, strict=False):
                if math.isfinite(value):
                    log.show("add_scalar", f"{title}_of_class/{name}", value, trainer.iteration)
        matrix = ConfusionMatrix.from_counts(trainer.validation.evaluation["matrix"])
        step = trainer.iteration
        confusion_HWC = draw_confusion(matrix, trainer.data.class_map, step, reading.miou)
        log.show("add_image", "val/confusion", confusion_HWC, step, None, "HWC")
        if self._examples:
            student = [predict(trainer, trainer.network, example) for example in self._examples]
            teacher = [predict(trainer, trainer.ema.model, example) for example in self._examples]
            pictures_HWC = draw_predictions(self._examples, student, teacher, trainer.data.class_map, step)
            log.show("add_image", "val/predictions", pictures_HWC, step, None, "HWC")
        for alarm in verdict.raised:
            log.show("add_text", "alarms", f"{alarm.level}: {alarm.line}", step)


def choose_examples(trainer: "Trainer", patches: Sequence[Patch]) -> list[Example]:
    """The patches that show the most classes, each of at least a hundredth of it; of equals the first."""
    found: list[tuple[int, int, Example]] = []
    readable = [patch for patch in patches if patch not in trainer.skipped]
    batches = read_batches(trainer.data.index, readable, trainer.data.class_map, on_unreadable=lambda *_: None)
    for place, example in enumerate(example for batch in batches for example in batch):
        counts = np.bincount(example.label_HW.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        found.append((-int((counts > 0.01 * example.label_HW.size).sum()), place, example))
        found = sorted(found, key=lambda entry: entry[:2])[:PATCHES]
    return [example for _, _, example in found]


def predict(trainer: "Trainer", model: nn.Module, example: Example) -> NDArray[np.uint8]:
    """A network's classes of one patch, uint8 [H, W]; the network is left in the mode that it came in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(to_input([example], trainer.fabric.device, IMAGENET_MEAN, IMAGENET_STD))
            prediction: NDArray[np.uint8] = most_probable(logits.mean_BKHW, 1)[0].to(torch.uint8).cpu().numpy()
    finally:
        model.train(was_training)
    return prediction


def _shares(part_K: Sequence[float], whole_K: Sequence[float]) -> list[float]:
    return [part / whole if whole > 0 else math.nan for part, whole in zip(part_K, whole_K, strict=False)]
