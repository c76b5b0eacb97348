"""Seconds of a step of several methods, in turns: whatever else the machine does falls on all of them alike."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from contest.plan import Planner
from contest.protocol import load_data
from contest.records import Store, write_json
from contest.settings import Budget
from contest.watch import ContestTrainer
from salakseg.errors import RecipeError
from salakseg.train.parallel import make_fabric
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder

ROUNDS = 6
STEPS = 3
"""Steps of each method in a round."""


def time_steps(
    methods: Sequence[str],
    budget: Budget,
    data: Path,
    store: Store,
    device: str,
    encoder_weights: str,
    say: Callable[[str], None],
) -> None:
    """Measures and writes ``timing-BUDGET.json``: the median over the rounds, the first one left out.

    Raises:
        RecipeError: An unknown method, or one that hangs on runs which are not there.
    """
    begun = {"selftraining": {"start": 0}, "loss": {"heads_frozen_from": 0}}
    planner = Planner(budget, budget.iterations, encoder_weights, [begun])
    turns = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            planned = planner.plan(planner.key(method, 0), store)
            if planned is None:
                raise RecipeError(f"{method} has to be tuned first, with --set tuning.")
            turns[method] = _stepper(planned.recipe, planned.all_labelled, budget, data, device, Path(folder))
        seconds: dict[str, list[float]] = {method: [] for method in methods}
        for round_number in range(ROUNDS):
            for method, turn in turns.items():
                taken = turn()
                if round_number:
                    seconds[method].append(taken)
    medians = {method: statistics.median(values) for method, values in seconds.items()}
    write_json(store.timing(budget.name), {"seconds": medians, "rounds": seconds, "threads": torch.get_num_threads()})
    for method, value in medians.items():
        say(f"{method}: {value:.3f} s a step, {value / medians[methods[0]]:.2f} times {methods[0]}")


def _stepper(
    recipe: Recipe, all_labelled: bool, budget: Budget, data: Path, device: str, folder: Path
) -> Callable[[], float]:
    """A function that does some steps and says how long one of them took."""
    fabric = make_fabric(device, recipe)
    images = load_data(data, all_labelled, budget)
    trainer = ContestTrainer(recipe, images.training, RunFolder(folder), fabric, lambda line: None)
    steps = zip(trainer.labelled_batches(), trainer.unlabelled_batches(), strict=True)

    def turn() -> float:
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        since = time.perf_counter()
        for _ in range(STEPS):
            trainer.step(*next(steps))
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - since) / STEPS

    return turn
