"""Recipes: every setting of a training run, typed, with its meaning where it is defined.

A recipe is a TOML file below ``recipes/``. ``base`` names the recipe that it changes, so that a file shows just what is
different. Flags, the project file and ``--set section.key=value`` change single settings on top.
"""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, ValidationError

from salakseg.errors import RecipeError
from salakseg.network.config import NetworkConfig
from salakseg.train.settings import (
    DataConfig,
    EvaluationConfig,
    LossConfig,
    OptimizerConfig,
    PerformanceConfig,
    ScheduleConfig,
    Section,
)
from salakseg.train.settings_health import HealthConfig
from salakseg.train.settings_selftraining import SelfTrainingConfig
from salakseg.train.settings_views import AugmentConfig, StrongConfig

PHASES = {1: "phase1", 2: "phase2", 3: "phase3", 4: "phase4"}
"""Recipes by the number that ``--phase`` takes."""


class Recipe(Section):
    """Every setting of a run."""

    name: str = Field(default="v3", pattern=r"^\w[\w.\- ]*$")
    """Name of the recipe, for the run's folder and the report."""
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    strong: StrongConfig = StrongConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    selftraining: SelfTrainingConfig = SelfTrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    health: HealthConfig = HealthConfig()
    performance: PerformanceConfig = PerformanceConfig()
    ema_decay: float = Field(default=0.9995, ge=0.0, lt=1.0)
    """Decay of the moving average, once warmed up."""
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"
    """``auto``: bfloat16 or float16 where the device has it, float32 on a CPU."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, split and everything random."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = files("salakseg.train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str, changes: Sequence[Mapping[str, Any]] = ()) -> Recipe:
    """Loads a recipe and changes single settings.

    Args:
        name: Name of a built-in recipe, or a TOML file.
        changes: Nested tables with settings, the later ones win.

    Raises:
        RecipeError: An unknown recipe or setting, or an impossible value; the message names the key.
    """
    table = _load_table(name)
    for change in changes:
        table = _merge(table, change)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"Recipe {name}: {_spell(error)}") from error


def parse_setting(text: str) -> dict[str, Any]:
    """Turns ``section.key=value`` into a nested table; the value is TOML, or else a plain string.

    Raises:
        RecipeError: There is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r} is no setting; write --set section.key=value.")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, every setting written out."""
    return tomli_w.dumps(recipe.model_dump(mode="json"))


def _load_table(name: str, built_on_it: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a recipe and of all that it builds on; a relative file is looked for beside the one naming it."""
    if name in built_on_it:
        raise RecipeError(f"Recipe {name} builds on itself: {' -> '.join((*built_on_it, name))}.")
    path = Path(name)
    built_in = files("salakseg.train") / "recipes" / f"{name}.toml"
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Recipe {name} cannot be read as text in UTF-8 ({error}).") from error
    elif built_in.is_file():
        text = built_in.read_text(encoding="utf-8")
    else:
        raise RecipeError(f"There is no recipe {name!r}; use a .toml file or one of {', '.join(recipe_names())}.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Recipe {name} is no valid TOML: {error}.") from error
    base = table.pop("base", None)
    table.setdefault("name", path.stem)
    if base is None:
        return table
    base_name = str(path.parent / str(base)) if str(base).endswith(".toml") else str(base)
    return _merge(_load_table(base_name, (*built_on_it, name)), table)


def _merge(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _spell(error: ValidationError) -> str:
    first = error.errors()[0]
    # pydantic names the member of a union that it tried last; the key alone is what the user wrote
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("float", "tuple")))
    if first["type"] == "extra_forbidden":
        return f"there is no setting {key!r}; `salakseg recipes v3` shows all."
    message = first["msg"].removeprefix("Value error, ")
    return (
        f"{key}: {message} (got {first['input']!r})."
        if key and not isinstance(first["input"], dict)
        else (f"{key}: {message}.")
    )
