"""The run folder: what a training run leaves behind, and the guard of a run that is already there."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from salakseg import replacing
from salakseg.data.splits import write_split
from salakseg.errors import TrainingError
from salakseg.shell import as_argument
from salakseg.train.data import TrainingData
from salakseg.train.environment import differences, environment, read_environment
from salakseg.train.line_file import LineFile
from salakseg.train.recipe import Recipe, recipe_toml

Say = Callable[[str], None]

Total = Callable[[Tensor], tuple[Tensor, int]]
"""Adds up a tensor over all processes that train together; also their number."""


_GLANCES = 20.0  # seconds that the glances of all processes of a machine may take


def alone(tensor: Tensor) -> tuple[Tensor, int]:
    """The `Total` of a process that trains by itself."""
    return tensor.cpu(), 1


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which the run goes on."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before `last`, in case that one is damaged."""
        return self.path / "checkpoints" / "previous.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation so far."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def metrics(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def skipped(self) -> Path:
        """The patches that could not be read."""
        return self.path / "skipped.csv"

    @property
    def environment(self) -> Path:
        """What the run was made with."""
        return self.path / "environment.json"

    def glance(self) -> AbstractContextManager[None]:
        """`held` for a moment; those that torchrun starts together all look, and wait for one another.

        Raises:
            TrainingError: Another process trains the run.
        """
        return self.held(_GLANCES if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0.0)

    @contextmanager
    def held(self, patience: float = 0.0) -> Iterator[None]:
        """Keeps other processes from training the same run; a kill gives it free.

        Args:
            patience: Seconds to wait for one that holds it.

        Raises:
            TrainingError: Another process does.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=patience)
        except Timeout as error:
            raise TrainingError(f"{self.path} is being trained by another process; wait for it, or stop it.") from error
        except OSError:  # a disk without locks
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def refuse_taken(self) -> None:
        """Refuses a folder that is a run already.

        Raises:
            TrainingError: It is.
        """
        if any(path.exists() for path in (self.last, self.previous, self.best)):
            raise TrainingError(
                f"{self.path} holds a run already; go on with `salakseg train --resume "
                f"{as_argument(self.path)}`, or name another folder with --checkpoint-dir."
            )

    def create(self, recipe: Recipe, data: TrainingData, device: torch.device) -> None:
        """Makes the folder and writes down what the run is made of.

        Raises:
            TrainingError: The folder holds a run already, or cannot be written.
        """
        self.refuse_taken()
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            for old in (self.metrics, self.skipped):  # of a run that was killed before its first checkpoint
                old.unlink(missing_ok=True)
            (self.path / "recipe.toml").write_text(recipe_toml(recipe), encoding="utf-8")
            write_split(data.split, self.path / "splits.csv")
            self._write_environment(environment(recipe, data.index, device))
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written ({error.strerror}); name another folder.") from error

    def claim(self, recipe: Recipe, data: TrainingData, device: torch.device) -> None:
        """What the first of two processes does that made the same folder: its files are to be of its own run.

        Raises:
            TrainingError: The other one was first, or the folder cannot be written.
        """
        self.refuse_taken()
        try:
            is_own = (self.path / "recipe.toml").read_text(encoding="utf-8") == recipe_toml(recipe)
        except OSError:
            is_own = False
        if not is_own:
            self.create(recipe, data, device)

    def go_on(self, recipe: Recipe, data: TrainingData, device: torch.device, iteration: int, say: Say) -> None:
        """Writes down with what a run goes on, its patience and its environment, and tells what is different.

        Raises:
            TrainingError: The folder cannot be written.
        """
        try:
            _write_whole(self.path / "recipe.toml", recipe_toml(recipe))
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written ({error.strerror}); free some room.") from error
        now = environment(recipe, data.index, device)
        before = read_environment(self.environment) or {}
        earlier = before.get("resumed")
        resumed: list[Any] = earlier if isinstance(earlier, list) else []
        changed = differences(resumed[-1] if resumed and isinstance(resumed[-1], dict) else before, now)
        if changed:
            say(f"attention: changed since the run was last begun: {'; '.join(changed)}; it may go on otherwise")
        try:
            self._write_environment({**(before or now), "resumed": [*resumed, {"iteration": iteration, **now}]})
        except OSError as error:
            say(f"attention: {self.environment} cannot be written ({error.strerror})")

    def _write_environment(self, content: Mapping[str, Any]) -> None:
        _write_whole(self.environment, json.dumps(content, indent=2) + "\n")


class RunLog:
    """``metrics.jsonl``, and TensorBoard events beside it.

    Args:
        run: The run.
        done: Steps that the run has behind it; records beyond are of a stretch that was lost, and are cut off.
        total: Sum of a tensor over all processes that train together, and how many they are.
        say: Called with a line worth reading.

    Raises:
        TrainingError: The folder cannot be written.
    """

    def __init__(self, run: RunFolder, done: int, total: Total = alone, say: Say = print) -> None:
        # TensorBoard's writer takes a second to import; the command line must not wait for it
        from torch.utils.tensorboard import SummaryWriter

        try:
            _cut(run.metrics, done)
            self._file = LineFile(run.metrics, say)
            self._board: SummaryWriter | None = SummaryWriter(str(run.path / "tensorboard"), purge_step=done + 1)
        except OSError as error:
            raise TrainingError(
                f"{run.path} cannot be written ({error.strerror}); free some room, then go on with --resume."
            ) from error
        self._say = say
        self._hook = threading.excepthook
        threading.excepthook = self._in_thread
        self._begin(total)

    def _begin(self, total: Total) -> None:
        self._total = total
        self._steps: list[dict[str, Tensor]] = []
        self._since = time.perf_counter()

    def add_step(self, record: dict[str, Tensor]) -> None:
        """Keeps the scalars of one step, without waiting for the device to have computed them."""
        self._steps.append(record)

    def write_steps(self, iteration: int, learning_rate: float) -> dict[str, float]:
        """Writes the means over the steps kept since the last call; here the device is waited for.

        Returns:
            The means; a figure that only some of the steps have is the mean over these. Counts by class are written as
            sums, and not returned.
        """
        names = dict.fromkeys(name for record in self._steps for name in record)
        stacks = {name: torch.stack([record[name] for record in self._steps if name in record]) for name in names}
        scalars = [name for name, stack in stacks.items() if stack.ndim == 1]
        added, processes = self._total(torch.stack([stacks[name].cpu().double().mean() for name in scalars]))
        means = dict(zip(scalars, (added / processes).tolist(), strict=True))
        sums = {name: self._total(stack.sum(dim=0))[0].tolist() for name, stack in stacks.items() if stack.ndim == 2}
        now = time.perf_counter()
        means |= {"learning_rate": learning_rate, "steps_per_second": len(self._steps) / (now - self._since)}
        self._steps.clear()
        self._since = now
        self.write("train", iteration, means | sums)
        return means

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Adds one record; numbers also go to TensorBoard as ``kind/name``."""
        record = {"kind": kind, "iteration": iteration, **values}
        # JSON has no NaN; a figure that is undefined is null
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._file.add(json.dumps(plain))
        for name, value in values.items():
            if isinstance(value, int | float) and kind != "event":  # what happened once is no curve
                self.show("add_scalar", f"{kind}/{name}", value, iteration)

    def show(self, method: str, *arguments: Any) -> None:  # noqa: ANN401  # whatever TensorBoard takes
        """Calls TensorBoard's writer; once that has met a full disk, it is left alone, and the run goes on."""
        if self._board is None:
            return
        try:
            getattr(self._board, method)(*arguments)
        except OSError as error:
            self._say(f"attention: TensorBoard's file cannot be written ({error.strerror or error}) and ends here")
            self._board = None

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self.show("close")
        threading.excepthook = self._hook

    def _in_thread(self, args: threading.ExceptHookArgs) -> None:
        """TensorBoard's own thread raises here what `show` tells in a sentence."""
        if not (isinstance(args.exc_value, OSError) and "tensorboard" in type(args.thread).__module__):
            self._hook(args)


class SilentLog(RunLog):
    """The log of a process that trains beside the one that writes."""

    def __init__(self, total: Total) -> None:
        self._begin(total)

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _cut(path: Path, done: int) -> None:
    """Removes the records of steps beyond, and a line that a crash cut short."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    kept = "".join(line + "\n" for line in text.splitlines() if _iteration(line) <= done)
    if kept != text:
        _write_whole(path, kept)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    replacing.replace(temporary, path)


def _iteration(line: str) -> float:
    """The step of a record; a line that a crash cut short belongs to no step that counts."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
