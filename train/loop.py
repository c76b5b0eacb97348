"""The training loop: supervised training with self-training beside it. Read `Trainer.run` and `Trainer.step` first.

A step draws its views (`branches.py`), lets the labeller say what the unlabelled ones show (`pseudo.py`), and learns
from all of them (`objective.py`); the moving average (`teacher.py`) follows.

Axes: B image, C channel, K class, H row, W column.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from salakseg.classes import IGNORE_INDEX
from salakseg.data.splits import Role
from salakseg.errors import TrainingError
from salakseg.network.checkpoint import save_checkpoint
from salakseg.network.heads import Logits
from salakseg.network.model import Segmenter
from salakseg.train.augment import View, source_side
from salakseg.train.branches import Branch, Views
from salakseg.train.data import Batch, PatchStream, TrainingData, batches
from salakseg.train.guard import Interrupted, stop_on_signal
from salakseg.train.losses import balanced_weights
from salakseg.train.memory import Accumulation
from salakseg.train.objective import Objective, Record
from salakseg.train.parallel import anybody, make_ready, summed
from salakseg.train.pseudo import Labeller, Target, mean_of_flips
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder, RunLog, SilentLog
from salakseg.train.schedule import make_optimizer, rate_factor, selftraining_weight, set_rate
from salakseg.train.state import is_sound, random_states, set_random_states, to_checkpoint
from salakseg.train.teacher import Ema
from salakseg.train.validate import Validation

LOG_EVERY = 50
"""Steps between two records of the losses; reading them stops the device, so it is not done each step."""


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
        if recipe.performance.channels_last and fabric.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        make_ready(self.network, fabric)
        if recipe.performance.compile:
            self.network.compile()
        # A fused optimizer would take the gradient scaler of float16 into its kernel, and leave nothing to be clipped
        fused = fabric.device.type == "cuda" and not self._scales_gradients
        optimizer = make_optimizer(self.network, recipe.optimizer, fused)
        self.student, self.optimizer = fabric.setup(self.network, optimizer)
        self.ema = Ema(self.network, recipe.ema_decay)
        weights_K = balanced_weights(torch.from_numpy(data.class_pixels)).to(fabric.device)
        self.labeller = Labeller(recipe.selftraining, num_classes, fabric.device)
        self.views = Views(recipe, rare_K=weights_K > 1, rank=fabric.global_rank)
        self.objective = Objective(
            recipe, self.labeller, weights_K if recipe.loss.class_weights == "balanced" else None
        )
        self.accumulation = Accumulation(recipe.data.batch_size, say, alone=fabric.world_size == 1)
        self.validation = Validation(recipe.evaluation, data, say)
        self.iteration = 0
        self._norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if fabric.world_size > 1:  # all start from the same weights; dropout differs from process to process
            torch.manual_seed(recipe.seed + 1_000_003 * fabric.global_rank)
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
        log = self._open_log()
        labelled_batches, unlabelled_batches = self.labelled_batches(), self.unlabelled_batches()
        set_random_states(self.start_random)
        try:
            with stop_on_signal() as asked_to_stop:
                for labelled, unlabelled in zip(labelled_batches, unlabelled_batches, strict=True):
                    self._whole = False  # a step that breaks off leaves a state that no run ever had
                    log.add_step(self.step(labelled, unlabelled))
                    self._whole = True
                    if self.iteration % LOG_EVERY == 0 or self.is_last:
                        self._write_steps(log)
                    if self.iteration % self.recipe.evaluation.every == 0 or self.is_last:
                        self._evaluate(log)
                    progress(self.iteration, self.recipe.schedule.iterations)
                    if not self.is_last and self.validation.patience_is_out():
                        break
                    if not self.is_last and self._shall_stop(asked_to_stop.is_set()):
                        raise Interrupted
        finally:
            self._save_last()
            log.close()
            labelled_batches.close()  # ends the workers
            unlabelled_batches.close()

    def _open_log(self) -> RunLog:
        def total(tensor: Tensor) -> tuple[Tensor, int]:
            return summed(tensor, self.fabric), self.fabric.world_size

        return RunLog(self.run_folder, self.iteration, total) if self.fabric.is_global_zero else SilentLog(total)

    @property
    def is_last(self) -> bool:
        """Whether all steps are done."""
        return self.iteration == self.recipe.schedule.iterations

    # ---- one step

    def step(self, labelled: Batch, unlabelled: Batch | None) -> Record:
        """One optimizer step; returns what is worth logging, still on the device."""
        branches, record = self.branches(labelled, unlabelled)
        return record | self.learn(branches)

    def learn(self, branches: list[Branch]) -> Record:
        """Moves the weights by the gradient of these branches, and the average after them."""
        set_rate(self.optimizer, rate_factor(self.iteration, self.recipe.schedule))
        record = self.accumulation.run(lambda number, parts: self.learn_part(branches, number, parts), self.optimizer)
        for head in self.views.frozen_heads(len(self.network.heads), self.iteration):
            for parameter in self.network.heads[head].parameters():
                parameter.grad = None
        norm = self.fabric.clip_gradients(
            self.student, self.optimizer, max_norm=self.recipe.optimizer.clip_norm, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.ema.update(self.network)
        self.iteration += 1
        return record | {"gradient_norm": norm.detach() if norm is not None else record["loss"].new_zeros(())}

    def branches(self, labelled: Batch, unlabelled: Batch | None) -> tuple[list[Branch], Record]:
        """What the student learns from in this step, and what is worth logging of the labeller's answer."""
        branches = [self.views.labelled(labelled.to(self.fabric.device), self.iteration)]
        if unlabelled is None:
            return branches, {}
        weak = self.views.weak(unlabelled.to(self.fabric.device), self.iteration)
        target: Target | None = None
        record: Record = {}
        if not self.recipe.selftraining.labels_inline:
            target, record = self._label(weak)
        return branches + self.views.unlabelled(weak, target, branches[0], self.iteration), record

    def _label(self, weak: View) -> tuple[Target, Record]:
        """The labeller's answer to the weak view, without dropout and by running statistics."""
        network = self.ema.model if self.recipe.selftraining.labeller == "teacher" else self.network.eval()
        with torch.no_grad(), self.fabric.autocast():
            logits: Logits = network(self._in_order(weak.image_BCHW))
            if self.recipe.selftraining.labeller_flips:
                logits = mean_of_flips(logits, network(self._in_order(weak.image_BCHW.flip(-1))))
        return self.labeller.label(logits, weak.label_BHW != IGNORE_INDEX)

    def learn_part(self, branches: list[Branch], number: int, parts: int) -> Record:
        """Adds the gradient of one of the parts that a batch is divided into."""
        self.student.train()
        if self.recipe.optimizer.freeze_batch_norm:
            for norm in self._norms:
                norm.eval()
        weight = selftraining_weight(self.iteration, self.recipe.selftraining)
        head = self.views.random_head(len(self.network.heads), self.iteration)
        own = [branch.part(number, parts) for branch in branches]
        with self.fabric.no_backward_sync(self.student, enabled=number < parts - 1):
            loss, record = self.objective(
                lambda image, dropout: self.student(self._in_order(image), dropout), own, weight, head
            )
            self.fabric.backward(loss * (own[0].samples / branches[0].samples))
        return record

    def _in_order(self, image_BCHW: Tensor) -> Tensor:
        """The images with their axes in memory as the network has its weights."""
        if self.recipe.performance.channels_last and image_BCHW.is_cuda:
            return image_BCHW.contiguous(memory_format=torch.channels_last)
        return image_BCHW

    # ---- batches

    def labelled_batches(self) -> Generator[Batch, None, None]:
        """A batch for each step from this one on."""
        return self._batches(Role.LABELLED, self.iteration, self.recipe.schedule.iterations)

    def unlabelled_batches(self) -> Generator[Batch | None, None, None]:
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
            source_side(self.recipe.augment, config.crop),
            seed=2 * self.recipe.seed + (role is Role.UNLABELLED),
        )
        pin = self.fabric.device.type == "cuda"
        share = (self.fabric.global_rank, self.fabric.world_size)
        return batches(stream, config.batch_size, first, end - first, config.workers, pin, share)

    # ---- keeping

    def _evaluate(self, log: RunLog) -> None:
        """Validates the moving average, and keeps it if it is the best so far."""
        if not is_sound(self):
            raise self._diverged("a weight is no longer finite")
        better = self.validation.evaluate(self.ema.model, self.iteration, self.fabric, log)
        if better and self.fabric.is_global_zero:
            save_checkpoint(to_checkpoint(self), self.run_folder.best)
        self._save_last()

    def _shall_stop(self, asked: bool) -> bool:
        """Whether to stop here; processes that train together agree now and then, since asking stops the devices."""
        if self.fabric.world_size == 1:
            return asked
        return self.iteration % LOG_EVERY == 0 and anybody(asked, self.fabric)

    def resumed_at(self, iteration: int) -> None:
        """Marks the state that was read as saved, so that nothing less replaces it."""
        self._saved = iteration

    def _save_last(self) -> None:
        if self.fabric.is_global_zero and self._whole and self.iteration > self._saved and is_sound(self):
            save_checkpoint(to_checkpoint(self), self.run_folder.last)
            self._saved = self.iteration

    def _write_steps(self, log: RunLog) -> None:
        means = log.write_steps(self.iteration, self.optimizer.param_groups[0]["lr"])
        # With a gradient scaler an overflow now and then is the rule, and its step is skipped
        if not math.isfinite(means["loss"]) and not (self._scales_gradients and is_sound(self)):
            raise self._diverged(f"the loss became {means['loss']}")

    @property
    def _scales_gradients(self) -> bool:
        return getattr(self.fabric.strategy.precision, "scaler", None) is not None

    def _diverged(self, what: str) -> TrainingError:
        self._whole = False
        kept = f"; the last good state is {self.run_folder.last}" if self.run_folder.last.exists() else ""
        return TrainingError(f"Before step {self.iteration} {what}{kept}. Start again with a lower --learning-rate.")
