"""Cells on disk, as they come: a pass over hundreds of thousands of pictures can end anywhere and go on there.

A folder with three files: ``about.json`` (what the cells were made with), ``cells.bin`` (records one behind the
other), ``items.txt`` (a line for each picture that is done: the number of cells up to its last one, a tab, its name). A
line is written after the cells. So when the folder is opened again, cells without a line are known as left-overs of an
interruption, and a line whose cells did not reach the disk is, too.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from salakseg.errors import DataError
from salakseg.replacing import replace
from salakseg.suggest.cells import cell_type


class CellStore:
    """The cells of one source. Use it as a context manager.

    Args:
        folder: Made if it is not there.
        about: Plain values that decide the cells; cells that were made with others are removed.
        classes: Number of classes.
        channels: Channels of the encoder's last map.

    Attributes:
        names: Pictures that are done, in the order of their numbers in the records.
        record: The type of a record.

    Raises:
        DataError: The folder cannot be written, or another process uses it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], classes: int, channels: int) -> None:
        self.record = cell_type(classes, channels)
        self._cells, self._items, head = (folder / name for name in ("cells.bin", "items.txt", "about.json"))
        text = json.dumps({**about, "format": 2, "record": str(self.record)}, sort_keys=True, indent=1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock", timeout=0).acquire()
            if not head.is_file() or head.read_text(encoding="utf-8") != text:
                for path in (head, self._cells, self._items):
                    path.unlink(missing_ok=True)
                self._items.touch()
                self._cells.touch()
                partial = head.with_name(".about.json.partial")
                partial.write_text(text, encoding="utf-8")
                replace(partial, head)
            self.names, self._count = self._cut_back()
            self._cells_file, self._items_file = self._cells.open("ab"), self._items.open("ab")
        except Timeout as error:
            raise DataError(f"{folder} is used by another suggest; wait for it, or name another --cache.") from error
        except OSError as error:
            raise DataError(f"{folder} cannot be written ({error}); name another folder with --cache.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cells_file.close()
        self._items_file.close()
        self._lock.lock.release()

    def add(self, cells: NDArray[Any], finished: Sequence[str]) -> None:
        """Appends records, and the names of the pictures that are complete with them.

        Args:
            cells: Records; their item is the place that the picture's name has or will have in `names`.
            finished: Names in order, without a line break.

        Raises:
            DataError: The disk is full.
        """
        places = np.arange(len(self.names), len(self.names) + len(finished))
        ends = self._count + np.searchsorted(cells["item"], places, side="right")  # items come in ascending order
        try:
            self._cells_file.write(cells.tobytes())
            self._cells_file.flush()
            lines = (f"{end}\t{name}\n" for end, name in zip(ends.tolist(), finished, strict=True))
            self._items_file.write("".join(lines).encode())
            self._items_file.flush()
        except OSError as error:
            raise DataError(f"{self._cells} cannot be written ({error}); is the disk full?") from error
        self.names.extend(finished)
        self._count += len(cells)

    def read(self) -> NDArray[Any]:
        """All records, read from the disk where they are looked at."""
        if self._cells.stat().st_size == 0:
            return np.zeros(0, self.record)
        return np.memmap(self._cells, self.record, mode="r")

    def _cut_back(self) -> tuple[list[str], int]:
        """Removes what is incomplete at the files' ends; returns the names that are whole, and how many cells."""
        there = self._cells.stat().st_size // self.record.itemsize
        names: list[str] = []
        count = length = 0
        for line in self._items.read_bytes().splitlines(keepends=True):
            end, _, name = line.partition(b"\t")
            if not (line.endswith(b"\n") and end.isdigit() and count <= int(end) <= there and _is_text(name)):
                break
            names.append(name[:-1].decode())
            count, length = int(end), length + len(line)
        os.truncate(self._items, length)
        os.truncate(self._cells, count * self.record.itemsize)
        return names, count


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
