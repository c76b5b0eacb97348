"""The trainer of the contest: validation by image, kept in memory, and how right the pseudo-labels are.

Axes: B window, H row, W column.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from contest.protocol import ContestData, Picture
from contest.windows import label_map, window_batches
from salakseg.classes import IGNORE_INDEX
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import list_or_none
from salakseg.evaluate.metrics import compute_metrics
from salakseg.network.checkpoint import Checkpoint
from salakseg.train.loop import Trainer
from salakseg.train.run import RunLog
from salakseg.train.validate import Validation


class ContestTrainer(Trainer):
    """A trainer that validates by image and writes no more than is needed.

    Set `validation` and `resumable` before `run`.

    Attributes:
        resumable: Whether the whole state is written at evaluations; it is some 80 MB.
    """

    resumable = True

    def _save(self, save: Callable[[Checkpoint], None]) -> None:
        if self.resumable:
            super()._save(save)


class Watch(Validation):
    """Validation by whole images; its history holds all that the benchmark shows of a run.

    Args:
        trainer: Whose labeller is watched.
        data: The images.
        side: Side of the windows, pixels.
        best: Where the weights with the best validation are kept.
        say: Called with a line worth reading.
    """

    def __init__(
        self, trainer: ContestTrainer, data: ContestData, side: int, best: Path, say: Callable[[str], None]
    ) -> None:
        super().__init__(trainer.recipe.evaluation, data.training, say, trainer.skipped)
        self.trainer = trainer
        self.pictures = data.validation
        self.side = side
        self.best = best

    def evaluate(self, model: nn.Module, iteration: int, fabric: Fabric, log: RunLog) -> bool:
        """Confusion matrix of every image, and the labeller's answers held against the labels.

        Returns:
            Whether the trainer shall write a checkpoint of this best network: only where it may go back to it, since
            the weights are kept here.
        """
        device = fabric.device
        matrices = {picture.name: self._confusion(model, picture, device) for picture in self.pictures}
        total = sum(matrices.values(), start=ConfusionMatrix(len(self.data.class_map)))
        metrics = compute_metrics(total)
        values = {
            "miou_without_background": metrics.miou_without_background.value,
            "miou_with_background": metrics.miou_with_background.value,
            "iou": list_or_none(metrics.iou),
        }
        log.write("val", iteration, values)
        pseudo = self._pseudo_labels(device) if self._selftrains(iteration) else None
        images = {name: matrix.counts.tolist() for name, matrix in matrices.items()}
        self.history.append({"iteration": iteration, **values, "pseudo": pseudo, "images": images})
        better = metrics.miou_without_background.value > self.best_score
        if better:
            self.best_score = metrics.miou_without_background.value
            save_weights(model, self.best)
        self.evaluation = {"part": "val", "patches": len(self.pictures), "matrix": total.counts.tolist()}
        kept = "" if pseudo is None else f", kept {pseudo['kept_share']:.3f}, right {pseudo['precision'] or 0:.3f}"
        self.say(f"step {iteration}: mIoU {values['miou_without_background']:.4f}{' best' if better else ''}{kept}")
        return better and self.trainer.recipe.health.action == "guard"

    def _confusion(self, model: nn.Module, picture: Picture, device: torch.device) -> ConfusionMatrix:
        matrix = ConfusionMatrix(len(self.data.class_map))
        assert picture.label_HW is not None
        was_training = model.training
        model.eval()
        matrix.update(picture.label_HW, label_map(model, picture, self.side, device))
        model.train(was_training)
        return matrix

    def _selftrains(self, iteration: int) -> bool:
        config = self.trainer.recipe.selftraining
        return config.enabled and iteration > config.start

    def _pseudo_labels(self, device: torch.device) -> dict[str, Any]:
        """What the labeller says of the validation images: for watching alone, nothing is learned from it."""
        labeller = self.trainer.labeller
        classes = len(self.data.class_map)
        counts_KK = np.zeros((classes, classes), np.int64)
        valid = 0
        for picture in self.pictures:
            for places, image_BCHW in window_batches(picture, self.side, device):
                exists_BHW = torch.ones((len(places), *image_BCHW.shape[-2:]), dtype=torch.bool, device=device)
                target, _ = labeller.label(self.trainer.answer(image_BCHW), exists_BHW, learn=False)
                label_BHW = target.label_BHW.where(target.weight_BHW > 0, IGNORE_INDEX).cpu().numpy()
                assert picture.label_HW is not None
                truth_BHW = np.stack([picture.label_HW[place] for place in places])
                known = truth_BHW != IGNORE_INDEX
                valid += int(known.sum())
                kept = known & (label_BHW != IGNORE_INDEX)
                codes = truth_BHW[kept].astype(np.int64) * classes + label_BHW[kept]
                counts_KK += np.bincount(codes, minlength=classes**2).reshape(classes, classes)
        return pseudo_figures(counts_KK, valid)


def pseudo_figures(counts_KK: NDArray[np.int64], valid: int) -> dict[str, Any]:
    """Figures of kept pseudo-labels.

    Args:
        counts_KK: Kept pixels, rows = truth, columns = pseudo-label.
        valid: Labelled pixels, kept or not.

    Returns:
        ``kept_share`` of the valid pixels, ``precision`` of the kept ones (None without any), and both counts by class.
    """
    kept, right = int(counts_KK.sum()), int(np.trace(counts_KK))
    return {
        "kept_share": kept / max(valid, 1),
        "precision": right / kept if kept else None,
        "kept_pixels": counts_KK.sum(axis=0).tolist(),
        "right_pixels": np.diagonal(counts_KK).tolist(),
    }


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes weights at half the size: half floats but for vectors, among which are running variances of any size."""

    def small(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        return (tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor).contiguous()

    temporary = path.with_name(f".{path.name}.partial")
    save_file({name: small(tensor) for name, tensor in model.state_dict().items()}, str(temporary))
    temporary.replace(path)
