"""The training loop: supervised training with self-training beside it. Read `Trainer.run` and `Trainer.step` first.

A step draws its views (`branches.py`), lets the labeller say what the unlabelled ones show (`pseudo.py`), and learns
from all of them (`objective.py`); the moving average (`teacher.py`) follows.

Axes: B image, C channel, K class, H row, W column.
"""

from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from salakseg.classes import IGNORE_INDEX
from salakseg.data.splits import Role
from salakseg.errors import CheckpointError, TrainingError, first_line
from salakseg.evaluate.history import Plan
from salakseg.network.checkpoint import Checkpoint, save_checkpoint
from salakseg.network.device import is_out_of_memory
from salakseg.network.heads import Logits
from salakseg.network.model import Segmenter
from salakseg.train.augment import View, source_side
from salakseg.train.branches import Branch, Views
from salakseg.train.data import Batch, PatchStream, Steps, TrainingData, step_batches
from salakseg.train.environment import determinism
from salakseg.train.keeping import Keeper
from salakseg.train.losses import balanced_weights
from salakseg.train.memory import Accumulation
from salakseg.train.objective import Objective, Record
from salakseg.train.observer import Observer
from salakseg.train.parallel import anybody, make_ready, summed, total
from salakseg.train.parts import part_sizes
from salakseg.train.pseudo import Labeller, Target
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder, RunLog, SilentLog
from salakseg.train.sampling import ByFolder, ByRarity, Order
from salakseg.train.schedule import make_optimizer, rate_factor, selftraining_weight, set_rate
from salakseg.train.signals import Interrupted, stop_on_signal
from salakseg.train.skipped import Skipped
from salakseg.train.skipping import step_if_finite
from salakseg.train.state import data_digest, is_sound, process_seed, random_states, set_random_states, to_checkpoint
from salakseg.train.teacher import Ema
from salakseg.train.validate import Validation
from salakseg.train.watch import Watch, breakdown

_SPOILT = "a weight is no longer finite"

