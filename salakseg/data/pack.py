"""A pack: all patches of a folder in a few large files, which are read where they are needed and without decoding.

    pack.json          schema, codec, classes, digest of each shard
    names.csv          folder, image, mask and photo of each patch, in order
    table.npy          int64 [N, 8], the columns of `Column`
    shard-00000.bin    image and label of one patch behind the other

Opening half a million small files for every epoch costs more than their pixels, and decoding PNGs more than both. A
pack is read through memory maps, by several processes at a time. `packing.py` writes it. Every patch carries a
checksum, which is looked at whenever the patch is read.

Axes: H row, W column, C red green blue.
"""

import csv
import io
import json
import zlib
from enum import IntEnum, StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import ClassMap
from salakseg.data.patches import Patch
from salakseg.errors import ClassMapError, DataError, UnreadableError

SCHEMA = "salakseg.pack"
SCHEMA_VERSION = 1

HEAD = "pack.json"
NAMES = "names.csv"
TABLE = "table.npy"


class Codec(StrEnum):
    """How patches lie in a pack; labels are never changed."""

    RAW = "raw"
    """Every byte of every pixel: quickest to read, four times the pixels' number in bytes."""
    WEBP = "webp"
    """WebP without loss: as small as PNG."""
    JPEG = "jpeg"
    """JPEG of quality 95: a tenth of the size, with a loss that photos from a drone have already had once."""


class Column(IntEnum):
    """Columns of the table."""

    SHARD = 0
    OFFSET = 1
    IMAGE_BYTES = 2
    LABEL_BYTES = 3
    HEIGHT = 4
    WIDTH = 5
    IMAGE_CRC = 6
    LABEL_CRC = 7


