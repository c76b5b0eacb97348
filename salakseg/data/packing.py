"""Writing a pack: shard by shard, so that a pack that was interrupted goes on where it stopped.

A pack grows in ``NAME.unfinished`` beside its place and gets its name when it is whole.

Axes: H row, W column, C red green blue.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from salakseg import replacing
from salakseg.classes import ClassMap
from salakseg.data.ahead import read_ahead
from salakseg.data.masks import image_size
from salakseg.data.pack import HEAD, NAMES, SCHEMA, SCHEMA_VERSION, TABLE, Codec, Column, Pack, is_pack, shard_name
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.reading import read_patch, read_picture
from salakseg.errors import DataError, UnreadableError

PACK = "pack"
"""Name of the pack in a folder of patches."""

SHARD_BYTES = 256 * 2**20
"""A shard is closed when it has grown beyond; what an interrupted pack loses at most."""

JPEG_QUALITY = 95

DAMAGED_SHARE = 0.01
"""Most of the patches that may be unreadable."""

_FINGERPRINT = "fingerprint"
_THREADS = 4
_AHEAD = 64
_WAITING_PIXELS = 2**26  # whole photos of 20 megapixels would take gigabytes while the disk is slow
_SAMPLE = 200  # headers that the size is estimated from


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed.

    Attributes:
        folder: The pack.
        patches: Number of patches.
        bytes: Size of its shards.
        resumed: Patches that an earlier, interrupted call had packed already.
    """

    folder: Path
    patches: int
    bytes: int
    resumed: int


