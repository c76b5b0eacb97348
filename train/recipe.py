"""Recipes: every setting of a training run, typed, with its meaning where it is defined.

A recipe is a TOML file below ``recipes/``. ``base`` names the recipe that it changes, so that a file shows just what is
different. The project file, flags and ``--set section.key=value`` change single settings on top. `resolve` keeps these
layers, so that every value can say where it comes from.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from salakseg.errors import RecipeError
from salakseg.network.config import NetworkConfig
from salakseg.train.effect import refuse_idle
from salakseg.train.keys import merge, names, nest, setting_keys
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

DEFAULT = "default"
"""Origin of a value that no recipe names."""


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
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of weights, split and everything random."""

    @model_validator(mode="after")
    def _some_head_learns(self) -> Self:
        heads = len(self.network.head_dropout)
        if self.loss.heads_frozen >= heads:
            raise ValueError(
                f"loss.heads_frozen {self.loss.heads_frozen} leaves none of the {heads} heads of network.head_dropout "
                "to learn"
            )
        return self

    def with_patience(self, patience: int) -> Self:
        """The same with another patience, the one setting that may change while a run goes on."""
        return self.model_copy(update={"evaluation": self.evaluation.model_copy(update={"patience": patience})})


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from one place.

    Attributes:
        source: Name of a recipe, or what the user would call the place.
        table: The settings, nested.
        kind: ``base``: a recipe that comes with the package, or what a file builds on; ``file``: the user's own recipe
            file; ``project``: the project file, which holds for every run of its folder; ``given``: for this run alone.
    """

    source: str
    table: Mapping[str, Any]
    kind: Literal["base", "file", "project", "given"] = "base"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe with the layers that it is made of, later ones above earlier ones."""

    recipe: Recipe
    layers: tuple[Layer, ...]

    def origin(self, key: str) -> str:
        """Where the value of ``section.setting`` comes from: the source of the last layer that names it."""
        return next((layer.source for layer in reversed(self.layers) if names(layer.table, key)), DEFAULT)

    @property
    def chain(self) -> list[str]:
        """The recipes that build on each other, from the ground up."""
        return [layer.source for layer in self.layers if layer.kind in ("base", "file")]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = files("salakseg.train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str, changes: Sequence[Mapping[str, Any]] = ()) -> Recipe:
    """Loads a recipe and changes single settings, for programs: they may set what has no effect in some recipe.

    Args:
        name: Name of a built-in recipe, or a TOML file.
        changes: Nested tables with settings, the later ones win.

    Raises:
        RecipeError: An unknown recipe or setting, a wrong type or an impossible value; the message names the key.
    """
    return resolve_unjudged(name, changes).recipe


def resolve(name: str, changes: Sequence[Mapping[str, Any]] = (), project: Mapping[str, Any] | None = None) -> Resolved:
    """As `load_recipe`, for what a user wrote: with the origin of every value, and strict about what does nothing.

    Args:
        name: Name of a built-in recipe, or a TOML file.
        changes: What was asked for this run alone, nested tables, the later ones win.
        project: Settings of the project file, below the changes.

    Raises:
        RecipeError: As for `load_recipe`, or a setting without effect, see `effect.refuse_idle`.
    """
    resolved = resolve_unjudged(name, changes, project)
    refuse_idle(resolved)
    return resolved


def resolve_unjudged(
    name: str, changes: Sequence[Mapping[str, Any]] = (), project: Mapping[str, Any] | None = None
) -> Resolved:
    """As `resolve`, without refusing what has no effect."""
    layers = read_layers(name)
    if project:
        layers.append(Layer("salakseg.toml", project, "project"))
    layers += [Layer("given here", change, "given") for change in changes]
    table: dict[str, Any] = {}
    for layer in layers:
        table = merge(table, layer.table)
    try:
        # Strictly: no "3" for 3, no "yes" for true. TOML has lists where the settings have tuples.
        recipe = Recipe.model_validate(_with_tuples(table), strict=True)
    except ValidationError as error:
        raise RecipeError(f"Recipe {name}: {spell(error)}") from error
    return Resolved(recipe, tuple(layers))


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
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = value.strip()
    return nest(key.strip(), parsed)


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, every setting written out."""
    return tomli_w.dumps(recipe.model_dump(mode="json"))


def recipe_text(name: str) -> str:
    """The TOML text of a built-in recipe or a file.

    Raises:
        RecipeError: There is no such recipe, or the file cannot be read.
    """
    if Path(name).suffix == ".toml":
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Recipe {name} cannot be read as text in UTF-8 ({error}).") from error
    if name in recipe_names():
        return (files("salakseg.train") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    raise RecipeError(f"There is no recipe {name!r}; use a .toml file or one of {', '.join(recipe_names())}.")


def read_layers(name: str, built_on_it: tuple[str, ...] = ()) -> list[Layer]:
    """A recipe and all that it builds on, from the ground up; a relative file is looked for beside the one naming it.

    Raises:
        RecipeError: One cannot be read.
    """
    if name in built_on_it:
        raise RecipeError(f"Recipe {name} builds on itself: {' -> '.join((*built_on_it, name))}.")
    path = Path(name)
    try:
        table = tomllib.loads(recipe_text(name))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"Recipe {name} is no valid TOML: {error}.") from error
    base = table.pop("base", None)
    own_file = path.suffix == ".toml"
    table.setdefault("name", path.stem)
    layer = Layer(path.name if own_file else name, table, "file" if own_file and not built_on_it else "base")
    if base is None:
        return [layer]
    if not isinstance(base, str):
        raise RecipeError(f"Recipe {name}: base: the name of a recipe or of a .toml file is wanted (got {base!r}).")
    base_name = str(path.parent / base) if base.endswith(".toml") else base
    return [*read_layers(base_name, (*built_on_it, name)), layer]


def _with_tuples(value: Any) -> Any:  # noqa: ANN401  # whatever TOML holds
    if isinstance(value, Mapping):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


_EXPECTED = {
    "model_type": "a table of settings is wanted",
    "int_type": "a whole number is wanted",
    "float_type": "a number is wanted",
    "finite_number": "a finite number is wanted",
    "bool_type": "true or false is wanted",
    "string_type": "a text is wanted",
    "tuple_type": "a list is wanted",
}


def spell(error: ValidationError) -> str:
    """The first complaint of pydantic in our words, with the key."""
    first = error.errors()[0]
    # pydantic names the member of a union that it tried last; the key alone is what the user wrote
    place = [str(part) for part in first["loc"] if not str(part).startswith(("float", "tuple"))]
    key, given = ".".join(place), first["input"]
    if first["type"] == "extra_forbidden":
        return f"there is no setting {key!r}{_similar(key)}; `salakseg recipes show v3` shows all."
    message = _EXPECTED.get(first["type"], first["msg"].removeprefix("Value error, "))
    if not key:
        return f"{message}."
    if isinstance(given, Mapping) and first["type"] == "value_error":
        return f"{key}: {message}."
    given = list(given) if isinstance(given, tuple) else given
    return f"{key}: {message} (got {_short(given)})."


def _similar(key: str) -> str:
    found = get_close_matches(key, setting_keys(Recipe), n=1, cutoff=0.75)
    last = key.rpartition(".")[2]
    found = found or [other for other in setting_keys(Recipe) if other.rpartition(".")[2] == last]
    return f" (did you mean {' or '.join(repr(other) for other in found)}?)" if found else ""


def _short(value: object, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
