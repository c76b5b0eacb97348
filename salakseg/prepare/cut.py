"""Cutting one source: a strip is read while the ones before it are encoded, and noted when its files have their names.

Axes: C red, green, blue; H rows from the top; W columns from the left; K classes.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg import replacing
from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import DataError, SalaksegError
from salakseg.prepare.finding import SourceFile
from salakseg.prepare.grid import Labels
from salakseg.prepare.png import encode_image, encode_label
from salakseg.prepare.record import PatchRecord, Record, Stamp, StripRecord
from salakseg.prepare.sources import Source
from salakseg.prepare.windows import Strip, Windows, patch_stem

AHEAD = 2
"""Strips that may wait to be encoded; more would only take memory."""


@dataclass(frozen=True, slots=True)
class Cutter:
    """What is cut, and where it goes.

    Attributes:
        root: The data root.
        file: The source's file, whose names the patches get.
        source: The open source.
        labels: What is known of its classes; None for unlabelled patches.
        class_map: The K classes.
        windows: Where the patches lie.
        min_valid: The share of a patch that must be valid, 0 to 1; one that is nowhere valid is never kept.
    """

    root: Path
    file: SourceFile
    source: Source
    labels: Labels | None
    class_map: ClassMap
    windows: Windows
    min_valid: float

    def todo(self, record: Record) -> list[Strip]:
        """The strips that are not yet cut."""
        return [strip for strip in self.windows.strips() if strip not in record.strips]

    def read(self, strip: Strip) -> "StripPixels":
        """Reads a strip.

        Raises:
            SalaksegError: Source or labels cannot be read, or a label is no class.
        """
        span = self.windows.span(strip)
        image_CHW, valid_HW = self.source.read(*span)
        label_HW = None
        if self.labels is not None and valid_HW.any():
            label_HW = self.labels.read(*span)
            self._check(label_HW)
        return StripPixels(strip, image_CHW, valid_HW, label_HW)

    def _check(self, label_HW: NDArray[np.uint8]) -> None:
        no_class_HW = (label_HW >= len(self.class_map)) & (label_HW != IGNORE_INDEX)
        if no_class_HW.any():
            raise DataError(
                f"{self.file.path}: its labels hold the id {label_HW[no_class_HW][0]}, but the classes are 0 to "
                f"{len(self.class_map) - 1}; mend the labels, or name the right --class-mapping."
            )

    def patch(self, pixels: "StripPixels", col: int) -> "Patch":
        """A patch of a strip, what is not valid blackened and without a label."""
        left = (col - pixels.strip.first) * self.windows.stride
        there = slice(left, left + self.windows.patch)
        image_CHW, valid_HW = pixels.image_CHW[:, :, there], pixels.valid_HW[:, there]
        label_HW = None if pixels.label_HW is None else pixels.label_HW[:, there]
        valid_px = int(np.count_nonzero(valid_HW))
        if valid_px < valid_HW.size:
            image_CHW = np.where(valid_HW, image_CHW, np.uint8(0))
            label_HW = None if label_HW is None else np.where(valid_HW, label_HW, np.uint8(IGNORE_INDEX))
        if label_HW is not None and (label_HW == IGNORE_INDEX).all():
            label_HW = None  # nobody labelled anything here: as good as any unlabelled patch
        kept = 0 < valid_px >= self.min_valid * valid_HW.size
        return Patch(pixels.strip.row, col, image_CHW, label_HW, valid_px, kept)

    def write(self, patch: "Patch") -> PatchRecord:
        """Writes the files of a patch.

        Raises:
            OSError: They cannot be written.
        """
        folder, name = f"{self.root}/{self.file.folder}", f"{patch_stem(self.file.name, patch.row, patch.col)}.png"
        image, mask = patch.encode(self.class_map)
        _put(f"{folder}/images", name, image)
        if mask is not None:
            _put(f"{folder}/masks", name, mask)
        stamps = Stamp.of(image), None if mask is None else Stamp.of(mask)
        return PatchRecord(patch.row, patch.col, patch.valid_px, patch.class_px(), *stamps)


@dataclass(frozen=True, slots=True, eq=False)
class StripPixels:
    """A strip that has been read: image_CHW, valid_HW, and label_HW if there are labels."""

    strip: Strip
    image_CHW: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]
    label_HW: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A patch to write.

    Attributes:
        row: Row.
        col: Column.
        image_CHW: uint8, black where not valid.
        label_HW: uint8, 255 where not valid; None if nothing of it is labelled.
        valid_px: Valid pixels.
        kept: Whether enough of it is valid.
    """

    row: int
    col: int
    image_CHW: NDArray[np.uint8]
    label_HW: NDArray[np.uint8] | None
    valid_px: int
    kept: bool

    def class_px(self) -> dict[int, int]:
        """Labelled pixels by class id, of the classes that it has."""
        if self.label_HW is None:
            return {}
        counts = Image.fromarray(self.label_HW).histogram()  # half the time of bincount, and outside Python's lock
        return {class_id: count for class_id, count in enumerate(counts[:IGNORE_INDEX]) if count}

    def encode(self, class_map: ClassMap) -> tuple[bytes, bytes | None]:
        """Its picture and, if it is labelled, its mask as PNG files."""
        mask = None if self.label_HW is None else encode_label(self.label_HW, class_map)
        return encode_image(self.image_CHW), mask


