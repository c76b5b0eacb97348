"""Folders as training leaves them, without any training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salakseg.train.recipe import load_recipe, recipe_toml

EVERY = 100


def write_run(
    path: Path,
    scores: Sequence[float],
    iterations: int | None = None,
    recipe: str = "v3",
    patience: int = 40,
    ending: dict[str, Any] | None = None,
) -> Path:
    """A run that was evaluated every hundred steps.

    Args:
        path: Its folder.
        scores: mIoU without background of the evaluations; with background it is a tenth higher.
        iterations: Steps of the recipe; as many as were done by default.
        recipe: Name of the recipe.
        patience: Of early stopping.
        ending: The last record's event, if there is one.
    """
    path.mkdir(parents=True)
    done = EVERY * len(scores)
    total = done if iterations is None else iterations
    changes = {
        "schedule": {"iterations": max(total, 1), "warmup": 0},
        "evaluation": {"every": EVERY, "patience": patience},
    }
    (path / "recipe.toml").write_text(recipe_toml(load_recipe(recipe, [changes])))
    records: list[dict[str, Any]] = []
    for number, score in enumerate(scores, start=1):
        where = {"iteration": EVERY * number}
        records.append({"kind": "train", **where, "loss": 1.0, "steps_per_second": 10.0})
        records.append({"kind": "val", **where, "miou_without_background": score, "miou_with_background": score + 0.1})
        records.append({"kind": "watch", **where})
    if ending is not None:
        records.append({"kind": "event", "iteration": done, **ending})
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