def pack_patches(
    index: PatchIndex,
    folder: Path,
    class_map: ClassMap,
    codec: Codec = Codec.RAW,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Packs all patches of an index; goes on with an unfinished pack of the same patches.

    A patch that cannot be read keeps its place without pixels, see `Pack.damaged`.

    Args:
        index: The patches, as files.
        folder: The pack to make.
        class_map: Classes to read masks by.
        codec: How patches lie in the pack.
        overwrite: Whether another pack in `folder` may be replaced.
        progress: Called with patches packed and to pack.

    Raises:
        DataError: A picture or mask holds what it must not, too many cannot be read, there is no room, or `folder`
            holds something else.
    """
    fingerprint = fingerprint_of(index, class_map, codec)
    damaged = 0
    with PackWriter(folder, class_map, codec, fingerprint, overwrite=overwrite) as writer:
        if writer.finished is None:
            _check_room(index, folder, codec, writer.done)
            for done, (patch, pixels) in enumerate(_read(index, class_map, writer.done), writer.done + 1):
                if isinstance(pixels, UnreadableError):
                    damaged += 1
                    if damaged > DAMAGED_SHARE * len(index.patches):
                        raise DataError(
                            f"{pixels} More than {DAMAGED_SHARE:.0%} of the {len(index.patches):,} patches are so; "
                            "`salakseg check` finds all of them."
                        )
                    writer.add_damaged(patch)
                else:
                    writer.add(patch, *pixels)
                if progress is not None:
                    progress(done, len(index.patches))
        return writer.finish()


def fingerprint_of(index: PatchIndex, class_map: ClassMap, codec: Codec) -> str:
    """What a pack is made from, as hexadecimal text: names, sizes and times of all files, classes and codec."""
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, codec.value, class_map.to_records()]).encode())
    for patch in index.patches:
        paths = [index.image_path(patch)] + ([index.mask_path(patch)] if patch.mask is not None else [])
        stamps = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, paths)]
        digest.update(json.dumps([patch.folder, patch.image, patch.mask, stamps]).encode())
    return digest.hexdigest()


def estimated_bytes(index: PatchIndex, codec: Codec) -> int:
    """About how large a pack will be, from some pictures; what is encoded is taken to be as large as its file."""
    places = np.linspace(0, len(index.patches) - 1, min(_SAMPLE, len(index.patches))).astype(int)
    some = [index.patches[int(place)] for place in places]
    if codec is Codec.RAW:
        pixels = []
        for patch in some:
            with suppress(UnreadableError):
                height, width = image_size(index.image_path(patch))
                pixels.append(height * width)
        mean = float(np.mean(pixels)) if pixels else 0
        return int(mean * (3 * len(index.patches) + index.labelled_count))
    return int(np.mean([index.image_path(patch).stat().st_size for patch in some]) * len(index.patches))


class PackWriter:
    """A pack that grows. Use it as a context manager; one process at a time writes a pack, others wait.

    Args:
        folder: The pack to make.
        class_map: The classes whose ids the labels are.
        codec: How patches lie in the pack.
        fingerprint: What it is made from: an unfinished or finished pack with the same one is gone on with.
        overwrite: Whether a pack with another one may be replaced.

    Attributes:
        done: Patches that are there already; the caller goes on behind them.
        finished: The pack, if it is there already as a whole.

    Raises:
        DataError: The folder holds something else, or cannot be written to.
    """

    def __init__(
        self, folder: Path, class_map: ClassMap, codec: Codec, fingerprint: str, *, overwrite: bool = False
    ) -> None:
        self._folder, self._class_map, self._codec, self._fingerprint = folder, class_map, codec, fingerprint
        self._work = folder.with_name(f"{folder.name}.unfinished")
        self._lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        self._overwrite = overwrite
        self.finished: Pack | None = None
        self.done = 0
        self._resumed = 0
        self._shards: list[dict[str, Any]] = []
        self._parts: list[bytes] = []
        self._rows: list[list[int]] = []
        self._names: list[list[str]] = []
        self._offset = 0

    def __enter__(self) -> "PackWriter":
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def add(self, patch: Patch, image_HWC: NDArray[np.uint8], label_HW: NDArray[np.uint8] | None) -> None:
        """Adds the next patch.

        Args:
            patch: Its names.
            image_HWC: uint8 [H, W, 3].
            label_HW: Class ids, uint8 [H, W]; None for an unlabelled patch.

        Raises:
            DataError: The disk is full.
        """
        image = _encoded(image_HWC, self._codec)
        label = b"" if label_HW is None else _encoded_label(label_HW, self._codec)
        height, width = image_HWC.shape[:2]
        row = [0] * len(Column)
        row[Column.SHARD], row[Column.OFFSET] = len(self._shards), self._offset
        row[Column.IMAGE_BYTES], row[Column.LABEL_BYTES] = len(image), len(label)
        row[Column.HEIGHT], row[Column.WIDTH] = height, width
        row[Column.IMAGE_CRC], row[Column.LABEL_CRC] = zlib.crc32(image), zlib.crc32(label)
        self._parts += (image, label)
        self._rows.append(row)
        self._names.append([patch.folder, patch.image, patch.mask or "", patch.photo])
        self._offset += len(image) + len(label)
        self.done += 1
        if self._offset >= SHARD_BYTES:
            self._close_shard()

    def add_damaged(self, patch: Patch) -> None:
        """Adds the next patch, which cannot be read, without pixels."""
        row = [0] * len(Column)
        row[Column.SHARD], row[Column.OFFSET] = len(self._shards), self._offset
        self._rows.append(row)
        self._names.append([patch.folder, patch.image, patch.mask or "", patch.photo])
        self.done += 1

    def finish(self) -> Packed:
        """Gives the pack its name.

        Raises:
            DataError: It cannot be written, or an older one is in use.
        """
        if self.finished is None:
            if self._rows:
                self._close_shard()
            try:
                self._put_in_place()
            except OSError as error:
                raise self._unwritable(error) from error
            self.finished = Pack(self._folder)
        return Packed(self._folder, self.done, sum(int(shard["bytes"]) for shard in self._shards), self._resumed)

    def _begin(self) -> None:
        if is_pack(self._folder):
            pack = _unless_damaged(self._folder) if self._overwrite else Pack(self._folder)
            if pack is not None and pack.fingerprint == self._fingerprint:
                self.finished, self.done, self._resumed = pack, len(pack.patches), len(pack.patches)
                self._shards = json.loads((self._folder / HEAD).read_text(encoding="utf-8"))["shards"]
                return
            if not self._overwrite:
                raise DataError(
                    f"{self._folder} holds a pack of other or older patches; add --overwrite to replace it."
                )
        elif self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
            raise DataError(f"{self._folder} exists and is no pack; name another folder.")
        try:
            self._go_on()
        except OSError as error:
            raise self._unwritable(error) from error

    def _go_on(self) -> None:
        """Takes over the finished shards of an unfinished pack of the same patches; any other is removed."""
        told = self._work / _FINGERPRINT
        if self._work.is_dir() and not (told.is_file() and told.read_text(encoding="ascii") == self._fingerprint):
            shutil.rmtree(self._work)
        (self._work / HEAD).unlink(missing_ok=True)  # of a pack that was whole, but did not get its name
        self._work.mkdir(exist_ok=True)
        _write(told, self._fingerprint.encode("ascii"))
        while (record := self._work / f"shard-{len(self._shards):05d}.json").is_file():
            self._shards.append(json.loads(record.read_text(encoding="utf-8")))
        self.done = self._resumed = sum(int(shard["patches"]) for shard in self._shards)

    def _close_shard(self) -> None:
        """Writes the shard and, behind it, what says that it is whole."""
        number = len(self._shards)
        content = b"".join(self._parts)
        shard = {"patches": len(self._rows), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        names = io.StringIO()
        csv.writer(names, lineterminator="\n").writerows(self._names)
        try:
            _write(self._work / shard_name(number), content)
            _write(self._work / f"shard-{number:05d}.rows", np.array(self._rows, np.int64).tobytes())
            _write(self._work / f"shard-{number:05d}.csv", names.getvalue().encode("utf-8"))
            _write(self._work / f"shard-{number:05d}.json", json.dumps(shard).encode("ascii"))
        except OSError as error:
            raise self._unwritable(error) from error
        self._shards.append(shard)
        self._parts, self._rows, self._names, self._offset = [], [], [], 0

    def _put_in_place(self) -> None:
        numbers = range(len(self._shards))
        rows = b"".join((self._work / f"shard-{n:05d}.rows").read_bytes() for n in numbers)
        np.save(self._work / TABLE, np.frombuffer(rows, np.int64).reshape(-1, len(Column)))
        names = b"".join((self._work / f"shard-{n:05d}.csv").read_bytes() for n in numbers)
        _write(self._work / NAMES, b"folder,image,mask,photo\n" + names)
        head = {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "codec": self._codec.value,
            "classes": self._class_map.to_records(),
            "fingerprint": self._fingerprint,
            "patches": self.done,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "shards": self._shards,
        }
        _write(self._work / HEAD, (json.dumps(head, indent=1) + "\n").encode("utf-8"))
        old = self._folder.with_name(f".{self._folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():  # aside first: removing it takes long, and half a pack is none
            replacing.replace(self._folder, old)
        replacing.replace(self._work, self._folder)
        shutil.rmtree(old, ignore_errors=True)
        for number in numbers:  # only now: if the name could not be given, the same command goes on from these
            for kind in ("rows", "csv", "json"):
                (self._folder / f"shard-{number:05d}.{kind}").unlink()
        (self._folder / _FINGERPRINT).unlink()

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self._folder} cannot be written ({error.strerror or error}); free some room, close what uses it, or "
            "name another folder; what is packed is kept, and the same command goes on."
        )


Pixels = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]


def _read(index: PatchIndex, class_map: ClassMap, first: int) -> Iterator[tuple[Patch, Pixels | UnreadableError]]:
    """Patches in order with their pixels, read a few ahead by several threads."""

    def read(patch: Patch) -> tuple[Patch, Pixels | UnreadableError]:
        try:
            if patch.mask is None:
                return patch, (read_picture(index, patch), None)
            return patch, read_patch(index, patch, class_map)
        except UnreadableError as error:
            return patch, error

    yield from read_ahead(read, index.patches[first:], _THREADS, _ahead(index))


def _ahead(index: PatchIndex) -> int:
    """How many pictures may wait, by the size of the first that can be read."""
    for patch in index.patches:
        with suppress(UnreadableError):
            height, width = image_size(index.image_path(patch))
            return max(2 * _THREADS, min(_AHEAD, _WAITING_PIXELS // (height * width)))
    return _AHEAD


def _check_room(index: PatchIndex, folder: Path, codec: Codec, done: int) -> None:
    needed = estimated_bytes(index, codec) * (1 - done / len(index.patches))
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DataError(
            f"{folder} would need about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; free some, name a "
            "folder on another disk, or take `salakseg pack --codec jpeg`."
        )


def _encoded(image_HWC: NDArray[np.uint8], codec: Codec) -> bytes:
    if codec is Codec.RAW:
        return image_HWC.tobytes()
    content = io.BytesIO()
    if codec is Codec.WEBP:
        Image.fromarray(image_HWC).save(content, "WEBP", lossless=True, quality=0, method=0)
    else:
        Image.fromarray(image_HWC).save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return content.getvalue()


def _encoded_label(label_HW: NDArray[np.uint8], codec: Codec) -> bytes:
    if codec is Codec.RAW:
        return label_HW.tobytes()
    content = io.BytesIO()
    Image.fromarray(label_HW).save(content, "PNG", compress_level=1)
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Writes a file that appears under its name only when it is whole, also after a power cut."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    replacing.replace(temporary, path)


def packed_index(index: PatchIndex, class_map: ClassMap) -> tuple[PatchIndex, str | None]:
    """An index whose pixels are read from the pack in its root, if there is one of these very patches.

    Args:
        index: Of the files.
        class_map: Classes that labels are wanted in.

    Returns:
        The index, and a sentence on the pack that is used or not used; None where there is none.

    Raises:
        DataError: The pack is damaged.
    """
    folder = index.root / PACK
    if not is_pack(folder):
        return index, None
    pack = Pack(folder)
    if not pack.class_map.same_as(class_map):
        return (
            index,
            f"attention: {folder} holds labels of other classes and is not used; renew it with `salakseg pack`",
        )
    if fingerprint_of(index, class_map, pack.codec) != pack.fingerprint:  # colours of classes are in it, too
        return index, (
            f"attention: {folder} is of other or older patches and is not used; renew it with `salakseg pack "
            "--overwrite`"
        )
    return replace(index, pack=pack), f"patches are read from {folder}"


def _unless_damaged(folder: Path) -> Pack | None:
    try:
        return Pack(folder)
    except DataError:
        return None


def cache_patches(
    index: PatchIndex, class_map: ClassMap, say: Callable[[str], None], progress: Callable[[int, int], None]
) -> None:
    """Makes the pack in the root of an index, unless it is there and up to date; an older one is replaced.

    Args:
        index: Of the files.
        class_map: Classes to read masks by.
        say: Called with a line worth reading.
        progress: Called with patches packed and to pack.

    Raises:
        DataError: See `pack_patches`.
    """
    folder = index.root / PACK
    pack = _unless_damaged(folder) if is_pack(folder) else None
    codec = Codec.RAW if pack is None else pack.codec  # somebody chose it
    if pack is not None and packed_index(index, class_map)[0].pack is not None:
        return
    say(f"packing {len(index.patches):,} patches into {folder}, about {estimated_bytes(index, codec) / 1e9:.2f} GB")
    done = pack_patches(index, folder, class_map, codec, overwrite=True, progress=progress)
    say(f"packed: {done.bytes / 1e9:.2f} GB; runs on these patches read from there from now on")
