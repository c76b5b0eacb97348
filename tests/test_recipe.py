"""Each figure of the recipes is stated here once more, as the field team's notes have them."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from salakseg.errors import RecipeError
from salakseg.train.recipe import PHASES, Recipe, load_recipe, parse_setting, recipe_names, recipe_toml
from salakseg.train.schedule import rate_factor

V3_THRESHOLDS = (0.60, 0.65, 0.70, 0.65, 0.55, 0.60)
LOWER_THRESHOLDS = (0.50, 0.55, 0.60, 0.55, 0.45, 0.50)


@pytest.mark.parametrize(
    ("name", "iterations", "patience", "weight", "scale", "rate", "warmup", "thresholds"),
    [
        ("v3", 50_000, 15, 1.0, (256, 384), 2.5e-4, 1_000, V3_THRESHOLDS),
        ("phase1", 75_000, 40, 1.5, (256, 320), 3e-4, 1_500, V3_THRESHOLDS),
        ("phase2", 75_000, 40, 1.5, (256, 320), 3e-4, 1_500, LOWER_THRESHOLDS),
        ("phase3", 100_000, 60, 2.0, None, 4e-4, 2_000, LOWER_THRESHOLDS),
    ],
)
def test_the_recipes_of_the_field_team(
    name: str,
    iterations: int,
    patience: int,
    weight: float,
    scale: tuple[int, int] | None,
    rate: float,
    warmup: int,
    thresholds: tuple[float, ...],
) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (recipe.schedule.iterations, recipe.schedule.warmup) == (iterations, warmup)
    assert (recipe.evaluation.every, recipe.evaluation.patience) == (500, patience)
    assert (recipe.selftraining.weight, recipe.selftraining.start) == (weight, 500)
    assert recipe.selftraining.thresholds == thresholds
    assert recipe.optimizer.learning_rate == rate
    assert recipe.augment.multi_scale == (scale is not None)
    if scale is not None:
        assert (recipe.augment.scale_min, recipe.augment.scale_max) == scale


@pytest.mark.parametrize("name", ["v3", "phase1", "phase2", "phase3"])
def test_what_all_of_them_share(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.network.model_dump() == {
        "architecture": "deeplabv3plus",
        "encoder": "resnet50",
        "encoder_weights": "imagenet",
        "output_stride": 16,
        "heads": "v3",
        "head_dropout": (0.10, 0.15, 0.20),
    }
    assert (recipe.data.crop, recipe.data.batch_size) == (256, 8)
    assert (recipe.augment.zoom_min, recipe.augment.zoom_max, recipe.augment.zoom_step) == (0.5, 1.6, 0.1)
    assert recipe.augment.mirror == "horizontal"
    assert recipe.augment.jitter == 0.0
    optimizer = recipe.optimizer
    assert (optimizer.kind, optimizer.decoder_factor, optimizer.momentum) == ("sgd", 10.0, 0.9)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (5e-4, 10.0)
    loss = recipe.loss
    assert (loss.ce, loss.dice, loss.focal, loss.focal_alpha, loss.focal_gamma) == (0.4, 0.4, 0.2, 0.25, 2.0)
    assert loss.class_weights == "balanced"
    assert recipe.ema_decay == 0.9995
    selftraining = recipe.selftraining
    assert selftraining.background_threshold == 0.0
    assert selftraining.labeller == "student"
    assert selftraining.class_weighted
    assert selftraining.threshold_of_each(7)[0] == 0.0


def test_phases_by_number() -> None:
    assert {number: load_recipe(name).name for number, name in PHASES.items()} == {
        1: "phase1", 2: "phase2", 3: "phase3", 4: "phase4"
    }  # fmt: skip
    assert {*PHASES.values(), "v3", "quick", "supervised"} <= set(recipe_names())


def test_later_changes_win_and_the_rest_stays() -> None:
    recipe = load_recipe("v3", [{"data": {"batch_size": 4}}, {"data": {"batch_size": 2}, "seed": 5}])
    assert (recipe.data.batch_size, recipe.data.crop, recipe.seed) == (2, 256, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.learning_rate=1e-4", {"optimizer": {"learning_rate": 1e-4}}),
        ("seed = 3", {"seed": 3}),
        ("augment.multi_scale=false", {"augment": {"multi_scale": False}}),
        ("network.encoder=resnet18", {"network": {"encoder": "resnet18"}}),
        ("selftraining.thresholds=[0.5, 0.6]", {"selftraining": {"thresholds": [0.5, 0.6]}}),
    ],
)
def test_single_settings(text: str, expected: dict[str, Any]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.rate=1", r"no setting 'optimizer\.rate'"),
        ("optimizer.learning_rate=fast", r"optimizer\.learning_rate.*'fast'"),
        ("optimizer.learning_rate=0", r"optimizer\.learning_rate.*greater than 0"),
        ("data.batch_size=1", r"data\.batch_size.*2"),
        ("schedule.warmup=50000", "warmup 50000 is not below iterations 50000"),
        ("augment.scale_min=400", "scale_min 400 is above scale_max 384"),
        ("selftraining.thresholds=[2.0]", "between 0 and 1"),
        ("selftraining.thresholds=high", r"selftraining\.thresholds: "),
        ("selftraining.labeller=nobody", r"selftraining\.labeller.*'nobody'"),
    ],
)
def test_an_impossible_setting_names_its_key(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe("v3", [parse_setting(setting)])
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_and_a_setting_without_value() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'v4'.*phase1"):
        load_recipe("v4")
    with pytest.raises(RecipeError, match=r"section\.key=value"):
        parse_setting("seed")


def test_a_recipe_file_builds_on_another(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "phase2"\n[loss]\ndice = 0.0\n')
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert (recipe.name, recipe.loss.dice, recipe.selftraining.weight) == ("mine", 0.0, 1.5)
    (tmp_path / "broken.toml").write_text("[loss\n")
    with pytest.raises(RecipeError, match=r"broken\.toml is no valid TOML"):
        load_recipe(str(tmp_path / "broken.toml"))
    with pytest.raises(RecipeError, match=r"gone\.toml cannot be read"):
        load_recipe(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize("name", ["v3", "phase3", "quick"])
def test_the_resolved_recipe_is_read_back_equal(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.model_validate(tomllib.loads(recipe_toml(recipe))) == recipe


def test_thresholds_must_fit_the_classes() -> None:
    selftraining = load_recipe("v3").selftraining
    assert selftraining.threshold_of_each(7) == [0.0, *V3_THRESHOLDS]
    with pytest.raises(RecipeError, match="6 classes beside background, the class map has 5"):
        selftraining.threshold_of_each(6)
    one = load_recipe("v3", [parse_setting("selftraining.thresholds=0.9")]).selftraining
    assert one.threshold_of_each(3) == [0.0, 0.9, 0.9]


def test_the_rate_warms_up_and_falls_to_nought() -> None:
    config = load_recipe("v3").schedule
    factors = [rate_factor(n, config) for n in (0, 499, 999, 1_000, 4_000, 11_500, 25_500, 50_000)]
    assert factors == pytest.approx([1 / 1001, 500 / 1001, 1000 / 1001, 1.0, 0.9908, 0.8909, 0.5, 0.0], abs=1e-3)
    assert max(rate_factor(n, config) for n in range(0, 50_000, 7)) <= 1.0
