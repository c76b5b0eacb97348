"""Patches that cannot be read: skipped, counted, listed in ``skipped.csv``, and too many of them an error.

Skipped is what cannot be read at all: files that are missing, truncated or no picture. Files that can be read but hold
what they must not, such as an index that is no class or a mask of another size than its picture, stay errors: they say
that something is wrong with all of the data, and no more training makes that better.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from salakseg import replacing
from salakseg.data.patches import Patch
from salakseg.errors import DataError

SHARE = 0.01
"""Most of a run's patches that may be skipped."""

PART_SHARE = 0.1
"""Most of a single part: a few hundred labelled patches would vanish among many unlabelled ones."""

_SHOWN = 5
_HEADER = ("part", "folder", "image", "reason")


class Skip(NamedTuple):
    """A patch that could not be read, in plain text, as it comes from a worker process.

    Attributes:
        part: Value of its `Role`.
        folder, image: Names as in `Patch`.
        reason: What was wrong.
    """

    part: str
    folder: str
    image: str
    reason: str

    @property
    def name(self) -> str:
        """Folder and file."""
        return f"{self.folder}/{self.image}" if self.folder else self.image


class Skipped:
    """The patches that a run has skipped so far.

    Several processes that train together meet different patches: each counts its own, and the first one writes.

    Args:
        sizes: Patches of each part that the run reads.
        path: The list; None writes none. What is in it already counts.
        say: Called with a line worth reading.
    """

    def __init__(self, sizes: Mapping[str, int], path: Path | None, say: Callable[[str], None]) -> None:
        self._sizes = dict(sizes)
        self._path = path
        self._say = say
        self._found: dict[tuple[str, str], Skip] = {}
        if path is not None:
            for skip in _read(path):
                self._found.setdefault((skip.folder, skip.image), skip)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, patch: Patch) -> bool:
        return (patch.folder, patch.image) in self._found

    def add(self, skips: Iterable[Skip]) -> None:
        """Takes down patches; those that are known already do not count again.

        Raises:
            DataError: They are too many now.
        """
        new = [skip for skip in dict.fromkeys(skips) if (skip.folder, skip.image) not in self._found]
        for skip in new:
            self._found.setdefault((skip.folder, skip.image), skip)
        if new:
            self._write(new)
            self._refuse_many()

    def look_again(self, is_unreadable: Callable[[Skip], bool]) -> None:
        """Takes off the list what has been mended or removed since; a run that is gone on with does so at first.

        Args:
            is_unreadable: Whether a patch of the run still cannot be read.

        Raises:
            DataError: Those that are left are too many.
        """
        left = {key: skip for key, skip in self._found.items() if is_unreadable(skip)}
        if len(left) < len(self._found):
            self._say(f"{len(self._found) - len(left)} of the patches that were skipped before are mended or gone")
            self._found = left
            self._write_anew()
        self._refuse_many()

    def tell(self) -> None:
        """Says how many there are, if there are any."""
        if self._found:
            self._say(f"attention: {self._count()} could not be read and were skipped: {self._names()}")

    def _refuse_many(self) -> None:
        of_part: dict[str, int] = {}
        for skip in self._found.values():
            of_part[skip.part] = of_part.get(skip.part, 0) + 1
        total = sum(self._sizes.values())
        too_many = [f"{SHARE:.0%} of the {total:,} patches"] if len(self) > SHARE * total else []
        too_many += [
            f"{PART_SHARE:.0%} of the {self._sizes[part]:,} {part} ones"
            for part, count in of_part.items()
            if count > PART_SHARE * self._sizes.get(part, count)
        ]
        if too_many:
            raise DataError(
                f"{self._count()} cannot be read, more than {' and '.join(too_many)}: {self._names()}; copy them anew "
                "or remove them, then go on with --resume. `salakseg check` finds all of them."
            )

    def _count(self) -> str:
        return f"{len(self)} patch{'es' if len(self) > 1 else ''}"

    def _names(self) -> str:
        """The first ones with what is wrong with the first, and where the list is."""
        skips = list(self._found.values())
        names = ", ".join(skip.name for skip in skips[:_SHOWN])
        more = f" and {len(skips) - _SHOWN} more" if len(skips) > _SHOWN else ""
        listed = f", listed in {self._path}" if self._path is not None else ""
        return f"{names}{more} ({skips[0].reason}){listed}"

    def _write(self, new: list[Skip]) -> None:
        if self._path is None:
            return
        text = _rows_of(new) if self._path.exists() else _rows_of([_HEADER, *new])
        try:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._say(f"attention: {self._path} cannot be written ({error.strerror or error})")

    def _write_anew(self) -> None:
        if self._path is None:
            return
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            partial.write_text(_rows_of([_HEADER, *self._found.values()]), encoding="utf-8", newline="")
            replacing.replace(partial, self._path)
        except OSError as error:
            self._say(f"attention: {self._path} cannot be written ({error.strerror or error})")


def skip_of(patch: Patch, part: str, error: Exception, root: Path) -> Skip:
    """A patch with what was wrong with it; the root is left out of the reason."""
    return Skip(part, patch.folder, patch.image, str(error).replace(f"{root}{os.sep}", "").rstrip("."))


def _rows_of(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[Skip]:
    with suppress(OSError, UnicodeDecodeError, csv.Error), path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(_HEADER)]
        return [Skip(*row) for row in rows if tuple(row) != _HEADER]
    return []