def shard_name(number: int) -> str:
    """Name of a shard's file."""
    return f"shard-{number:05d}.bin"


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a finished pack."""
    return (folder / HEAD).is_file()


class Pack:
    """A finished pack, open for reading by any number of processes; it may be sent to another one.

    Args:
        folder: The folder of the pack.

    Attributes:
        folder: The same.
        codec: How its patches lie in it.
        class_map: The classes whose ids its labels are.
        fingerprint: What it was made from, see `packing.fingerprint_of`.

    Raises:
        DataError: It is missing, unfinished, of another schema, or a file of it is missing or cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        head = _read_head(folder)
        try:
            self.codec = Codec(head["codec"])
            self.class_map = ClassMap.from_records(head["classes"], str(folder))
            self.fingerprint = str(head["fingerprint"])
            self._shards = [(int(shard["bytes"]), str(shard["sha256"])) for shard in head["shards"]]
            self._count = int(head["patches"])
        except (KeyError, TypeError, ValueError, ClassMapError) as error:
            raise DataError(f"{folder / HEAD} cannot be read ({error}); make the pack anew.") from error
        self._check_files()
        self._maps: dict[int, NDArray[np.uint8]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Memory maps, names and table stay behind: the process that gets it opens its own."""
        plain = self.__dict__.copy()
        plain.pop("patches", None)
        plain.pop("_table", None)
        plain.pop("_rows", None)
        return plain | {"_maps": {}}

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """The patches in the order of the pack."""
        try:
            with (self.folder / NAMES).open(newline="", encoding="utf-8") as file:
                rows = csv.reader(file)
                next(rows)
                found = tuple(Patch(folder, image, mask or None, photo) for folder, image, mask, photo in rows)
        except (OSError, UnicodeDecodeError, ValueError, StopIteration, csv.Error) as error:
            raise self._damaged(NAMES) from error
        if len(found) != self._count:
            raise self._damaged(NAMES)
        return found

    def image(self, patch: Patch) -> NDArray[np.uint8]:
        """The picture of a patch, uint8 [H, W, 3], read-only where nothing had to be decoded.

        Raises:
            DataError: The pack does not hold it, or is damaged.
        """
        row = self._row(patch)
        content = self._bytes(row, Column.IMAGE_BYTES, Column.IMAGE_CRC, patch)
        shape = int(row[Column.HEIGHT]), int(row[Column.WIDTH]), 3
        if self.codec is Codec.RAW:
            return content.reshape(shape)
        return _decoded(content, "RGB", shape, self.folder, patch)

    def label(self, patch: Patch) -> NDArray[np.uint8]:
        """The class ids of a labelled patch, uint8 [H, W], 255 where ignored; read-only where nothing was decoded.

        Raises:
            DataError: The pack does not hold it, or is damaged.
            ValueError: The patch is unlabelled.
        """
        row = self._row(patch)
        if not row[Column.LABEL_BYTES]:
            raise ValueError(f"{patch.image} is unlabelled")
        content = self._bytes(row, Column.LABEL_BYTES, Column.LABEL_CRC, patch)
        shape = int(row[Column.HEIGHT]), int(row[Column.WIDTH])
        if self.codec is Codec.RAW:
            return content.reshape(shape)
        return _decoded(content, "L", shape, self.folder, patch)

    @property
    def damaged(self) -> tuple[Patch, ...]:
        """Patches that could not be read when the pack was made; they have no pixels in it."""
        return tuple(self.patches[row] for row in np.flatnonzero(self._table[:, Column.HEIGHT] == 0).tolist())

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        try:
            table: NDArray[np.int64] = np.load(self.folder / TABLE, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(TABLE) from error
        if table.shape != (self._count, len(Column)):
            raise self._damaged(TABLE)
        return table

    @cached_property
    def _rows(self) -> dict[tuple[str, str], int]:
        return {(patch.folder, patch.image): row for row, patch in enumerate(self.patches)}

    def _row(self, patch: Patch) -> NDArray[np.int64]:
        row = self._rows.get((patch.folder, patch.image))
        if row is None:
            raise DataError(f"{self.folder} does not hold {patch.name}; make the pack anew.")
        values: NDArray[np.int64] = self._table[row]
        if values[Column.HEIGHT] == 0:
            raise UnreadableError(
                f"{patch.name} could not be read when {self.folder} was made; mend it and pack it again."
            )
        return values

    def _bytes(self, row: NDArray[np.int64], size: Column, crc: Column, patch: Patch) -> NDArray[np.uint8]:
        shard, start = int(row[Column.SHARD]), int(row[Column.OFFSET])
        if size is Column.LABEL_BYTES:
            start += int(row[Column.IMAGE_BYTES])
        if shard not in self._maps:
            try:
                self._maps[shard] = np.memmap(self.folder / shard_name(shard), np.uint8, mode="r")
            except (OSError, ValueError) as error:
                raise self._damaged(shard_name(shard)) from error
        content = self._maps[shard][start : start + int(row[size])]
        if zlib.crc32(content.data) != row[crc]:
            raise UnreadableError(
                f"{self.folder / shard_name(shard)} is damaged at the patch {patch.name}; check the disk and make "
                "the pack anew."
            )
        return np.asarray(content)

    def _check_files(self) -> None:
        for number, (size, _) in enumerate(self._shards):
            path = self.folder / shard_name(number)
            if not path.is_file() or path.stat().st_size != size:
                raise self._damaged(path.name)

    def _damaged(self, name: str) -> DataError:
        return DataError(f"{self.folder / name} is missing or cut off; copy the pack again or make it anew.")


def _read_head(folder: Path) -> dict[str, Any]:
    try:
        head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        schema, version = head["schema"], head["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no finished pack ({error}); make it with `salakseg pack`.") from error
    if (schema, version) != (SCHEMA, SCHEMA_VERSION):
        raise DataError(f"{folder} is a pack of another version of salakseg; make it anew with `salakseg pack`.")
    return dict(head)


def _decoded(
    content: NDArray[np.uint8], mode: str, shape: tuple[int, ...], folder: Path, patch: Patch
) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content.tobytes())) as picture:
            values = np.asarray(picture.convert(mode))
    # Pillow reports a damaged picture with one of these, depending on the format
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError(
            f"{folder} is damaged at the patch {patch.folder}/{patch.image}; make it anew."
        ) from error
    if values.shape != shape:
        raise UnreadableError(f"{folder} is damaged at the patch {patch.folder}/{patch.image}; make it anew.")
    return values
