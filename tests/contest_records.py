"""Records of runs of the self-training benchmark, made up."""

from typing import Any

from contest.methods import METHODS
from contest.records import RunKey
from contest.settings import BUDGETS, resolve

from salakseg.train.recipe import Recipe

CPU = BUDGETS["cpu"]


def record_of(key: RunKey, curve: list[float], recipe: Recipe | None = None) -> dict[str, Any]:
    points = [{"iteration": 10 * (n + 1), "miou_without_background": score} for n, score in enumerate(curve)]
    return {
        "key": {"method": key.method, "seed": key.seed, "budget": key.budget, "iterations": key.iterations},
        "all_labelled": False,
        "recipe": (recipe or resolve(METHODS["v3"], key.method, CPU, 100, 0)).model_dump(mode="json"),
        "environment": {"device": "cpu", "jobs": 2},
        "seconds": 50.0,
        "curve": points,
    }
