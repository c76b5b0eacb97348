"""Recipes: every setting of a training run, typed, with its meaning where it is defined.

A recipe is a TOML file below ``recipes/``. ``base`` names the recipe that it changes, so that a file shows just what is
different. Flags, the project file and ``--set section.key=value`` change single settings on top.
"""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from salakseg.classes import BACKGROUND
from salakseg.errors import RecipeError
from salakseg.network.config import NetworkConfig

PHASES = {1: "phase1", 2: "phase2", 3: "phase3"}
"""Recipes by the number that ``--phase`` takes."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """What is read from disk, and how much at a time."""

    crop: int = Field(default=256, ge=32)
    """Side of a training crop in pixels; also the patch size that the checkpoint names."""
    batch_size: int = Field(default=8, ge=2)
    """Labelled patches a step, and as many unlabelled ones; batch normalisation needs two."""
    workers: int = Field(default=2, ge=0)
    """Processes that decode pictures, for labelled and for unlabelled ones each; 0 decodes in the training process."""
    split: Literal["block", "folder"] = "block"
    """Hold out runs of consecutive photos, or whole folders."""
    val_share: float = Field(default=0.15, gt=0.0, lt=0.5)
    """Wanted share of the labelled pixels in the validation part."""
    test_share: float = Field(default=0.15, ge=0.0, lt=0.5)
    """The same for the test part; 0 for none."""
    gap: int = Field(default=3, ge=0)
    """Photos to either side of a held-out photo that are used nowhere."""


class AugmentConfig(_Section):
    """How a training view is made of a patch."""

    mirror: Literal["none", "horizontal", "dihedral"] = "horizontal"
    """``dihedral`` draws one of the eight flips and turns."""
    zoom_min: float = Field(default=0.5, gt=0.0)
    """Smallest factor of the random scale."""
    zoom_max: float = Field(default=1.6, gt=0.0)
    """Largest factor of the random scale."""
    zoom_step: float = Field(default=0.1, ge=0.0)
    """Distance of the factors that are drawn; 0 draws any."""
    jitter: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Largest relative change of brightness, contrast and saturation."""
    multi_scale: bool = True
    """Whether every tenth labelled batch is resized to a random side from ``scale_min`` to ``scale_max``."""
    scale_min: int = Field(default=256, ge=32)
    """Smallest side of a resized batch in pixels."""
    scale_max: int = Field(default=384, ge=32)
    """Largest side of a resized batch in pixels."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.zoom_min > self.zoom_max:
            raise ValueError(f"zoom_min {self.zoom_min} is above zoom_max {self.zoom_max}")
        if self.multi_scale and self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}")
        return self


class OptimizerConfig(_Section):
    """The optimizer and its rate."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = Field(default=2.5e-4, gt=0.0)
    """Peak rate of the encoder."""
    decoder_factor: float = Field(default=10.0, gt=0.0)
    """Rate of decoder and heads as a multiple of the encoder's."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of SGD; the first beta of AdamW."""
    weight_decay: float = Field(default=5e-4, ge=0.0)
    """Weight decay of all parameters."""
    clip_norm: float = Field(default=10.0, gt=0.0)
    """Largest norm of the gradient over all parameters."""


class ScheduleConfig(_Section):
    """Linear warm-up from 0, then a cosine back to 0."""

    iterations: int = Field(default=50_000, ge=1)
    """Training steps."""
    warmup: int = Field(default=1_000, ge=0)
    """Steps of the warm-up."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup {self.warmup} is not below iterations {self.iterations}; lower --warmup-iters")
        return self


class LossConfig(_Section):
    """The weighted sum of cross entropy, Dice and focal loss on the mean of the heads' logits."""

    ce: float = Field(default=0.4, ge=0.0)
    """Weight of the cross entropy."""
    dice: float = Field(default=0.4, ge=0.0)
    """Weight of the Dice loss."""
    focal: float = Field(default=0.2, ge=0.0)
    """Weight of the focal loss."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """``balanced``: a class counts in the cross entropy by the inverse of its share of the labelled pixels."""
    focal_alpha: float = Field(default=0.25, gt=0.0)
    """Factor of the focal loss."""
    focal_gamma: float = Field(default=2.0, ge=0.0)
    """Exponent of the focal loss: how little sure pixels count."""


class SelfTrainingConfig(_Section):
    """How the unlabelled patches take part."""

    enabled: bool = True
    """Off: plain supervised training, unlabelled patches are not even read."""
    start: int = Field(default=500, ge=0)
    """First step with pseudo-labels."""
    weight: float = Field(default=1.0, ge=0.0)
    """Weight of the loss on pseudo-labels beside the supervised one."""
    labeller: Literal["student", "teacher"] = "student"
    """Who labels: the network being trained, on the very view it learns from, or its moving average."""
    background_threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    """Least confidence of a background pixel; 0 keeps every one, 1 none."""
    thresholds: float | tuple[float, ...] = (0.60, 0.65, 0.70, 0.65, 0.55, 0.60)
    """Least confidence of the classes 1, 2, ...; one number for all of them; 1 keeps none."""
    class_weighted: bool = True
    """Whether the class weights of the supervised cross entropy also apply to pseudo-labels."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        values = (self.thresholds,) if isinstance(self.thresholds, float) else self.thresholds
        if any(not 0.0 <= value <= 1.0 for value in values):
            raise ValueError(f"thresholds {values} must lie between 0 and 1")
        return self

    def threshold_of_each(self, num_classes: int) -> list[float]:
        """Thresholds in the order of the class ids, background included.

        Raises:
            RecipeError: The recipe names thresholds for another number of classes.
        """
        others = num_classes - 1
        values = [self.thresholds] * others if isinstance(self.thresholds, float) else list(self.thresholds)
        if len(values) != others:
            raise RecipeError(
                f"The recipe has thresholds for {len(values)} classes beside background, the class map has {others}; "
                "give one for all with --set selftraining.thresholds=0.6, or one each as [0.6, 0.65, ...]."
            )
        values.insert(BACKGROUND, self.background_threshold)
        return values


class EvaluationConfig(_Section):
    """When the moving average is validated, and when to stop."""

    every: int = Field(default=500, ge=1)
    """Steps between two evaluations."""
    patience: int = Field(default=15, ge=1)
    """Evaluations without a new best after which the run stops."""


class Recipe(_Section):
    """Every setting of a run."""

    name: str = Field(default="v3", pattern=r"^\w[\w.\- ]*$")
    """Name of the recipe, for the run's folder and the report."""
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    selftraining: SelfTrainingConfig = SelfTrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
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
