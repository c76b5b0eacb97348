"""A run: a strategy and a seed, round by round. Each round is a file, so that work goes on where it was stopped."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contest.methods import METHODS
from contest.records import read_json, write_json
from contest.settings import BUDGETS, resolve
from contest.watch import ContestTrainer, Watch

from labelling.squares import Pool, Square
from labelling.strategies import choose_squares
from salakseg.train.parallel import make_fabric
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder

START = "start"
"""What stands for the strategy in the round before any square: it is the same for all strategies of a seed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all runs of a folder have in common.

    Attributes:
        iterations: Steps of each training, always from the same start.
        side: Side of a square, pixels.
        count: Squares added in a round.
        rounds: Rounds after the first training.
        encoder_weights: ``imagenet`` or a file.
        changes: Settings on top of the recipe.
    """

    iterations: int
    side: int
    count: int
    rounds: int
    encoder_weights: str = "imagenet"
    changes: tuple[dict[str, Any], ...] = ()

    def recipe(self, seed: int) -> Recipe:
        """The supervised recipe of the contest; one evaluation, at the end."""
        own = {"evaluation": {"every": self.iterations}}
        method, budget = METHODS["supervised"], BUDGETS["cpu"]
        changes = [own, *self.changes]
        return resolve(method, "supervised", budget, self.iterations, seed, self.encoder_weights, changes)

    def to_json(self) -> dict[str, Any]:
        """What a round depends on; how many rounds there are is not part of it."""
        plain = asdict(self)
        return {key: plain[key] for key in ("iterations", "side", "count")} | {"changes": list(self.changes)}


def do_run(
    strategy: str, seed: int, pool: Pool, setting: Setting, out: Path, device: str, say: Callable[[str], None]
) -> None:
    """Does all rounds of a run that are not done yet.

    Args:
        strategy: See `STRATEGIES`.
        seed: Of everything random.
        pool: The images.
        setting: The rest.
        out: Folder of results.
        device: "auto", "cpu" or "cuda".
        say: Called with a line worth reading.
    """
    revealed: list[Square] = []
    for number in range(setting.rounds + 1):
        name = run_name(strategy, seed, number)
        record = _existing(out, name, setting, revealed)
        last = number == setting.rounds
        if record is None or not (last or strategy in record["next"] or _checkpoint(out, name).is_file()):
            chosen_before = {} if record is None else record["next"]
            record = _train(name, seed, pool, setting, revealed, out, device) | {"next": chosen_before}
            say(f"{name}: {record['labelled_pixels']:,} labelled pixels, mIoU {record['miou_without_background']:.4f}")
        if last:
            break
        chosen = record["next"].get(strategy)
        if chosen is None:
            cache = out / "unfinished" / "cells"
            shutil.rmtree(cache, ignore_errors=True)
            model = _checkpoint(out, name)
            squares = choose_squares(strategy, pool, revealed, setting.count, model, seed, cache, device)
            shutil.rmtree(cache, ignore_errors=True)
            chosen = record["next"][strategy] = [list(square) for square in squares]
            write_json(out / "runs" / f"{name}.json", record)
        if number:  # the first network is needed again by the other strategies
            _checkpoint(out, name).unlink(missing_ok=True)
        revealed += [Square(*square) for square in chosen]


def run_name(strategy: str, seed: int, number: int) -> str:
    """The name of a round for files."""
    return f"{strategy if number else START}-s{seed}-r{number}"


def _existing(out: Path, name: str, setting: Setting, revealed: Sequence[Square]) -> dict[str, Any] | None:
    """The record of a round, if it is of these settings and squares."""
    path = out / "runs" / f"{name}.json"
    if not path.is_file():
        return None
    record = read_json(path)
    same = record["setting"] == setting.to_json() and record["squares"] == [list(square) for square in revealed]
    return record if same else None


def _checkpoint(out: Path, name: str) -> Path:
    return out / "checkpoints" / f"{name}.pt"


def _train(
    name: str, seed: int, pool: Pool, setting: Setting, revealed: Sequence[Square], out: Path, device: str
) -> dict[str, Any]:
    started = time.perf_counter()
    recipe, data = setting.recipe(seed), pool.training(revealed)
    folder = RunFolder(out / "unfinished" / name)
    shutil.rmtree(folder.path, ignore_errors=True)
    fabric = make_fabric(device, recipe)
    folder.create(recipe, data.training, fabric.device)
    trainer = ContestTrainer(recipe, data.training, folder, fabric, lambda line: None)
    watch = Watch(trainer, data, pool.window, folder.path / "best.safetensors", lambda line: None)
    trainer.validation = watch
    trainer.run(lambda done, total: None)
    model = _checkpoint(out, name)
    model.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder.last, model)
    shutil.rmtree(folder.path, ignore_errors=True)
    last = watch.history[-1]
    record = {
        "setting": setting.to_json(),
        "squares": [list(square) for square in revealed],
        "labelled_pixels": int(data.training.class_pixels.sum()),
        "class_pixels": data.training.class_pixels.tolist(),
        "miou_without_background": last["miou_without_background"],
        "miou_with_background": last["miou_with_background"],
        "iou": last["iou"],
        "images": last["images"],
        "classes": list(pool.class_map.names),
        "seconds": time.perf_counter() - started,
        "device": str(fabric.device),
        "next": {},
    }
    write_json(out / "runs" / f"{name}.json", record)
    return record
