"""Each figure of the recipes is stated here once more, as the field team's notes have them."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salakseg.errors import RecipeError
from salakseg.train.effect import idle_settings
from salakseg.train.keys import nest, setting_keys
from salakseg.train.recipe import PHASES, Recipe, load_recipe, parse_setting, recipe_names, recipe_toml, resolve
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


# ---- strictness


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.dcie=1", r"no setting 'loss\.dcie' \(did you mean 'loss\.dice'\?\)"),
        ("learning_rate=1", r"no setting 'learning_rate' \(did you mean 'optimizer\.learning_rate'\?\)"),
        ("augment=3", "augment: a table of settings is wanted"),
        ("seed=true", r"seed: a whole number is wanted \(got True\)"),
        ("seed=4.0", "seed: a whole number is wanted"),
        ('data.batch_size="8"', "data.batch_size: a whole number is wanted"),
        ("augment.multi_scale=yes", "augment.multi_scale: true or false is wanted"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate: a finite number is wanted"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate: a finite number is wanted"),
        ("network.head_dropout=0.1", "network.head_dropout: a list is wanted"),
        ("seed=2020-01-01", "seed: a whole number is wanted"),
        ("loss.heads_frozen=3", "loss.heads_frozen 3 leaves none of the 3 heads"),
    ],
)
def test_wrong_types_are_not_guessed_at(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe("v3", [parse_setting(setting)])
    assert "\n" not in str(error.value)


def test_a_base_must_be_a_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("base = 3\n")
    with pytest.raises(RecipeError, match=r"mine\.toml: base: .*\(got 3\)"):
        load_recipe(str(tmp_path / "mine.toml"))


# ---- settings without effect


@pytest.mark.parametrize(
    ("recipe", "given", "named"),
    [
        ("v3", ["augment.multi_scale=false", "augment.scale_max=300"], "augment.scale_max (needs augment.multi_scale"),
        ("phase3", ["augment.scale_min=200"], "augment.scale_min"),
        ("quick", ["selftraining.weight=2.0"], "selftraining.weight (needs selftraining.enabled = true)"),
        ("v3", ["schedule.iterations=500", "schedule.warmup=9", "selftraining.weight=2.0"], "selftraining.start below"),
        ("v3", ["strong.hue=0.1"], "strong.hue (needs augment.strong above 0, or"),
        ("v3", ["selftraining.adaptive_floor=0.4"], "selftraining.adaptive_floor"),
        ("phase4", ["selftraining.thresholds=0.8"], 'selftraining.thresholds (needs selftraining.keep = "fixed")'),
        ("v3", ["loss.focal=0.0", "loss.focal_gamma=1.0"], "loss.focal_gamma (needs loss.focal above 0)"),
        ("supervised", ['loss.class_weights="balanced"', "loss.ce=0.0", "loss.dice=1.0"], "loss.class_weights"),
        ("v3", ['network.architecture="unet"', "network.output_stride=8"], "network.output_stride"),
        ("v3", ["health.rollbacks=5"], 'health.rollbacks (needs health.action = "guard")'),
        ("v3", ["network.head_dropout=[0.1]", 'loss.heads="each"'], "loss.heads (needs several heads"),
    ],
)
def test_a_setting_without_effect_is_refused_by_name(recipe: str, given: list[str], named: str) -> None:
    changes = [parse_setting(setting) for setting in given]
    with pytest.raises(RecipeError, match="without effect") as error:
        resolve(recipe, changes)
    assert named in str(error.value)
    load_recipe(recipe, changes)  # a program may


def test_what_a_built_in_recipe_says_in_vain_is_nobody_s_fault() -> None:
    for name in recipe_names():
        resolve(name)
    assert resolve("phase3").recipe.augment.scale_max == 320
    resolve("v3", [parse_setting("selftraining.enabled=false")])
    resolve("phase3", [parse_setting("augment.multi_scale=true"), parse_setting("augment.scale_max=300")])


def test_an_own_file_is_judged_by_what_it_says_itself(tmp_path: Path) -> None:
    ground, top = tmp_path / "ground.toml", tmp_path / "top.toml"
    ground.write_text('base = "v3"\n[augment]\nscale_max = 300\n')
    top.write_text('base = "ground.toml"\n[augment]\nmulti_scale = false\n')
    assert resolve(str(top)).chain == ["v3", "ground.toml", "top.toml"]
    top.write_text('base = "v3"\n[augment]\nmulti_scale = false\nscale_max = 300\n')
    with pytest.raises(RecipeError, match="scale_max"):
        resolve(str(top))
    whole = tmp_path / "recipe.toml"  # as it lies in a run's folder
    whole.write_text(recipe_toml(load_recipe("phase3")))
    assert resolve(str(whole)).recipe == load_recipe("phase3")
    lines = [line for line in whole.read_text().splitlines() if not line.startswith("seed = ")]
    whole.write_text("\n".join(lines))  # written before there was that setting
    assert resolve(str(whole)).recipe == load_recipe("phase3")


def test_the_project_file_speaks_of_every_recipe() -> None:
    """What counts in some recipe may be idle in another, unless the file itself makes it so."""
    project = {"selftraining": {"weight": 2.0}}
    resolved = resolve("quick", project=project)
    assert [one.key for one in idle_settings(resolved)] == ["selftraining.weight"]
    assert idle_settings(resolve("v3", project=project)) == []
    with pytest.raises(RecipeError, match=r"selftraining\.weight"):
        resolve("v3", project={"selftraining": {"weight": 2.0, "enabled": False}})


# ---- any recipe at all

KEYS = setting_keys(Recipe)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(recipe_names()), st.sampled_from([*KEYS, *Recipe.model_fields]), VALUES)
def test_any_value_either_loads_or_is_an_error_with_its_key(name: str, key: str, value: Any) -> None:
    try:
        recipe = load_recipe(name, [nest(key, value)])
    except RecipeError as error:
        assert any(part in str(error) for part in (key, *key.split("."))), str(error)
        assert "\n" not in str(error)
    else:
        assert Recipe.model_validate(tomllib.loads(recipe_toml(recipe))) == recipe


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=30), SCALARS)
def test_an_unknown_key_is_named(key: str, value: Any) -> None:
    if key in KEYS or key in Recipe.model_fields:
        return
    with pytest.raises(RecipeError, match=r"no setting|table of settings|wanted") as error:
        load_recipe("v3", [nest(key, value)])
    first = key.partition(".")[0]
    assert first in str(error.value) or repr(first)[1:-1] in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_on_the_command_line_is_a_setting_or_an_error(text: str) -> None:
    try:
        load_recipe("v3", [parse_setting(text)])
    except RecipeError as error:
        assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_right_recipes_load_and_are_read_back_equal(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(recipe_names()))
    share = st.floats(0, 1)
    low, high = sorted(data.draw(st.tuples(st.integers(32, 512), st.integers(32, 512))))
    iterations = data.draw(st.integers(2, 200_000))
    change = {
        "seed": data.draw(st.integers(0, 2**32 - 1)),
        "augment": {"scale_min": low, "scale_max": high, "multi_scale": data.draw(st.booleans())},
        "schedule": {"iterations": iterations, "warmup": data.draw(st.integers(0, iterations - 1))},
        "optimizer": {"learning_rate": data.draw(st.floats(1e-6, 1))},
        "selftraining": {
            "thresholds": data.draw(st.one_of(share, st.lists(share, min_size=1, max_size=6))),
            "background_threshold": data.draw(share),
        },
    }
    recipe = load_recipe(name, [change])
    assert Recipe.model_validate(tomllib.loads(recipe_toml(recipe))) == recipe
    assert (recipe.augment.scale_min, recipe.schedule.iterations) == (low, iterations)