_ASK_EVERY = 5
"""Steps after which processes that train together ask each other whether to stop; torchrun kills after 30 seconds."""

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

    Attributes:
        learned_before: Rows of folder and photo that the first weights had learned from, see `initial.py`.
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
        self.learned_before: list[list[str]] = []
        self.data_digest = data_digest(data)
        num_classes = len(data.class_map)
        torch.manual_seed(recipe.seed)
        self.network = Segmenter(recipe.network, num_classes, load_weights)
        if recipe.performance.channels_last:
            self.network.to(memory_format=torch.channels_last)
        make_ready(self.network, fabric)
        if recipe.performance.compile:
            self.network.compile()
        # A fused optimizer takes the gradient scaler of float16 into its kernel, and nothing could be clipped before;
        # a fused SGD wants every head's gradient in every step, and frozen heads have none
        late = recipe.loss.heads_frozen > 0 and recipe.optimizer.kind == "sgd"
        fused = fabric.device.type == "cuda" and not self._scales_gradients and not late
        optimizer = make_optimizer(self.network, recipe.optimizer, fused)
        self.student, self.optimizer = fabric.setup(self.network, optimizer)
        self.ema = Ema(self.network, recipe.ema_decay)
        weights_K = balanced_weights(torch.from_numpy(data.class_pixels)).to(fabric.device)
        self.labeller = Labeller(recipe.selftraining, num_classes, fabric.device, lambda tensor: total(tensor, fabric))
        self.views = Views(recipe, rare_K=weights_K > 1, rank=fabric.global_rank)
        self.objective = Objective(
            recipe, self.labeller, weights_K if recipe.loss.class_weights == "balanced" else None
        )
        self.accumulation = Accumulation(recipe.data.batch_size, say, alone=fabric.world_size == 1)
        self.skipped = Skipped(part_sizes(data.index, data.split), run.skipped if fabric.is_global_zero else None, say)
        self.validation = Validation(recipe.evaluation, data, say, self.skipped)
        self.watch = Watch(recipe.health, Plan.from_recipe(recipe.model_dump(mode="json")))
        self.observer = Observer(self)
        self.keeper = Keeper(run, recipe.evaluation.save_every, say)
        self.iteration = 0
        self._norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if fabric.world_size > 1:  # all start from the same weights; dropout differs from process to process
            torch.manual_seed(process_seed(self))
        self.start_random = random_states()
        self._whole = True
        self.asked_to_stop = False

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Trains until the last step, an early stop or an interruption.

        Args:
            progress: Called with steps done and to do.

        Raises:
            Interrupted: Ctrl-C or a termination signal came; the run can be resumed.
            TrainingError: The loss is not finite any more, the device's memory does not suffice, or another process
                trains this run.
            CheckpointError: The disk is full at the start or at the end.
            DataError: A patch holds what it must not, or too many cannot be read.
        """
        first = self.fabric.is_global_zero
        held = self.run_folder.held() if first else nullcontext()
        with held, determinism(self.recipe.performance.deterministic, self.say):
            if first and self.keeper.saved < 0:
                if self.iteration == 0:
                    self.run_folder.claim(self.recipe, self.data, self.fabric.device)
                set_random_states(self.start_random)
                self.keeper.save(to_checkpoint(self))  # so that a kill before the next one can be gone on from
            self._run(progress)

    def _run(self, progress: Callable[[int, int], None]) -> None:
        log = self._open_log()
        if self.iteration > 0:  # how it ended before is not how it ends now
            log.write("event", self.iteration, {"event": "resumed"})
        batches = self.batches()
        set_random_states(self.start_random)
        try:
            self.skipped.add(self.data.damaged)
            with stop_on_signal() as asked_to_stop:
                for labelled, unlabelled in batches:
                    assert labelled is not None
                    self._whole = False  # a step that breaks off leaves a state that no run ever had
                    log.add_step(self.step(labelled, unlabelled))
                    evaluates = self.iteration % self.recipe.evaluation.every == 0 or self.is_last
                    self._whole = not evaluates  # nor one without its evaluation, which nobody would make up for
                    if self.iteration % LOG_EVERY == 0 or evaluates:
                        self._write_steps(log)
                    if evaluates:
                        self._evaluate(log)
                    elif self.keeper.is_due(self.iteration):
                        self._save(self.keeper.try_to_save)
                    progress(self.iteration, self.recipe.schedule.iterations)
                    if not self.is_last and self._shall_end_early(log):
                        break
                    if not self.is_last and self._shall_stop(asked_to_stop.is_set()):
                        log.write("event", self.iteration, {"event": "interrupted"})
                        raise Interrupted
                self.asked_to_stop = asked_to_stop.is_set()
            self._save(self.keeper.save)
            if self.is_last:  # and not before that is on disk
                log.write("event", self.iteration, {"event": "finished"})
        except Exception as error:
            log.write("event", self.iteration, {"event": "failed", "reason": first_line(error)})
            raise
        finally:
            try:
                self._save(self.keeper.save)
            finally:
                log.close()
                batches.close()  # ends the workers
                self.skipped.tell()

    def _open_log(self) -> RunLog:
        def sum_and_number(tensor: Tensor) -> tuple[Tensor, int]:
            return summed(tensor, self.fabric), self.fabric.world_size

        if not self.fabric.is_global_zero:
            return SilentLog(sum_and_number)
        return RunLog(self.run_folder, self.iteration, sum_and_number, self.say)

    @property
    def is_last(self) -> bool:
        """Whether all steps are done."""
        return self.iteration == self.recipe.schedule.iterations

    # ---- one step

    def step(self, labelled: Batch, unlabelled: Batch | None) -> Record:
        """One optimizer step; returns what is worth logging, still on the device."""
        try:
            branches, record = self.branches(labelled, unlabelled)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"The device has too little memory for the views of {self.recipe.data.batch_size} patches and their "
                "pseudo-labels; close what else uses it, or take half the --batch-size."
            ) from error
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
        if self._scales_gradients or norm is None:
            self.optimizer.step()
            broken = ~record["loss"].isfinite()  # a gradient too large for float16 is the scaler's daily business
        else:
            step_if_finite(self.optimizer, norm)
            broken = ~norm.detach().isfinite()
        record["skipped_share"] = broken.float()
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
        return self.labeller.label(self.answer(weak.image_BCHW), weak.label_BHW != IGNORE_INDEX)

    def answer(self, image_BCHW: Tensor) -> Logits:
        """The logits of the network that labels."""
        network = self.ema.model if self.recipe.selftraining.labeller == "teacher" else self.network.eval()
        with torch.no_grad(), self.fabric.autocast():
            answer: Logits = network(self._in_order(image_BCHW))
            return answer

    def learn_part(self, branches: list[Branch], number: int, parts: int) -> Record:
        """Adds the gradient of one of the parts that a batch is divided into."""
        self.student.train()
        if self.recipe.optimizer.freeze_batch_norm:
            for norm in self._norms:
                norm.eval()
        weight = selftraining_weight(self.iteration, self.recipe.selftraining) * self.watch.weight_factor
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
        if self.recipe.performance.channels_last:
            return image_BCHW.contiguous(memory_format=torch.channels_last)
        return image_BCHW

    # ---- batches

    def batches(self) -> Generator[list[Batch | None], None, None]:
        """A labelled and an unlabelled batch for each step from this one on; None before self-training begins."""
        settings, total = self.recipe.selftraining, self.recipe.schedule.iterations
        streams: list[tuple[PatchStream, int | None]] = [(self._stream(Role.LABELLED), 0)]
        streams.append((self._stream(Role.UNLABELLED), settings.start if settings.enabled else None))
        share = self.fabric.global_rank, self.fabric.world_size
        config = self.recipe.data
        return step_batches(
            Steps(streams, config.batch_size, share),
            self.iteration,
            total - self.iteration,
            workers=0 if config.in_memory else config.workers,
            pin_memory=self.fabric.device.type == "cuda",
            on_skips=self.skipped.add,
        )

    def _stream(self, role: Role) -> PatchStream:
        config, data = self.recipe.data, self.data
        seed = 2 * self.recipe.seed + (role is Role.UNLABELLED)
        order: Order | None = None
        if role is Role.LABELLED and config.sampling == "rarity":
            order = ByRarity(data.patch_pixels, config.rarity_temperature, seed)
        if role is Role.UNLABELLED and self.recipe.selftraining.sampling == "folders":
            order = ByFolder([patch.folder for patch in data.part(role)], seed)
        return PatchStream(
            replace(data.index, patches=(), orphan_masks=()),  # what is not drawn from need not travel to workers
            data.part(role),
            data.class_map if role is Role.LABELLED else None,
            source_side(self.recipe.augment, config.crop),
            seed,
            order,
            role.value,
        )

    def labelled_batches(self) -> Generator[Batch, None, None]:
        """The labelled batches alone."""
        return (labelled for labelled, _ in self.batches() if labelled is not None)

    def unlabelled_batches(self) -> Generator[Batch | None, None, None]:
        """The unlabelled batches alone; None for the steps before self-training begins."""
        return (unlabelled for _, unlabelled in self.batches())

    # ---- keeping

    def _evaluate(self, log: RunLog) -> None:
        """Validates the moving average, and keeps it if it is the best so far."""
        try:
            self._judge(log)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                "The device has too little memory to validate whole pictures of this size; cut them into patches with "
                "`salakseg prepare`, or close what else uses it."
            ) from error

    def _judge(self, log: RunLog) -> None:
        if self._is_spoilt():
            self._broke(_SPOILT, log)
            self._whole = True
            return
        best_before = self.validation.best_score
        if self.validation.evaluate(self.ema.model, self.iteration, self.fabric, log) and self.fabric.is_global_zero:
            try:
                save_checkpoint(to_checkpoint(self), self.run_folder.best)
            except CheckpointError as error:
                self.say(f"attention: {error} The best network so far stays that of before")
                self.validation.best_score = best_before
        self.observer.evaluated(log)
        self._whole = True
        self._save(self.keeper.try_to_save)

    def _shall_end_early(self, log: RunLog) -> bool:
        if self.observer.stop_reason is not None:
            return True
        if self.iteration % self.recipe.evaluation.every or (reason := self.validation.stop_reason()) is None:
            return False
        log.write("event", self.iteration, {"event": "stopped early", "reason": reason})
        self.say(f"stopped early: {reason}; --early-stop-patience sets how many are waited for")
        return True

    def _shall_stop(self, asked: bool) -> bool:
        """Whether to stop here; processes that train together agree now and then, since asking holds up the devices."""
        if self.fabric.world_size == 1:
            return asked
        return self.iteration % _ASK_EVERY == 0 and anybody(asked, self.fabric)

    def _save(self, save: Callable[[Checkpoint], None]) -> None:
        """Saves the state, unless it is on disk already or must not replace what is there."""
        if self.fabric.is_global_zero and self._whole and self.iteration > self.keeper.saved and is_sound(self):
            save(to_checkpoint(self))

    def _write_steps(self, log: RunLog) -> None:
        means = log.write_steps(self.iteration, self.optimizer.param_groups[0]["lr"])
        # With a gradient scaler an overflow now and then is the rule, and its step is skipped
        if (what := breakdown(means)) is not None and not (self._scales_gradients and is_sound(self)):
            self._broke(what, log)
        elif means.get("skipped_share", 0.0) > 0 and self._is_spoilt():
            self._broke(_SPOILT, log)  # such a step moves no weight, but running statistics, which label

    def _is_spoilt(self) -> bool:
        """Whether a weight is no number; all processes must ask, since running statistics may break in one alone."""
        return anybody(not is_sound(self), self.fabric)

    def _broke(self, what: str, log: RunLog) -> None:
        """Goes back to the best network if the recipe lets it, or ends the run."""
        if not self.observer.broken(what, log):
            raise self._diverged(what)

    @property
    def _scales_gradients(self) -> bool:
        return getattr(self.fabric.strategy.precision, "scaler", None) is not None

    def _diverged(self, what: str) -> TrainingError:
        self._whole = False
        kept = f"; the last good state is {self.run_folder.last}" if self.run_folder.last.exists() else ""
        return TrainingError(f"Before step {self.iteration} {what}{kept}. Start again with a lower --learning-rate.")
