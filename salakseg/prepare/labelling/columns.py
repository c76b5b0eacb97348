"""Which column of a polygon file says the class."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.errors import DataError
from salakseg.prepare.labelling.label_lookup import ClassLookup, is_blank, refuse_unknown

NO_CLASS = -1

_KEYS = ("fid", "id", "gid", "objectid", "ogc_fid", "uid", "pk")
"""Columns that number features, so that whole numbers in them need not be classes."""


@dataclass(frozen=True, slots=True)
class ClassColumn:
    """The column with the classes.

    Attributes:
        name: As the file writes it.
        class_ids_N: int16 [N], `NO_CLASS` where the field is blank; `label_lookup.IGNORED` where it says ignore.
    """

    name: str
    class_ids_N: NDArray[np.int16]


def find_class_column(
    path: Path, columns: Mapping[str, NDArray[Any]], lookup: ClassLookup, wanted: str | None
) -> ClassColumn:
    """Finds the column that holds class names or ids, by its content.

    Names count before ids: a column of running numbers may look like ids. Columns that say the same of every feature
    are one.

    Args:
        path: The file, for messages.
        columns: Values of each column, [N].
        lookup: The classes.
        wanted: The column's name if the user gave it.

    Raises:
        DataError: There is none, or several say different things, or it holds what is no class.
    """
    if wanted is not None:
        name = _named(path, columns, wanted)
        return _as_classes(path, name, columns[name], lookup)
    filled = {name: values for name, values in columns.items() if not all(is_blank(value) for value in values)}
    by_name = [n for n, v in filled.items() if _fits(v, lookup.by_name)]
    by_either = [n for n, v in filled.items() if n not in by_name and _fits(v, lookup.find)]
    mixed = [n for n in by_either if any(lookup.by_name(value) is not None for value in filled[n])]
    candidates = by_name or mixed or by_either
    if not candidates:
        raise _none_fits(path, filled, lookup)
    found = [_as_classes(path, name, columns[name], lookup) for name in candidates]
    differing = [column.name for column in found if not np.array_equal(column.class_ids_N, found[0].class_ids_N)]
    if differing:
        raise DataError(
            f"{path} has several columns that could hold the classes: {_listed(candidates)}; say which with "
            f"--class-column, for example --class-column {candidates[0]!r}."
        )
    if not (by_name or mixed) and all(_numbers_features(column) for column in found):
        raise DataError(
            f"{path}: column {candidates[0]!r} holds numbers that could be class ids or just count the features; if "
            f"they are classes, say so with --class-column {candidates[0]!r}, else add a column with class names (its "
            f"columns are {_listed(columns)})."
        )
    return found[0]


def _named(path: Path, columns: Iterable[str], wanted: str) -> str:
    names = list(columns)
    if wanted in names:
        return wanted
    alike = [name for name in names if name.casefold() == wanted.casefold()]
    if len(alike) == 1:
        return alike[0]
    raise DataError(f"{path} has no column {wanted!r}; its columns are {_listed(names)}: name one with --class-column.")


def _fits(values: NDArray[Any], find: Any) -> bool:  # noqa: ANN401
    return all(find(value) is not None for value in values if not is_blank(value))


def _as_classes(path: Path, name: str, values: NDArray[Any], lookup: ClassLookup) -> ClassColumn:
    class_ids_N = np.full(len(values), NO_CLASS, np.int16)
    unknown: Counter[str] = Counter()
    for position, value in enumerate(values):
        if is_blank(value):
            continue
        found = lookup.find(value)
        if found is None:
            unknown[str(value)] += 1
        else:
            class_ids_N[position] = found
    refuse_unknown(path, f"column {name!r}", unknown, lookup)
    return ClassColumn(name, class_ids_N)


def _none_fits(path: Path, filled: Mapping[str, NDArray[Any]], lookup: ClassLookup) -> DataError:
    """The column meant, if one alone holds some class names, is told with its strangers."""
    nearly = [name for name, values in filled.items() if any(lookup.by_name(value) is not None for value in values)]
    if len(nearly) == 1:
        try:
            _as_classes(path, nearly[0], filled[nearly[0]], lookup)
        except DataError as error:
            return error
    if not filled:
        return DataError(
            f"{path} has no column with values, so its shapes have no class; add a column with class names "
            f"({lookup.known()}), and see that a Shapefile's .dbf lies beside it."
        )
    return DataError(
        f"{path} has no column whose values are class names or ids; its columns are {_listed(filled)}, the classes are "
        f"{lookup.known()}: name the column with --class-column or the right --class-mapping."
    )


def _numbers_features(column: ClassColumn) -> bool:
    values = column.class_ids_N[column.class_ids_N != NO_CLASS]
    return column.name.casefold() in _KEYS and len(np.unique(values)) == len(values)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