def cut(cutter: Cutter, record: Record, done: Callable[[int], None], workers: int | None = None) -> None:
    """Cuts what is not yet cut of a source.

    Args:
        cutter: What and where.
        record: Gets a line for every strip.
        done: Called with the number of patches that have been dealt with since the last call, kept or not.
        workers: Threads that encode; by default as many as there are processors, 8 at most.

    Raises:
        SalaksegError: Source or labels cannot be read.
        OSError: A file cannot be written.
    """
    for kind in ("images", *(["masks"] if cutter.labels is not None else [])):
        (cutter.root / cutter.file.folder / kind).mkdir(parents=True, exist_ok=True)
    with (
        ThreadPoolExecutor(1, "salakseg-read") as reader,
        ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1), "salakseg-encode") as pool,
    ):
        for strip in _encoded(cutter, _read_ahead(cutter, cutter.todo(record), reader), pool):
            record.add(strip)
            done(strip.strip.stop - strip.strip.first)


def _read_ahead(cutter: Cutter, strips: Iterable[Strip], reader: Executor) -> Iterator[StripPixels]:
    waiting: deque[Future[StripPixels]] = deque()
    try:
        for strip in strips:
            waiting.append(reader.submit(cutter.read, strip))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _encoded(cutter: Cutter, strips: Iterator[StripPixels], pool: Executor) -> Iterator[StripRecord]:
    """What became of the strips, in their order."""
    waiting: deque[tuple[Strip, list[Future[PatchRecord | int]]]] = deque()
    try:
        for pixels in strips:
            cols = range(pixels.strip.first, pixels.strip.stop)
            waiting.append((pixels.strip, [pool.submit(_finish, cutter, pixels, col) for col in cols]))
            if len(waiting) > AHEAD:
                yield _strip_record(*waiting.popleft())
        while waiting:
            yield _strip_record(*waiting.popleft())
    except SalaksegError:  # what was read before the error is worth noting
        while waiting:
            yield _strip_record(*waiting.popleft())
        raise
    finally:
        for _, futures in waiting:
            for future in futures:
                future.cancel()


def _finish(cutter: Cutter, pixels: StripPixels, col: int) -> PatchRecord | int:
    """The record of a patch that was kept, or the labelled pixels of one that was not."""
    patch = cutter.patch(pixels, col)
    return cutter.write(patch) if patch.kept else sum(patch.class_px().values())


def _strip_record(strip: Strip, futures: list[Future[PatchRecord | int]]) -> StripRecord:
    results = [future.result() for future in futures]
    patches = tuple(result for result in results if isinstance(result, PatchRecord))
    return StripRecord(strip, patches, sum(result for result in results if isinstance(result, int)))


def _put(folder: str, name: str, content: bytes) -> None:
    """Writes a file that appears under its name only when it is whole.

    It is not forced to the disk one by one, which would take longer than all the rest: the record's checksums find out
    what a power cut has damaged. Paths are plain text, because `Path` takes a third of the time of writing.
    """
    hidden = f"{folder}/.{name}.part"
    try:
        with open(hidden, "wb") as file:
            file.write(content)
        replacing.replace(hidden, f"{folder}/{name}")
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(hidden)
        raise
