"""How long a run will take: by what runs like it took, and before there are any, by the passes of a step."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from salakseg.train.recipe import Recipe

START = 15.0
"""Seconds until a process has imported everything and read the images."""

_UNIT = {"cpu": 0.9, "cuda": 0.043}  # seconds of a supervised step, on two cores and on an H100

_SIDE_BY_SIDE = 8  # runs that a large GPU carries at once, a guess until it is measured


def passes(recipe: Recipe) -> float:
    """The work of a step in supervised steps, roughly: a pass forward and backward is 1, forward alone a third."""
    config = recipe.selftraining
    units = 1.0
    if config.enabled:
        units += float(config.weak > 0) + float(config.feature > 0) + config.strong_views * float(config.strong > 0)
        if not config.labels_inline:
            units += 1 / 3
    return units * (1.5 if recipe.network.heads == "diverse" else 1.0)


def seconds_of(recipe: Recipe, records: Sequence[Mapping[str, Any]], budget: str, device: str, jobs: int) -> float:
    """Seconds that a run will take.

    Args:
        recipe: Its recipe.
        records: Finished runs; those of the same budget and device with as many side by side tell the rate, those
            of the same method best.
        budget: "cpu" or "gpu".
        device: "cpu" or "cuda".
        jobs: Runs side by side.
    """
    alike = [
        record
        for record in records
        if record["key"]["budget"] == budget
        and record["environment"]["device"] == device
        and record["environment"]["jobs"] == jobs
        and record["seconds"] > 0
    ]
    same = [record for record in alike if record["recipe"]["name"] == recipe.name]
    known = [(record, units) for record in alike if (units := _passes_of(record)) is not None]
    if same:
        rate = statistics.median(_rate(record) for record in same)
    elif known:
        rate = passes(recipe) * statistics.median(_rate(record) / units for record, units in known)
    else:
        # Runs on a CPU share its cores; on a GPU each has a core of its own, and launching kernels is most of a step
        rate = (
            passes(recipe)
            * _UNIT.get(device, _UNIT["cpu"])
            * (jobs if device == "cpu" else max(1.0, jobs / _SIDE_BY_SIDE))
        )
    return START + rate * recipe.schedule.iterations


def _passes_of(record: Mapping[str, Any]) -> float | None:
    try:
        return passes(Recipe.model_validate(record["recipe"]))
    except ValidationError:  # a setting was renamed since
        return None


def _rate(record: Mapping[str, Any]) -> float:
    return float(record["seconds"]) / float(record["recipe"]["schedule"]["iterations"])
