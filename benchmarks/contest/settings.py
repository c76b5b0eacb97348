"""What all methods share, and how their settings follow the length of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contest.methods import Method
from salakseg.train.recipe import Recipe, load_recipe


@dataclass(frozen=True, slots=True)
class Budget:
    """Size of the images and length of the runs.

    Attributes:
        name: "cpu" or "gpu".
        reduce: What the sides of the images are divided by.
        crop: Side of the training crops, pixels.
        iterations: Steps of a run of the table.
        long: Steps of a run that shows whether a method declines.
        screening: Steps of a run that only sifts ideas.
        jobs: Processes side by side on one device.
    """

    name: str
    reduce: int
    crop: int
    iterations: int
    long: int
    screening: int
    jobs: int

    @property
    def window(self) -> int:
        """Side of the windows that views are made of and that networks are judged by, pixels."""
        return 2 * self.crop

    def length_of(self, name: str) -> int:
        """Steps of the runs of one of the sets of `methods.py`."""
        if name in ("screening", "tuning", "strategies"):  # V3, most of these, peaks early at any length
            return self.screening
        return self.long if name == "long" else self.iterations


BUDGETS = {
    "cpu": Budget("cpu", reduce=2, crop=128, iterations=3000, long=7500, screening=600, jobs=1),
    "gpu": Budget("gpu", reduce=1, crop=256, iterations=2000, long=10_000, screening=1000, jobs=12),
}

ENCODER = "timm-tf_efficientnet_lite0"
LEARNING_RATE = 2e-4
WARMUP = 0.05
"""Steps of the warm-up as a share of the run."""

HALF_LIFE = 0.05
"""Steps in which the evaluation's moving average forgets half, as a share of the run."""

EVALUATIONS = 15
"""Evaluations of a run, the last one at its end."""

COUNTED = (("selftraining", "start"), ("selftraining", "ramp"), ("loss", "heads_frozen_from"))
"""Settings in iterations, which are scaled from the recipe's own length to the run's."""

_SALAK = 4  # the palm's place among the thresholds of a recipe for the field data, which these images do not have
_FIELD_CLASSES = 6  # beside background


def resolve(
    method: Method,
    name: str,
    budget: Budget,
    iterations: int,
    seed: int,
    encoder_weights: str = "imagenet",
    changes: Sequence[Mapping[str, Any]] = (),
) -> Recipe:
    """The recipe of a run.

    Args:
        method: The contestant.
        name: Its name.
        budget: Size of images and crops.
        iterations: Steps of the run; a method with another length takes its multiple.
        seed: Seed of everything random.
        encoder_weights: ``imagenet`` or a file with ImageNet weights of the encoder.
        changes: Settings on top for every method, nested tables.

    Raises:
        RecipeError: An unknown or impossible setting.
    """
    own = load_recipe(method.recipe, [method.changes])
    steps = round(method.length * iterations)
    tables: list[Mapping[str, Any]] = [
        method.changes,
        _scaled(own, iterations / own.schedule.iterations),
        _thresholds(own),
        _shared(method, budget, iterations, steps),
        {"name": name, "seed": seed, "network": {"encoder": ENCODER, "encoder_weights": encoder_weights}},
    ]
    if method.own_augmentation:
        share = budget.crop / own.data.crop
        sides = {"scale_min": own.augment.scale_min, "scale_max": own.augment.scale_max}
        tables.append({"augment": {key: round(share * side) for key, side in sides.items()}})
    else:
        tables.append({"augment": load_recipe("supervised").augment.model_dump()})
    return load_recipe(method.recipe, [*tables, *changes])


def decay_of(half_life: float) -> float:
    """Decay of a moving average that forgets half in so many steps."""
    return float(0.5 ** (1 / half_life))


def _shared(method: Method, budget: Budget, iterations: int, steps: int) -> dict[str, Any]:
    return {
        "network": {"architecture": "deeplabv3plus", "output_stride": 16},
        "data": {"crop": budget.crop, "batch_size": 8, "workers": 0},
        "optimizer": {
            "kind": "adamw",
            "learning_rate": LEARNING_RATE * method.rate,
            "decoder_factor": 5.0,
            "momentum": 0.9,
            "weight_decay": 1e-2,
            "clip_norm": 10.0,
        },
        "schedule": {"iterations": steps, "warmup": round(WARMUP * method.warmup * iterations)},
        "ema_decay": decay_of(HALF_LIFE * iterations),
        # No run stops early: how a method goes on after its peak is the question
        "evaluation": {"every": math.ceil(steps / EVALUATIONS), "patience": 1_000_000},
    }


def _scaled(own: Recipe, factor: float) -> dict[str, Any]:
    tables: dict[str, dict[str, int]] = {}
    for section, key in COUNTED:
        value: int = getattr(getattr(own, section), key)
        tables.setdefault(section, {})[key] = round(factor * value)
    return tables


def _thresholds(own: Recipe) -> dict[str, Any]:
    """The field's thresholds without that of the palm; other recipes have one for all classes."""
    values = own.selftraining.thresholds
    if isinstance(values, float) or len(values) != _FIELD_CLASSES:
        return {}
    return {"selftraining": {"thresholds": [*values[:_SALAK], *values[_SALAK + 1 :]]}}
