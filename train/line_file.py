"""A text file that grows by whole lines, and survives a full disk."""

import os
from collections.abc import Callable
from pathlib import Path


class LineFile:
    """Adds lines to a file. What does not fit on the disk waits in memory, and no half line is left behind.

    Args:
        path: The file.
        say: Called once when lines begin to wait, and once when they are written.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._file = path.open("ab", buffering=0)
        self._waiting: list[bytes] = []
        self._told = False

    def add(self, line: str) -> None:
        """Writes a line, behind those that wait."""
        self._waiting.append(line.encode("utf-8") + b"\n")
        self._write()

    def close(self) -> None:
        """Tries once more to write what waits; it is said if that fails."""
        self._write()
        if self._waiting:
            self._say(f"attention: {len(self._waiting)} lines of {self._path} are lost, there was no room for them")
        self._file.close()

    def _write(self) -> None:
        content = b"".join(self._waiting)
        if not content:
            return
        end = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            os.truncate(self._file.fileno(), end)
            if not self._told:
                self._say(
                    f"attention: {self._path} cannot be written ({error.strerror or error}); its lines are kept in "
                    "memory until there is room"
                )
            self._told = True
            return
        self._waiting.clear()
        if self._told:
            self._say(f"{self._path} is written again")
        self._told = False
