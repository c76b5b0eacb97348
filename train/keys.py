"""Settings by their key, ``section.setting``, in nested tables as TOML has them."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel


def nest(key: str, value: object) -> dict[str, Any]:
    """``section.setting`` and its value as nested tables."""
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert isinstance(nested, dict)
    return nested


def names(table: Mapping[str, Any], key: str) -> bool:
    """Whether a nested table has a value for ``section.setting``."""
    found: Any = table
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def merge(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A nested table with another one on top."""
    merged = dict(table)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def without(table: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A nested table without some settings; sections that are empty then go too."""
    gone = set(keys)
    kept: dict[str, Any] = {}
    for name, value in table.items():
        inner = {key.removeprefix(f"{name}.") for key in gone if key.startswith(f"{name}.")}
        if name in gone:
            continue
        if inner and isinstance(value, Mapping):
            if left := without(value, inner):
                kept[name] = left
        else:
            kept[name] = value
    return kept


def section_of(annotation: object) -> type[BaseModel] | None:
    """The class of a section by the annotation of its field; None for a single setting."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def setting_keys(model: type[BaseModel]) -> list[str]:
    """``section.setting`` of every setting of a recipe's class, in its order."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        keys += [name] if section is None else [f"{name}.{inner}" for inner in section.model_fields]
    return keys
