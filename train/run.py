"""The run folder: what a training run leaves behind, and the guard of a run that is already there."""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salakseg.data.splits import Split, write_split
from salakseg.errors import TrainingError
from salakseg.network.checkpoint import package_versions
from salakseg.train.recipe import Recipe, recipe_toml

Total = Callable[[Tensor], tuple[Tensor, int]]
"""Adds up a tensor over all processes that train together; also their number."""


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
    def best(self) -> Path:
        """The checkpoint with the best validation so far."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def metrics(self) -> Path:
        """The log, one JSON object a line."""
        return self.path / "metrics.jsonl"

    def refuse_taken(self) -> None:
        """Refuses a folder that is a run already.

        Raises:
            TrainingError: It is.
        """
        if self.last.exists() or self.best.exists():
            raise TrainingError(
                f"{self.path} holds a run already; go on with `salakseg train --resume {self.path}`, or name another "
                "folder with --checkpoint-dir."
            )

    def create(self, recipe: Recipe, split: Split, device: str) -> None:
        """Makes the folder and writes down what the run is made of.

        Raises:
            TrainingError: The folder holds a run already, or cannot be written.
        """
        self.refuse_taken()
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            (self.path / "recipe.toml").write_text(recipe_toml(recipe), encoding="utf-8")
            write_split(split, self.path / "splits.csv")
            environment = {
                "command": sys.argv,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "device": device,
                "threads": torch.get_num_threads(),
                "versions": package_versions(),
            }
            (self.path / "environment.json").write_text(json.dumps(environment, indent=2), encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written ({error.strerror}); name another folder.") from error


class RunLog:
    """``metrics.jsonl``, and TensorBoard events beside it.

    Args:
        run: The run.
        done: Steps that the run has behind it; records beyond are of a stretch that was lost, and are cut off.
        total: Sum of a tensor over all processes that train together, and how many they are.
    """

    def __init__(self, run: RunFolder, done: int, total: Total = alone) -> None:
        # TensorBoard's writer takes a second to import; the command line must not wait for it
        from torch.utils.tensorboard import SummaryWriter

        if run.metrics.exists():
            lines = [line for line in run.metrics.read_text(encoding="utf-8").splitlines() if _iteration(line) <= done]
            temporary = run.metrics.with_suffix(".partial")
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            os.replace(temporary, run.metrics)
        self._file = run.metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run.path / "tensorboard"), purge_step=done + 1)
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
        added, processes = self._total(torch.stack([stacks[name].double().mean() for name in scalars]))
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
        self._file.write(json.dumps(plain) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._board.close()


class SilentLog(RunLog):
    """The log of a process that trains beside the one that writes."""

    def __init__(self, total: Total) -> None:
        self._begin(total)

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _iteration(line: str) -> float:
    """The step of a record; a line that a crash cut short belongs to no step that counts."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
