"""What `salakseg recipes` says of the recipes: purposes, meanings, origins; and that it can be copied."""

import tomllib
from pathlib import Path

import pytest
from helpers import command

from salakseg.train.effect import COUNTS_WHEN, missing, needs
from salakseg.train.explain import explain, toml_value
from salakseg.train.keys import setting_keys
from salakseg.train.recipe import Recipe, load_recipe, read_layers, recipe_names, recipe_text, resolve

KEYS = setting_keys(Recipe)


def value(recipe: Recipe, key: str) -> object:
    found: object = recipe
    for part in key.split("."):
        found = getattr(found, part)
    return found


def test_a_line_for_each_recipe_with_its_purpose() -> None:
    lines = command("recipes").stdout.splitlines()[1:]
    assert sorted(line.split()[0] for line in lines) == recipe_names()
    for name in recipe_names():
        (line,) = (line for line in lines if line.split()[0] == name)
        assert recipe_text(name).splitlines()[0].removeprefix("# ")[:60] in line
    (line,) = (line for line in lines if line.startswith("phase3"))
    assert "v3 <- phase1 <- phase2" in line


def test_every_setting_has_a_meaning_where_it_is_defined() -> None:
    for section, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for name, setting in ({section: field} if inner is None else inner).items():
            assert setting.description and len(setting.description) > 10, f"{section}.{name} says nothing of itself"


def test_show_prints_meaning_value_and_origin() -> None:
    lines = command("recipes", "show", "phase2").stdout.splitlines()
    assert lines[0].startswith("# To be run when phase 1 stays below 0.68")
    assert "v3 <- phase1 <- phase2" in lines[1]

    def at(start: str) -> tuple[str, str]:
        (place,) = (n for n, line in enumerate(lines) if line.startswith(start))
        return lines[place - 1], lines[place]

    meaning, line = at("thresholds = [0.5, 0.55, 0.6, 0.55, 0.45, 0.5]")
    assert "Least confidence of the classes 1, 2" in meaning and line.endswith("# phase2")
    assert at("iterations = 75000") == ("# Training steps. At least 1.", f"{'iterations = 75000':<40}  # phase1")
    assert at("decoder_factor = 10.0")[1].endswith("# v3")
    assert at("in_memory = false")[1].endswith("# default")
    assert at("# adaptive_floor = 0.5")[1].endswith('# without effect here: needs selftraining.keep = "adaptive"')
    assert 'One of "sgd", "adamw".' in at('kind = "sgd"')[0]


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_shown_is_a_recipe_file(name: str, tmp_path: Path) -> None:
    """Copied and loaded as a user's file it is the same in everything that counts, and nothing in it is refused."""
    resolved = resolve(name)
    path = tmp_path / "copied.toml"
    path.write_text(command("recipes", "show", name).stdout, encoding="utf-8")
    copied = resolve(str(path)).recipe
    counting = [key for key in KEYS if missing(key, resolved.recipe) is None]
    assert {key: value(copied, key) for key in counting} == {key: value(resolved.recipe, key) for key in counting}
    shown = tomllib.loads(path.read_text(encoding="utf-8"))
    assert sum(len(v) if isinstance(v, dict) else 1 for v in shown.values()) == len(counting)


@pytest.mark.parametrize("name", recipe_names())
def test_origins_agree_with_the_files(name: str) -> None:
    """By another way: a value's origin is the last recipe of the chain whose own file has a different say."""
    resolved = resolve(name)
    for key in KEYS:
        expected = "default"
        for layer in read_layers(name):
            table = tomllib.loads(recipe_text(layer.source))
            section, _, setting = key.rpartition(".")
            if setting in (table.get(section, {}) if section else table):
                expected = layer.source
        assert resolved.origin(key) == expected


def test_origins_of_what_was_given() -> None:
    resolved = resolve("phase2", [{"data": {"crop": 128}}], {"data": {"crop": 64, "workers": 0}})
    assert (resolved.recipe.data.crop, resolved.origin("data.crop")) == (128, "given here")
    assert (resolved.recipe.data.workers, resolved.origin("data.workers")) == (0, "salakseg.toml")
    assert "workers = 0                               # salakseg.toml" in explain(resolved)


def test_the_table_of_effects_names_real_settings() -> None:
    sections = set(Recipe.model_fields)
    for key, conditions in COUNTS_WHEN.items():
        assert key in KEYS or key in sections
        assert conditions
        for condition in conditions:
            assert set(condition.by) <= set(KEYS)
            assert condition.by[0].partition(".")[2] in condition.text
    for key in KEYS:  # no switch depends on what it switches
        assert all(key not in condition.by for condition in needs(key)), key


def test_every_condition_is_met_by_some_recipe_or_change() -> None:
    """Otherwise the setting could never be given."""
    changes: list[dict[str, object]] = [
        {},
        {"selftraining": {"strong": 1.0, "mix": "cutmix", "keep": "adaptive", "enabled": True, "start": 0}},
        {"selftraining": {"keep": "share"}},
        {"data": {"sampling": "rarity"}, "health": {"action": "guard"}, "loss": {"focal": 1.0, "heads_frozen": 1}},
    ]
    recipes = [load_recipe(name, [change]) for name in ("v3", "supervised") for change in changes]
    for key in KEYS:
        assert any(missing(key, recipe) is None for recipe in recipes), key


@pytest.mark.parametrize("given", [1e-4, 2.5e-4, 0.1, 3, True, "resnet50", 'a "b"', (0.5, 0.6), (), 1e22])
def test_values_are_toml(given: object) -> None:
    read = tomllib.loads(f"v = {toml_value(given)}")["v"]
    assert read == (list(given) if isinstance(given, tuple) else given)


def test_an_unknown_recipe_is_one_sentence() -> None:
    done = command("recipes", "show", "v4", status=1)
    assert "no recipe 'v4'" in done.stderr and "Traceback" not in done.stderr
