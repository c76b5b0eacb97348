"""What has been cut of a source, line by line: a file below ``ROOT/.prepare``, by which a run goes on after any end.

The first line tells what the source was cut from and how, each further one what became of a strip of patches. A line
is written when the strip's files have their names; a line that was cut off by a crash does not count. The checksums
tell afterwards whether a file is still the one that was written.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from salakseg.mapping.files import put_bytes
from salakseg.prepare.finding import SourceFile
from salakseg.prepare.windows import Strip, patch_stem

HIDDEN = ".prepare"
"""Folder in a data root for the records."""

_PATCH_FILE = re.compile(r"(.+)_patch_\d+_\d+\.\w+", re.IGNORECASE | re.DOTALL)


class Stamp(NamedTuple):
    """A file's size in bytes and its CRC-32."""

    size: int
    crc: int

    @classmethod
    def of(cls, content: bytes) -> "Stamp":
        """The stamp of a file with this content."""
        return cls(len(content), zlib.crc32(content))


class PatchRecord(NamedTuple):
    """A patch that has been written.

    Attributes:
        row: Row.
        col: Column.
        valid_px: Valid pixels.
        class_px: Labelled pixels by class id, of the classes that it has.
        image: Its picture.
        mask: Its mask, None for an unlabelled one.
    """

    row: int
    col: int
    valid_px: int
    class_px: Mapping[int, int]
    image: Stamp
    mask: Stamp | None


@dataclass(frozen=True, slots=True)
class StripRecord:
    """A strip that has been cut.

    Attributes:
        strip: Which.
        patches: The patches that were kept.
        lost_px: Labelled pixels of the others.
    """

    strip: Strip
    patches: tuple[PatchRecord, ...]
    lost_px: int = 0

    @property
    def left_out(self) -> int:
        """Patches that were not kept."""
        return self.strip.stop - self.strip.first - len(self.patches)

    def to_line(self) -> str:
        """One line of JSON."""
        patches = [[p.col, p.valid_px, p.class_px, p.image, p.mask] for p in self.patches]
        return _line([self.strip.row, self.strip.first, self.strip.stop, self.lost_px, patches])

    @classmethod
    def from_line(cls, line: str) -> "StripRecord":
        """The reverse of `to_line`.

        Raises:
            ValueError: It is no such line.
        """
        try:
            row, first, stop, lost_px, patches = json.loads(line)
            found = tuple(
                PatchRecord(row, col, valid, {int(k): n for k, n in px.items()}, Stamp(*image), mask and Stamp(*mask))
                for col, valid, px, image, mask in patches
            )
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no record of a strip: {line[:60]}") from error
        return cls(Strip(row, first, stop), found, lost_px)


def record_path(root: Path, source: SourceFile) -> Path:
    """Where a source's record lies."""
    return root / HIDDEN / source.folder / f"{source.name}.jsonl"


def files_of(root: Path, source: SourceFile, patch: PatchRecord) -> Iterator[tuple[Path, Stamp]]:
    """The files of a patch and what they were when they were written."""
    name = f"{patch_stem(source.name, patch.row, patch.col)}.png"
    yield root / source.folder / "images" / name, patch.image
    if patch.mask is not None:
        yield root / source.folder / "masks" / name, patch.mask


class Record:
    """A source's record that is being written, or went on with. Use it as a context manager.

    Args:
        path: The file.
        made_from: What the source is cut from and how, plain values.
        strips: Strips that were cut before and still stand.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any], strips: Iterable[StripRecord] = ()) -> None:
        self._path = path
        self._head = _line(made_from)
        self.strips = {record.strip: record for record in strips}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write_all()
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, record: StripRecord) -> None:
        """Notes a strip whose files have their names.

        Raises:
            OSError: It cannot be written.
        """
        self.strips[record.strip] = record
        self._file.write(record.to_line() + "\n")
        self._file.flush()

    def finish(self) -> None:
        """Puts the lines into the strips' order, whichever they were cut in.

        Raises:
            OSError: It cannot be written.
        """
        self._file.close()  # before it is replaced, which Windows insists on
        self._write_all()

    def _write_all(self) -> None:
        ordered = sorted(self.strips.values(), key=lambda record: (record.strip.row, record.strip.first))
        text = "\n".join([self._head, *(record.to_line() for record in ordered)])
        put_bytes(self._path, f"{text}\n".encode())


def read_record(path: Path) -> tuple[dict[str, Any], list[StripRecord]]:
    """Reads a record, up to the first line that a crash has damaged.

    Raises:
        OSError: It cannot be read.
        ValueError: It has not even a first line.
    """
    head, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    made_from: dict[str, Any] = dict(json.loads(head))
    strips = []
    for line in lines[:-1]:  # the last has no end: it is empty, or was cut off
        try:
            strips.append(StripRecord.from_line(line))
        except ValueError:
            break
    return made_from, strips


def intact(root: Path, source: SourceFile, strips: Iterable[StripRecord]) -> list[StripRecord]:
    """The strips whose files are all there, to the byte."""
    return [record for record in strips if all(_same(root, source, patch) for patch in record.patches)]


def _same(root: Path, source: SourceFile, patch: PatchRecord) -> bool:
    try:
        return all(Stamp.of(path.read_bytes()) == stamp for path, stamp in files_of(root, source, patch))
    except OSError:
        return False


class Listing:
    """Sizes of the files in a data root's folders, each folder listed once: there may be half a million files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sizes: dict[Path, dict[str, int]] = {}
        self._sources: dict[Path, dict[str, list[str]]] = {}

    def changed(self, source: SourceFile, strips: Iterable[StripRecord]) -> list[Path]:
        """The files that are gone or of another size than they were; none of them is opened."""
        files = (
            found for record in strips for patch in record.patches for found in files_of(self._root, source, patch)
        )
        return [path for path, stamp in files if self._of(path.parent).get(path.name) != stamp.size]

    def has_patches(self, source: SourceFile) -> bool:
        """Whether a source's folder holds any patch of its name, in capitals or not."""
        return any(source.name.casefold() in self._patches_in(folder) for folder in self._folders(source))

    def patches(self, source: SourceFile) -> list[Path]:
        """The pictures and masks that are named as patches of a source, whoever wrote them."""
        return [
            folder / name
            for folder in self._folders(source)
            for name in self._patches_in(folder).get(source.name.casefold(), [])
            if name.startswith(f"{source.name}_")
        ]

    def _folders(self, source: SourceFile) -> list[Path]:
        return [self._root / source.folder / kind for kind in ("images", "masks")]

    def _patches_in(self, folder: Path) -> dict[str, list[str]]:
        """Names of files by the source that they are named after, without capitals."""
        if folder not in self._sources:
            found = self._sources[folder] = {}
            for name in self._of(folder):
                if match := _PATCH_FILE.fullmatch(name):
                    found.setdefault(match[1].casefold(), []).append(name)
        return self._sources[folder]

    def _of(self, folder: Path) -> dict[str, int]:
        if folder not in self._sizes:
            try:
                with os.scandir(folder) as entries:
                    self._sizes[folder] = {entry.name: entry.stat().st_size for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._sizes[folder] = {}
        return self._sizes[folder]


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
