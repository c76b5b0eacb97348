"""The training loop: supervised training with self-training beside it. Read `Trainer.run` and `Trainer._step` first.

Axes: B image, C channel, K class, H row, W column.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.data.splits import Role
from salakseg.errors import DataError, TrainingError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import list_or_none
from salakseg.evaluate.inference import confusion_of
from salakseg.evaluate.metrics import compute_metrics
from salakseg.network.checkpoint import save_checkpoint
from salakseg.network.model import Segmenter
from salakseg.train.augment import View, resize_view, weak_view
from salakseg.train.data import Batch, PatchStream, TrainingData, batches, source_window
from salakseg.train.guard import Interrupted, out_of_memory_explained, stop_on_signal
from salakseg.train.losses import LossParts, balanced_weights, segmentation_loss
from salakseg.train.pseudo import pseudo_labels
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder, RunLog
from salakseg.train.schedule import make_optimizer, rate_factor, set_rate
from salakseg.train.state import is_sound, random_states, set_random_states, to_checkpoint
from salakseg.train.teacher import Ema

LOG_EVERY = 50
"""Steps between two records of the losses; reading them stops the device, so it is not done each step."""

MULTI_SCALE_EVERY = 10
"""Every how manieth labelled batch is resized in a multi-scale recipe."""

_LABELLED, _UNLABELLED = 0, 1  # streams of random numbers, kept apart


class Trainer:
    """One training run.

    Args:
        recipe: Every setting.
        data: Patches and split.
        run: Where everything is written.
        fabric: Device and precision.
        say: Called with a line worth reading.
        load_weights: Whether the encoder starts from the recipe's weights; False where a checkpoint is about to follow.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run: RunFolder,
        fabric: Fabric,
        say: Callable[[str], None],
        load_weights: bool = True,
    ) -> None:
        self.recipe = recipe
        self.data = data
        self.run_folder = run
        self.fabric = fabric
        self.say = say
        num_classes = len(data.class_map)
        torch.manual_seed(recipe.seed)
        self.network = Segmenter(recipe.network, num_classes, load_weights)
        optimizer = make_optimizer(self.network, recipe.optimizer)
        self.student, self.optimizer = fabric.setup(self.network, optimizer)
        self.ema = Ema(self.network, recipe.ema_decay)
        weights = balanced_weights(torch.from_numpy(data.class_pixels)).to(fabric.device)
        self.class_weights_K = weights if recipe.loss.class_weights == "balanced" else None
        thresholds = recipe.selftraining.threshold_of_each(num_classes) if recipe.selftraining.enabled else []
        self.thresholds_K = torch.tensor(thresholds, device=fabric.device)
        self.iteration = 0
        self.history: list[dict[str, Any]] = []
        self.best_score = -math.inf
        self.stale_evaluations = 0
        self.evaluation: dict[str, Any] = {}
        self.start_random = random_states()
        self._saved = 0
        self._whole = True

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Trains until the last step, an early stop or an interruption.

        Args:
            progress: Called with steps done and to do.

        Raises:
            Interrupted: Ctrl-C or a termination signal came; the run can be resumed.
            TrainingError: The loss is not finite any more, or the device's memory does not suffice.
        """
        log = RunLog(self.run_folder, self.iteration)
        labelled_batches, unlabelled_batches = self._labelled_batches(), self._unlabelled_batches()
        set_random_states(self.start_random)
        try:
            with stop_on_signal() as asked_to_stop, out_of_memory_explained():
                for labelled, unlabelled in zip(labelled_batches, unlabelled_batches, strict=True):
                    self._whole = False  # a step that breaks off leaves a state that no run ever had
                    log.add_step(self._step(labelled, unlabelled))
                    self._whole = True
                    if self.iteration % LOG_EVERY == 0 or self._is_last():
                        self._write_steps(log)
                    if self.iteration % self.recipe.evaluation.every == 0 or self._is_last():
                        self._evaluate(log)
                    progress(self.iteration, self.recipe.schedule.iterations)
                    if self._patience_is_out():
                        break
                    if asked_to_stop.is_set() and not self._is_last():
                        raise Interrupted
        finally:
            self._save_last()
            log.close()
            labelled_batches.close()  # ends the workers
            unlabelled_batches.close()

    def _step(self, labelled: Batch, unlabelled: Batch | None) -> dict[str, Tensor]:
        """One optimizer step; returns what is worth logging, still on the device."""
        set_rate(self.optimizer, rate_factor(self.iteration, self.recipe.schedule))
        self.student.train()
        sup = self._supervised_loss(labelled)
        record = {"loss_sup": sup.total, "ce": sup.ce, "dice": sup.dice, "focal": sup.focal}
        loss = sup.total
        if unlabelled is not None:
            loss_unsup, unsup_record = self._selftraining_loss(unlabelled)
            record |= unsup_record
            loss = loss + self.recipe.selftraining.weight * loss_unsup
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.student, self.optimizer, max_norm=self.recipe.optimizer.clip_norm, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.ema.update(self.network)
        self.iteration += 1
        record |= {"loss": loss, "gradient_norm": norm if norm is not None else loss.new_zeros(())}
        return {name: value.detach() for name, value in record.items()}

    def _supervised_loss(self, labelled: Batch) -> LossParts:
        generator = self._generator(_LABELLED)
        view = self._view(labelled, generator)
        if self.recipe.augment.multi_scale and self.iteration % MULTI_SCALE_EVERY == MULTI_SCALE_EVERY - 1:
            view = resize_view(view, self.recipe.augment, generator)
        logits = self.student(view.image_BCHW)
        return segmentation_loss(logits.mean_BKHW, view.label_BHW, self.recipe.loss, self.class_weights_K)

    def _selftraining_loss(self, unlabelled: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The same loss on pseudo-labels, over the pixels whose confidence reaches their class's threshold."""
        settings = self.recipe.selftraining
        view = self._view(unlabelled, self._generator(_UNLABELLED))
        logits = self.student(view.image_BCHW)
        labeller = logits
        if settings.labeller == "teacher":
            with torch.no_grad(), self.fabric.autocast():
                labeller = self.ema.model(view.image_BCHW)
        pseudo = pseudo_labels(labeller, self.thresholds_K, view.label_BHW != IGNORE_INDEX)
        weights_K = self.class_weights_K if settings.class_weighted else None
        parts = segmentation_loss(logits.mean_BKHW, pseudo.label_BHW, self.recipe.loss, weights_K)
        return parts.total, {
            "loss_unsup": parts.total,
            "kept_share": pseudo.kept_share,
            "kept_share_foreground": pseudo.kept_share_foreground,
        }

    def _view(self, batch: Batch, generator: np.random.Generator) -> View:
        return weak_view(batch.to(self.fabric.device), self.recipe.augment, self.recipe.data.crop, generator)

    def _generator(self, stream: int) -> np.random.Generator:
        """Random numbers of this step and stream, the same after a resume."""
        return np.random.default_rng([self.recipe.seed, 2, stream, self.iteration])

    # ---- batches

    def _labelled_batches(self) -> Generator[Batch, None, None]:
        return self._batches(Role.LABELLED, self.iteration, self.recipe.schedule.iterations)

    def _unlabelled_batches(self) -> Generator[Batch | None, None, None]:
        """None for the steps before self-training begins, then one batch a step."""
        settings, total = self.recipe.selftraining, self.recipe.schedule.iterations
        start = max(self.iteration, min(settings.start, total) if settings.enabled else total)
        yield from (None for _ in range(self.iteration, start))
        if start < total:
            yield from self._batches(Role.UNLABELLED, start, total)

    def _batches(self, role: Role, first: int, end: int) -> Generator[Batch, None, None]:
        config = self.recipe.data
        stream = PatchStream(
            replace(self.data.index, patches=(), orphan_masks=()),  # what is not drawn from need not travel to workers
            self.data.part(role),
            self.data.class_map if role is Role.LABELLED else None,
            source_window(config.crop, self.recipe.augment.zoom_min),
            seed=2 * self.recipe.seed + (role is Role.UNLABELLED),
        )
        pin = self.fabric.device.type == "cuda"
        return batches(stream, config.batch_size, first, end - first, config.workers, pin)

    # ---- validation

    def _is_last(self) -> bool:
        return self.iteration == self.recipe.schedule.iterations

    def _evaluate(self, log: RunLog) -> None:
        """Validates the moving average on whole patches, and keeps it if it is the best so far."""
        if not is_sound(self):
            raise self._diverged("a weight is no longer finite")
        matrix = self._validate()
        metrics = compute_metrics(matrix)
        values = {
            "miou_without_background": metrics.miou_without_background.value,
            "miou_with_background": metrics.miou_with_background.value,
            "iou": list_or_none(metrics.iou),
            "overall_accuracy": metrics.overall_accuracy,
        }
        log.write("val", self.iteration, values)
        self.history.append({"iteration": self.iteration, **values})
        self.evaluation = {
            "part": Role.VAL.value,
            "patches": len(self.data.part(Role.VAL)),
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
            f"step {self.iteration}: validation mIoU without background {score:.4f}, with it "
            f"{metrics.miou_with_background.value:.4f}{' (best so far)' if better else ''}"
        )
        self.stale_evaluations = 0 if better else self.stale_evaluations + 1
        if better:
            self.best_score = score
            save_checkpoint(to_checkpoint(self), self.run_folder.best)
        self._save_last()

    def _patience_is_out(self) -> bool:
        if self.stale_evaluations < self.recipe.evaluation.patience or self._is_last():
            return False
        self.say(
            f"stopped early: {self.stale_evaluations} evaluations without a new best (best {self.best_score:.4f}); "
            "--early-stop-patience sets how many are waited for"
        )
        return True

    def _validate(self) -> ConfusionMatrix:
        return confusion_of(
            self.ema.model,
            self.data.index,
            self.data.part(Role.VAL),
            self.data.class_map,
            self.fabric.device,
        )

    def resumed_at(self, iteration: int) -> None:
        """Marks the state that was read as saved, so that nothing less replaces it."""
        self._saved = iteration

    def _save_last(self) -> None:
        if self._whole and self.iteration > self._saved and is_sound(self):
            save_checkpoint(to_checkpoint(self), self.run_folder.last)
            self._saved = self.iteration

    def _write_steps(self, log: RunLog) -> None:
        means = log.write_steps(self.iteration, self.optimizer.param_groups[0]["lr"])
        # With a gradient scaler an overflow now and then is the rule, and its step is skipped
        scaled = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        if not math.isfinite(means["loss"]) and not (scaled and is_sound(self)):
            raise self._diverged(f"the loss became {means['loss']}")

    def _diverged(self, what: str) -> TrainingError:
        self._whole = False
        kept = f"; the last good state is {self.run_folder.last}" if self.run_folder.last.exists() else ""
        return TrainingError(f"Before step {self.iteration} {what}{kept}. Start again with a lower --learning-rate.")
