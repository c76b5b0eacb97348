"""Who takes part: every method as a recipe of the package and what is changed in it, and which runs make up a table.

Settings that count iterations are written for the recipe's own length; `settings.py` scales them to the run's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """One contestant.

    Attributes:
        recipe: Recipe that it is built on.
        changes: Settings on top of it, nested tables.
        all_labelled: Whether it learns from the labels of all training images.
        own_augmentation: Whether it keeps the recipe's own views of the labelled patches; all others share theirs.
        length: Its iterations as a multiple of the run's.
        rate: Its learning rate as a multiple of everybody's.
        warmup: The same of the warm-up.
    """

    recipe: str
    changes: Changes = field(default_factory=dict)
    all_labelled: bool = False
    own_augmentation: bool = False
    length: float = 1.0
    rate: float = 1.0
    warmup: float = 1.0


PLAIN_LOSS: Changes = {"loss": {"ce": 1.0, "dice": 0.0, "focal": 0.0, "class_weights": "none"}}

MAIN: dict[str, Method] = {
    "supervised": Method("supervised"),
    "supervised-all": Method("supervised", all_labelled=True),
    "v3": Method("v3"),
    "phase1": Method("phase1"),
    "phase2": Method("phase2"),
    "phase3": Method("phase3"),
    "diversenet": Method("diversenet"),
    "diversenet-df": Method("diversenet-df"),
    "unimatch": Method("unimatch"),
    "unimatch2": Method("unimatch2"),
    "phase4": Method("phase4"),
    # V3's loss without its self-training, and its self-training without its loss: which of the two does what
    "v3-loss-only": Method("v3", {"selftraining": {"enabled": False}}),
    "v3-plain-loss": Method("v3", PLAIN_LOSS),
}

TUNED = "v3-tuned"
"""v3 with the best of `TUNING` on validation."""

_LATE = 10_000  # a fifth of v3's own length: what labels knows something by then

TUNING: dict[str, Method] = {
    f"v3-tune-{weight}-{threshold}-{when}": Method(
        "v3", {"selftraining": {"weight": weight, **thresholds, **({} if when == "early" else {"start": _LATE})}}
    )
    for weight in (0.25, 1.0)
    for threshold, thresholds in {
        "own": {},
        "0.95": {"thresholds": 0.95, "background_threshold": 0.95},
    }.items()
    for when in ("early", "late")
}
"""Weights, thresholds and beginnings of self-training that `v3-tuned` is chosen from."""

V3_ITSELF = "v3-tune-1.0-own-early"
"""The one of them that changes nothing."""


def _without(changes: Changes) -> Method:
    return Method("phase4", changes)


NO_GUARD = "phase4-no-guard"

ABLATIONS: dict[str, Method] = {
    "phase4-no-warm-up": _without({"selftraining": {"start": 0, "ramp": 0}}),
    "phase4-no-teacher": _without({"selftraining": {"labeller": "student"}}),
    "phase4-one-view": _without({"selftraining": {"strong_views": 1, "strong": 1.0}}),
    "phase4-no-strong-colours": _without({"strong": {"jitter_probability": 0.0, "grey": 0.0, "blur": 0.0}}),
    "phase4-no-cutmix": _without({"selftraining": {"mix": "none"}}),
    "phase4-no-paste": _without({"selftraining": {"paste": 0.0}}),
    "phase4-adaptive": _without({"selftraining": {"keep": "adaptive", "adaptive_momentum": 0.99}}),
    "phase4-fixed-0.95": _without(
        {"selftraining": {"keep": "fixed", "thresholds": 0.95, "background_threshold": 0.95}}
    ),
    "phase4-no-disagreement": _without({"selftraining": {"disagreement": 0.0}}),
    "phase4-by-patch": _without({"selftraining": {"sampling": "patches"}}),
    NO_GUARD: _without({"health": {"action": "warn"}}),
    "phase4-mean-of-heads": _without({"loss": {"heads": "mean"}, "selftraining": {"heads": "mean"}}),
}
"""phase4 with one of its parts switched off."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One of the field team's seven answers to V3's decline.

    Attributes:
        number: As the team counts them.
        text: What it is.
        forecast: Points of mIoU that the team expects; empty where it gave none.
        method: The contestant; None for the second, which changes when a run stops, not how it learns.
    """

    number: int
    text: str
    forecast: str
    method: str | None


OWN = "v3-own-views"
"""What the strategies start from: V3 with its own mirror, scales and multi-scale batches."""


def _strategy(changes: Changes, **factors: float) -> Method:
    return Method("v3", changes, own_augmentation=True, **factors)  # type: ignore[arg-type]


STRATEGY_METHODS: dict[str, Method] = {
    OWN: _strategy({}),
    "v3-strategy1": _strategy({"selftraining": {"thresholds": [0.50, 0.55, 0.60, 0.55, 0.45, 0.50]}}),
    "v3-strategy3": _strategy({"selftraining": {"weight": 1.75}}),
    "v3-strategy4": _strategy({"augment": {"scale_max": 320}}),
    "v3-strategy5": _strategy({}, length=2.0),
    "v3-strategy6": _strategy({}, rate=1.6, warmup=1.75),
    "v3-strategy7": _strategy({"augment": {"mirror": "dihedral", "jitter": 0.3}}),
}

STRATEGIES = (
    Strategy(1, "thresholds lower by 0.10", "+5 to +8", "v3-strategy1"),
    Strategy(2, "patience of 40 evaluations instead of 15", "", None),
    Strategy(3, "self-training weight 1.75", "+3 to +5", "v3-strategy3"),
    Strategy(4, "multi-scale batches up to 1.25 instead of 1.5 crops", "+2 to +3", "v3-strategy4"),
    Strategy(5, "twice as many steps", "", "v3-strategy5"),
    Strategy(6, "learning rate x 1.6, warm-up x 1.75", "+2 to +4", "v3-strategy6"),
    Strategy(7, "colour jitter 0.3, flips and quarter turns", "+1 to +3", "v3-strategy7"),
)

PATIENCE = {"V3's patience": 15 * 500 / 50_000, "patience of 40": 40 * 500 / 50_000}
"""Patience as a share of a run: evaluations times steps between them over V3's length."""

METHODS: dict[str, Method] = MAIN | TUNING | ABLATIONS | STRATEGY_METHODS

THREE = ("supervised", "supervised-all", "v3", "unimatch2", "phase4")
"""Methods with three seeds."""

SETS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "screening": (("supervised", "v3", "unimatch2", "phase4"), (0,)),
    "tuning": (tuple(TUNING), (0,)),
    # Without a guard that never acted a run is the same, step by step: `--runs phase4-no-guard:SEED` where it did
    "ablations": (("phase4", *(method for method in ABLATIONS if method != NO_GUARD)), (0,)),
    "strategies": (tuple(STRATEGY_METHODS), (0,)),
    "long": (("v3", "phase4"), (0,)),
}
"""Methods and seeds of each set beside the table's; `settings.py` has their lengths."""


def runs_of_set(name: str) -> list[tuple[str, int]]:
    """Methods and seeds of a set."""
    if name == "table":
        single = [method for method in (*MAIN, TUNED) if method not in THREE]
        return [(method, seed) for method in THREE for seed in (0, 1, 2)] + [(method, 0) for method in single]
    methods, seeds = SETS[name]
    return [(method, seed) for method in methods for seed in seeds]
