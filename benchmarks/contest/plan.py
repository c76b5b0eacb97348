"""From the names on the command line to runs with a resolved recipe each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from contest.methods import METHODS, TUNED, TUNING, Method
from contest.records import RunKey, Store, digest_of
from contest.settings import Budget, resolve
from salakseg.errors import RecipeError
from salakseg.train.recipe import Recipe, parse_setting


@dataclass(frozen=True, slots=True)
class Planned:
    """A run to be done.

    Attributes:
        key: Which one.
        recipe: Its resolved recipe.
        all_labelled: Whether all training images are labelled.
    """

    key: RunKey
    recipe: Recipe
    all_labelled: bool

    @property
    def digest(self) -> str:
        """What its outcome depends on."""
        return digest_of(self.recipe, self.all_labelled)


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes runs of names.

    Attributes:
        budget: Size of the images.
        iterations: Length of the runs.
        encoder_weights: ``imagenet`` or a file.
        changes: Settings on top for every run.
        tries: Contestants that were put together on the command line.
    """

    budget: Budget
    iterations: int
    encoder_weights: str = "imagenet"
    changes: Sequence[Mapping[str, Any]] = ()
    tries: Mapping[str, Method] = field(default_factory=dict)

    def key(self, method: str, seed: int) -> RunKey:
        """The run of a method and a seed.

        Raises:
            RecipeError: There is no such method.
        """
        if method != TUNED and method not in METHODS and method not in self.tries:
            known = ", ".join([*METHODS, TUNED])
            raise RecipeError(f"There is no method {method!r}; take one of {known}, or make one with --try.")
        return RunKey(method, seed, self.budget.name, self.iterations)

    def plan(self, key: RunKey, store: Store) -> Planned | None:
        """The run with its recipe; None where that hangs on runs that are not finished yet."""
        method = self.tries.get(key.method) or METHODS.get(key.method)
        if method is None:
            chosen = best_tuning(store.records(), self.budget.name)
            if chosen is None:
                return None
            method = METHODS[chosen]
        recipe = resolve(method, key.method, self.budget, key.iterations, key.seed, self.encoder_weights, self.changes)
        return Planned(key, recipe, method.all_labelled)


def best_tuning(records: Sequence[Mapping[str, Any]], budget: str) -> str | None:
    """The tuned variant of v3 with the best validation at its best; None until all are finished at one length."""
    by_length: dict[int, dict[str, float]] = {}
    for record in records:
        key = record["key"]
        if key["method"] in TUNING and key["budget"] == budget and key["seed"] == 0:
            score = max(point["miou_without_background"] for point in record["curve"])
            by_length.setdefault(key["iterations"], {})[key["method"]] = score
    complete = [length for length, scores in by_length.items() if scores.keys() == TUNING.keys()]
    if not complete:
        return None
    scores = by_length[max(complete)]
    return max(scores, key=lambda name: scores[name])


def parse_runs(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Runs such as ``phase4:0,1,2`` or ``v3``, which is seed 0.

    Raises:
        RecipeError: A seed is no number.
    """
    runs = []
    for text in texts:
        method, _, seeds = text.partition(":")
        try:
            runs += [(method, int(seed)) for seed in (seeds or "0").split(",")]
        except ValueError as error:
            raise RecipeError(f"--runs {text!r}: write METHOD:SEED,SEED, such as phase4:0,1,2.") from error
    return runs


def parse_tries(texts: Sequence[Sequence[str]]) -> dict[str, Method]:
    """Contestants from ``NAME=METHOD section.key=value ...``.

    Raises:
        RecipeError: No such method, or no setting.
    """
    tries: dict[str, Method] = {}
    for first, *settings in texts:
        name, _, base = first.partition("=")
        if base not in METHODS:
            raise RecipeError(f"--try {first!r}: write NAME=METHOD section.key=value, with a METHOD that there is.")
        if name in METHODS or name == TUNED:
            raise RecipeError(f"--try {first!r}: {name} is a method already; take another name.")
        method = METHODS[base]
        changes: dict[str, Any] = dict(method.changes)
        for setting in settings:
            changes = _merged(changes, parse_setting(setting))
        tries[name] = replace(method, changes=changes)
    return tries


def _merged(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
