"""What recipes are for, and what each of their values means and comes from."""

import textwrap
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import tomli_w
from pydantic.fields import FieldInfo

from salakseg.train.effect import missing
from salakseg.train.keys import section_of
from salakseg.train.recipe import Recipe, Resolved, read_layers, recipe_names, recipe_text

_WIDTH = 116  # characters of a comment


@dataclass(frozen=True, slots=True)
class About:
    """A recipe in a line.

    Attributes:
        name: What ``--recipe`` takes.
        purpose: The first sentence of its file: what it is for and where it comes from.
        chain: The recipes that it builds on, from the ground up, and itself.
    """

    name: str
    purpose: str
    chain: tuple[str, ...]


def about_recipes() -> list[About]:
    """All recipes that come with the package, those that others build on before them."""
    found = [
        About(name, _first_sentence(_header(recipe_text(name))), tuple(layer.source for layer in read_layers(name)))
        for name in recipe_names()
    ]
    return sorted(found, key=lambda about: about.chain)


def explain(resolved: Resolved, name: str | None = None) -> str:
    """A resolved recipe as TOML with every value, its meaning and its origin.

    What has no effect in this recipe is commented out, with what it would need: the rest is a recipe file.

    Args:
        resolved: The recipe.
        name: What it was called, for the words at the top of its file; None leaves these out.
    """
    recipe = resolved.recipe
    lines = [] if name is None else _wrapped(_header(recipe_text(name)), "# ")
    lines += [f"# Built up as: {' <- '.join(resolved.chain)}. Behind each value stands where it comes from."]
    for key, field in Recipe.model_fields.items():  # single settings first: in TOML a table has no end
        if section_of(field.annotation) is None:
            lines += ["", *_setting(resolved, key, field, getattr(recipe, key))]
    for key, field in Recipe.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            continue
        lines += ["", *_wrapped((section.__doc__ or "").partition("\n\n")[0], "# "), f"[{key}]"]
        for inner, inner_field in section.model_fields.items():
            lines += _setting(resolved, f"{key}.{inner}", inner_field, getattr(getattr(recipe, key), inner))
    return "\n".join(lines) + "\n"


def _setting(resolved: Resolved, key: str, field: FieldInfo, value: object) -> list[str]:
    """The lines of one setting: meaning, range, value and origin."""
    line = f"{key.rpartition('.')[2]} = {toml_value(value)}"
    note = resolved.origin(key)
    if (lacking := missing(key, resolved.recipe)) is not None:
        line, note = f"# {line}", f"without effect here: needs {lacking.text}"
    return [*_wrapped(f"{field.description or ''} {_range(field)}", "# "), f"{line:<40}  # {note}"]


def toml_value(value: object) -> str:
    """A value as TOML on one line."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").strip()


def _range(field: FieldInfo) -> str:
    """The values that a setting takes, as far as its type says."""
    choices = _choices(field.annotation)
    if choices:
        return f"One of {', '.join(map(toml_value, choices))}."
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{word} {toml_value(limit)}"
        for item in field.metadata
        for name, word in words.items()
        if (limit := getattr(item, name, None)) is not None
    ]
    text = ", ".join(limits)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _choices(annotation: Any) -> tuple[object, ...]:  # noqa: ANN401  # a type or a form of typing
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return tuple(choice for inner in get_args(annotation) for choice in _choices(inner))
    return ()


def _header(text: str) -> str:
    """The comment at the top of a recipe file, as one paragraph."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _wrapped(text: str, prefix: str) -> list[str]:
    plain = " ".join(text.replace("``", "`").split())
    return [prefix + line for line in textwrap.wrap(plain, _WIDTH, break_long_words=False, break_on_hyphens=False)]
