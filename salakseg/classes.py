"""The class map: ids, names and colours of the land-cover classes.

A class map comes from a CSV file in one of the layouts that field teams use:

- ``class_name,class_color``: the row order is the class id;
- ``class_id,class_name[,color]``, also spelled ``Class Index,Class Name``;
- ``name,r,g,b``, with or without an id column.

A colour is written ``R G B``, ``R,G,B`` or ``#rrggbb``.
"""

import colorsys
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from salakseg.errors import ClassMapError

IGNORE_INDEX = 255
"""The label of a pixel that nobody has labelled. It takes part in no loss and in no figure."""

MAX_CLASSES = 254
"""Labels and maps are uint8 and 255 means ignore; 254 stays free so that a shifted label still fits."""

BACKGROUND = 0
"""The id of the class that means "none of the others"; every mean is given with and without it."""

Color = tuple[int, int, int]

_ID_COLUMNS = ("class_id", "class index", "class_index", "id", "index", "value")
_NAME_COLUMNS = ("class_name", "class name", "name", "class", "label")
_COLOR_COLUMNS = ("class_color", "class color", "color", "colour", "class_colour", "rgb", "hex")


@dataclass(frozen=True, slots=True)
class LandClass:
    """One land-cover class.

    Attributes:
        id: Position in the class map, 0 to 253; the value of the class in labels and maps.
        name: Name as the field team writes it.
        color: Red, green and blue, each 0 to 255.
    """

    id: int
    name: str
    color: Color


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes in the order of their ids, which run from 0 without a gap.

    Raises:
        ClassMapError: Ids with gaps, a name or colour that stands twice, more than 254 classes or fewer than two.
    """

    classes: tuple[LandClass, ...]
    source: str = "the class map"

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ClassMapError(f"{self.source} has {len(self.classes)} classes; a land-cover map needs at least two.")
        if len(self.classes) > MAX_CLASSES:
            raise ClassMapError(
                f"{self.source} has {len(self.classes)} classes; at most {MAX_CLASSES} fit a uint8 map, merge some."
            )
        for position, land_class in enumerate(self.classes):
            if land_class.id != position:
                raise ClassMapError(
                    f"{self.source}: class ids must run 0, 1, 2, ... without gap, "
                    f"but {land_class.name!r} has id {land_class.id} where {position} is due."
                )
            if any(not 0 <= part <= 255 for part in land_class.color):
                raise ClassMapError(
                    f"{self.source}: colour {land_class.color} of {land_class.name!r} is outside 0 to 255."
                )
        _refuse_duplicates(self.source, "name", [c.name.strip().casefold() for c in self.classes])
        _refuse_duplicates(self.source, "colour", [c.color for c in self.classes])

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(c.name for c in self.classes)

    @property
    def colors(self) -> NDArray[np.uint8]:
        """Colours as an array [K, 3], uint8, red green blue."""
        return np.array([c.color for c in self.classes], dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.classes)

    def same_as(self, other: "ClassMap") -> bool:
        """Whether both maps name the same classes in the same order; colours may differ."""
        return self.names == other.names

    def to_records(self) -> list[dict[str, Any]]:
        """The classes as plain values, for checkpoints, model metadata and JSON files."""
        return [{"id": c.id, "name": c.name, "color": list(c.color)} for c in self.classes]

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]], source: str = "the class map") -> Self:
        """The reverse of `to_records`.

        Raises:
            ClassMapError: A record without id, name or colour.
        """
        try:
            classes = tuple(
                LandClass(int(r["id"]), str(r["name"]), _as_color([int(part) for part in r["color"]])) for r in records
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ClassMapError(f"{source} has a class without id, name or colour ({error}).") from error
        return cls(classes, source)

    @classmethod
    def from_csv(cls, path: Path) -> Self:
        """Reads a class mapping.

        Args:
            path: CSV file with a header line, in UTF-8 (a byte order mark is accepted).

        Raises:
            ClassMapError: The file is missing, empty, in none of the known layouts, or holds a bad or doubled entry.
        """
        header, rows = _read_rows(path)
        id_column = _find_column(header, _ID_COLUMNS)
        name_column = _find_column(header, _NAME_COLUMNS)
        if name_column is None:
            raise ClassMapError(
                f"{path} has no column with class names; its columns are {', '.join(header)}, "
                "expected class_name (and class_color, class_id)."
            )
        classes: list[LandClass] = []
        for line, row in enumerate(rows, start=2):
            where = f"{path} line {line}"
            name = row[name_column].strip()
            if not name:
                raise ClassMapError(f"{where}: the class name is empty.")
            class_id = len(classes) if id_column is None else _parse_id(row[id_column], where)
            color = _row_color(header, row, where)
            if color is None:
                color = _spread_color(class_id)
            classes.append(LandClass(class_id, name, color))
        classes.sort(key=lambda c: c.id)
        return cls(tuple(classes), str(path))


def parse_color(text: str, where: str) -> Color:
    """Reads one colour.

    Args:
        text: ``R G B``, ``R,G,B`` or ``#rrggbb``.
        where: File and line, for the message.

    Raises:
        ClassMapError: The text is no colour.
    """
    text = text.strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return _as_color([int(text[i : i + 2], 16) for i in (1, 3, 5)])
    parts = [part for part in re.split(r"[\s,;]+", text.strip("()[] ")) if part]
    if len(parts) == 3 and all(re.fullmatch(r"\d{1,3}", part) for part in parts):
        values = [int(part) for part in parts]
        if max(values) <= 255:
            return _as_color(values)
    raise ClassMapError(f"{where}: {text!r} is no colour; write it as 'R G B' with 0 to 255 each, or as '#rrggbb'.")


def _as_color(values: Sequence[int]) -> Color:
    red, green, blue = values
    return (red, green, blue)


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ClassMapError(f"{path} does not exist; name the class mapping with --class-mapping.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ClassMapError(f"{path} cannot be read as a CSV file in UTF-8 ({error}).") from error
    lines = text.splitlines()
    separator = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    table = [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]
    if len(table) < 2:
        raise ClassMapError(f"{path} holds no classes; expected a header line and one line for each class.")
    header = [cell.strip().casefold() for cell in table[0]]
    rows = table[1:]
    for line, row in enumerate(rows, start=2):
        # "name,1,2,3" under "name,color" is an unquoted "R,G,B": the surplus cells belong to the colour.
        if len(row) == len(header) + 2 and _find_column(header[-1:], _COLOR_COLUMNS) is not None:
            row[len(header) - 1 :] = [",".join(row[len(header) - 1 :])]
        if len(row) != len(header):
            raise ClassMapError(f"{path} line {line} has {len(row)} values where the header names {len(header)}.")
    return header, rows


def _find_column(header: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((header.index(name) for name in wanted if name in header), None)


def _parse_id(text: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text.strip()):
        raise ClassMapError(f"{where}: class id {text!r} is no whole number from 0 to {MAX_CLASSES - 1}.")
    return int(text)


def _row_color(header: Sequence[str], row: Sequence[str], where: str) -> Color | None:
    color_column = _find_column(header, _COLOR_COLUMNS)
    if color_column is not None:
        return parse_color(row[color_column], where)
    parts = [_find_column(header, names) for names in (("r", "red"), ("g", "green"), ("b", "blue"))]
    if None in parts:
        return None
    return parse_color(" ".join(row[part].strip() for part in parts if part is not None), where)


def _spread_color(class_id: int) -> Color:
    """A colour for a mapping that names none: black background, then hues a golden angle apart."""
    if class_id == BACKGROUND:
        return (0, 0, 0)
    turns = class_id * 0.618034
    value = 1.0 - 0.25 * (class_id % 3)
    return _as_color([round(255 * part) for part in colorsys.hsv_to_rgb(turns % 1.0, 0.75, value)])


def _refuse_duplicates(source: str, what: str, values: Sequence[object]) -> None:
    for position, value in enumerate(values):
        first = values.index(value)
        if first != position:
            raise ClassMapError(f"{source}: classes {first} and {position} have the same {what} {value!r}; change one.")


SALAK = ClassMap(
    (
        LandClass(0, "__background__", (0, 0, 0)),
        LandClass(1, "Badan Air", (255, 50, 50)),
        LandClass(2, "Bangunan", (255, 225, 50)),
        LandClass(3, "Jalan", (109, 255, 50)),
        LandClass(4, "Pohon Berinang", (50, 255, 167)),
        LandClass(5, "Snake Fruit", (50, 167, 255)),
        LandClass(6, "Tanah Terbuka", (109, 50, 255)),
    ),
    "the built-in salak class map",
)
"""Background, water, building, road, tree, salak palm and bare soil, as the field team keeps them."""
