"""Which class a name or an id stands for, as people write them in columns, categories and labelling tools."""

import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import DataError

UNLABELLED = IGNORE_INDEX
"""Nobody said anything of the pixel; `fill` may make background of it."""

IGNORED = 254
"""Somebody said that the pixel is not to count, or said something that is no class: 255 in the end, whatever `fill`.
It is no class: ids end at 253."""

_IGNORE_NAMES = ("ignore",)
_SHOWN = 8


class ClassLookup:
    """Finds classes by name or id.

    Names are compared without regard to case, spaces, underscores and hyphens, so that ``badan_air`` is ``Badan Air``
    and ``background`` is ``__background__``. ``ignore`` (LabelMe writes ``__ignore__``) and 255 mean that an area is
    not to count, unless a class is called so.

    Args:
        class_map: The classes.
    """

    def __init__(self, class_map: ClassMap) -> None:
        self.class_map = class_map
        self._exact = {_plain(name): class_id for class_id, name in enumerate(class_map.names)}
        loose = [_loose(name) for name in class_map.names]
        # Names that differ by a space alone can only be told apart when they are written as in the class map.
        self._loose = {name: class_id for class_id, name in enumerate(loose) if name and loose.count(name) == 1}
        for name in _IGNORE_NAMES:
            if name not in loose:
                self._loose[name] = IGNORED

    def by_name(self, value: object) -> int | None:
        """The class of a name, `IGNORED` for one that means ignore, None for a stranger."""
        if not isinstance(value, str):
            return None
        return self._exact.get(_plain(value), self._loose.get(_loose(value)))

    def by_id(self, value: object) -> int | None:
        """The class of an id such as 3, 3.0 or "3", `IGNORED` for 255, None for a stranger."""
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]{1,3})(?:\.0*)?", value.strip())
            if match is None:
                return None
            number = float(match[1])
        elif isinstance(value, numbers.Real | np.number) and not isinstance(value, bool | np.bool_):
            number = float(value)
        else:
            return None
        if number == IGNORE_INDEX:
            return IGNORED
        return int(number) if number.is_integer() and 0 <= number < len(self.class_map) else None

    def find(self, value: object) -> int | None:
        """The class of a name or an id; a name goes first."""
        found = self.by_name(value)
        return self.by_id(value) if found is None else found

    def name(self, class_id: int) -> str:
        """The name of a class that was found."""
        return "ignore" if class_id == IGNORED else self.class_map.names[class_id]

    def known(self) -> str:
        """The classes for a message: ids and names."""
        return ", ".join(f"{c.id} {c.name}" for c in self.class_map.classes)


def is_blank(value: object) -> bool:
    """Whether a field holds nothing: none, not a number, or spaces."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return bool(np.isscalar(value) and value != value)  # not a number, not a time


def refuse_unknown(path: Path, what: str, unknown: Mapping[str, int], lookup: ClassLookup) -> None:
    """Refuses names that are no class, all of them in one sentence.

    Args:
        path: The file that holds them.
        what: Where in the file, such as "column 'kind'".
        unknown: How often each occurs.
        lookup: The classes.

    Raises:
        DataError: There is at least one.
    """
    if not unknown:
        return
    ordered = Counter(unknown).most_common()
    shown = ", ".join(f"{name!r} ({count})" for name, count in ordered[:_SHOWN])
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    raise DataError(
        f"{path}: {what} names what is no class: {shown}{more}; the classes are {lookup.known()}: mend the file or "
        "name the right --class-mapping."
    )


def layering(class_ids_N: NDArray[np.uint8], priority: Sequence[str], lookup: ClassLookup) -> NDArray[np.intp]:
    """The order in which shapes are laid down, the bottom one first.

    Args:
        class_ids_N: uint8 [N], the classes of the shapes in the order in which they were drawn.
        priority: Names or ids of classes from bottom to top; the others lie beneath them.
        lookup: The classes.

    Returns:
        [N] positions in `class_ids_N`.

    Raises:
        DataError: `priority` names what is no class, or one twice.
    """
    rank = np.zeros(256, np.int64)
    for position, name in enumerate(priority, start=1):
        class_id = lookup.find(name)
        if class_id is None:
            raise DataError(
                f"The order of overlaps names {name!r}, which is no class; the classes are {lookup.known()}."
            )
        if rank[class_id]:
            raise DataError(f"The order of overlaps names {lookup.name(class_id)!r} twice; name each class once.")
        rank[class_id] = position
    order: NDArray[np.intp] = np.argsort(rank[class_ids_N], kind="stable")
    return order


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]+", "", _plain(name))
