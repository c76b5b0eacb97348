"""From imagery and labels to a folder of patches: the whole way. Axes: K classes."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.errors import DataError, SalaksegError
from salakseg.mapping.files import put_bytes
from salakseg.mapping.raster import gdal_settings
from salakseg.prepare.cut import Cutter, cut
from salakseg.prepare.finding import SourceFile
from salakseg.prepare.index import FILE_NAME as INDEX
from salakseg.prepare.index import CutSource, write_index
from salakseg.prepare.manifest import Manifest, Plain, differences
from salakseg.prepare.plan import Plan, Task, finished_record, make_plan
from salakseg.prepare.record import HIDDEN, Listing, Record, intact, read_record, record_path
from salakseg.prepare.request import CLASS_MAPPING, Request
from salakseg.prepare.sources import Source

Progress = Callable[[int, int], None]
"""Takes the patches that are dealt with, and all of them."""

_SAFE_EVERY = 30.0  # seconds after which a finished source is forced to the disk and noted as finished


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a request.

    Attributes:
        root: The data root.
        class_map: Its classes, K.
        cut: The sources that were cut.
        finished: How many were there already and were left alone.
        changed: Files of those that are gone or not what they were.
        patches: Patches of all sources that the root was made from.
        labelled: How many of them have a mask.
        class_px_K: Labelled pixels of them by class, int64 [K].
        indexed: Whether any of them has a place, and the root an index.
        notes: What the user should know, one sentence each.
        failed: Why sources could not be cut, one sentence each.
    """

    root: Path
    class_map: ClassMap
    cut: tuple[CutSource, ...]
    finished: int
    changed: tuple[Path, ...]
    patches: int
    labelled: int
    class_px_K: NDArray[np.int64]
    indexed: bool
    notes: tuple[str, ...]
    failed: tuple[str, ...]


def prepare(request: Request, progress: Progress | None = None) -> Summary:
    """Cuts sources into patches.

    Args:
        request: What is asked for.
        progress: Called while it goes on.

    Raises:
        SalaksegError: Something contradicts what is there, or a file cannot be read or written. Of several sources
            that cannot be read the others are cut all the same, see `Summary.failed`, unless what is there has another
            size or other classes.
    """
    with gdal_settings(), _errors(request.root):
        plan = make_plan(request)
        if plan.nothing_to_do:
            return _summary(request.root, plan, [], [])
        with _alone_in(request.root):
            return _carry_out(request, make_plan(request), progress or (lambda done, total: None))


def _carry_out(request: Request, plan: Plan, progress: Progress) -> Summary:
    manifest = plan.manifest
    if request.overwrite and _were_cut_otherwise(request.root, manifest):
        if plan.failed:  # its patches would stay beside those of another size
            raise DataError(f"{plan.failed[0]} The others were cut otherwise before, so nothing is cut without it.")
        listing = Listing(request.root)
        for task in plan.tasks:  # they must not stay beside the new patches, whatever becomes of these
            _remove_patches(listing, task.file, record_path(request.root, task.file))
    _write_classes(request, plan.class_map)
    before = {task.file: manifest.sources.pop(str(task.file), None) for task in plan.tasks}
    manifest.indexed = False
    manifest.write()
    total, done, safe_at = sum(len(task.windows) for task in plan.tasks), 0, time.monotonic()

    def count(patches: int) -> None:
        nonlocal done
        done += patches
        progress(done, total)

    cut_now, notes, failed, listing = [], [], [], Listing(request.root)
    any_labels = False
    try:
        for task in plan.tasks:
            try:
                told, has_labels = _cut_task(request, plan.class_map, task, listing, count)
            except SalaksegError as error:
                if len(plan.tasks) + len(plan.finished) + len(plan.failed) == 1:
                    raise
                failed.append(str(error))
                made_from = before[task.file]
                if made_from is not None and _is_kept(request.root, task.file, made_from):
                    manifest.sources[str(task.file)] = made_from
                continue
            notes += told
            any_labels |= has_labels
            manifest.sources[str(task.file)] = task.made_from
            cut_now.append(task.file)
            if time.monotonic() - safe_at > _SAFE_EVERY:
                _force_to_disk()
                manifest.write()
                safe_at = time.monotonic()
    finally:
        _force_to_disk()
        with suppress(OSError):  # whatever stopped the run says more; what is not noted is compared when it goes on
            manifest.write()
    everything = _all_sources(request.root, manifest, plan.class_map)
    write_index(request.root, everything, plan.class_map)
    manifest.indexed = True
    manifest.write()
    if cut_now and request.labels is not None and not any_labels:
        notes.append(
            "the labels are of none of the sources that were cut; do they, or what --reviewed names, lie elsewhere, or "
            "bear other names?"
        )
    return _summary(request.root, plan, cut_now, notes, everything, failed)


def _were_cut_otherwise(root: Path, manifest: Manifest) -> bool:
    """Whether patches that are there have another size or other classes; unlabelled ones go with any classes."""
    before = dict(Manifest.read(root).settings)
    if before.get("classes") is None:
        before["classes"] = manifest.settings["classes"]
    return len(before) > 1 and differences(before, manifest.settings) is not None


def _cut_task(
    request: Request, class_map: ClassMap, task: Task, listing: Listing, count: Callable[[int], None]
) -> tuple[list[str], bool]:
    """Cuts a source; `listing` is of the root before the first was cut.

    Returns:
        What the user should know, and whether there are labels for the source.
    """
    path = record_path(request.root, task.file)
    strips = intact(request.root, task.file, task.strips)
    if task.strips:
        _remove_parts(request.root, task.file)
    count(sum(record.strip.stop - record.strip.first for record in strips))
    with request.opened(task.file) as source:
        labels = None if request.labels is None else request.labels.open(source.grid, task.file.path)
        try:
            if request.overwrite:  # not before source and labels can be read, where the older ones fit the new
                _remove_patches(listing, task.file, path)
            with Record(path, task.made_from, strips) as record:
                cutter = Cutter(request.root, task.file, source, labels, class_map, task.windows, request.min_valid)
                cut(cutter, record, count)
                record.finish()
        finally:
            if labels is not None:
                labels.close()
        _refuse_changed(task, source)
        notes = list(source.notes)
    patches = [patch for strip in record.strips.values() for patch in strip.patches]
    if not patches:
        notes.append(
            f"{task.file.path} gives no patch: none is valid to {100 * request.min_valid:.0f} % (--min-valid)."
        )
    elif labels is not None and all(patch.mask is None for patch in patches):
        notes.append(f"{task.file.path}: nothing of it is labelled, though there are labels; do they lie elsewhere?")
        with suppress(OSError):  # that of another source may be in it
            (request.root / task.file.folder / "masks").rmdir()
    return notes, labels is not None


def _refuse_changed(task: Task, source: Source) -> None:
    """Refuses to call a source finished that is no longer what its first patches were cut from."""
    try:
        different = differences(task.made_from["files"], source.state())
    except OSError as error:
        different = error.strerror
    if different is not None:
        raise DataError(f"{task.file.path} has changed while it was cut ({different}); cut it anew with --overwrite.")


def _remove_patches(listing: Listing, file: SourceFile, record: Path) -> None:
    """Removes what is named as patches of a source: one that stayed would be taken for a part of the new ones."""
    for path in listing.patches(file):
        path.unlink(missing_ok=True)
    record.unlink(missing_ok=True)


def _is_kept(root: Path, file: SourceFile, before: Plain) -> bool:
    """Whether the patches are still there that a source gave before."""
    try:
        return read_record(record_path(root, file))[0] == before
    except (OSError, ValueError):
        return False


def _remove_parts(root: Path, file: SourceFile) -> None:
    """Removes what a run that was killed had half written."""
    for folder in (root / file.folder / kind for kind in ("images", "masks")):
        if folder.is_dir():
            for name in os.listdir(folder):
                if name.startswith(f".{file.name}_patch_") and name.endswith(".part"):
                    (folder / name).unlink(missing_ok=True)


def _write_classes(request: Request, class_map: ClassMap) -> None:
    """Puts the class mapping into the data root, where training looks for it."""
    target = request.root / CLASS_MAPPING
    if request.labels is None and request.class_mapping is None:
        return
    if target.is_file():
        if ClassMap.from_csv(target).to_records() == class_map.to_records():
            return
        if not request.overwrite:
            raise DataError(
                f"{target} names other classes than {class_map.source}; choose another --out, or replace it with "
                "--overwrite."
            )
    if request.class_mapping is not None:
        put_bytes(target, request.class_mapping.read_bytes())
        return
    rows = (f"{land_class.name},{' '.join(map(str, land_class.color))}" for land_class in class_map.classes)
    put_bytes(target, "\n".join(["class_name,class_color", *rows, ""]).encode())


def _all_sources(root: Path, manifest: Manifest, class_map: ClassMap) -> list[CutSource]:
    found = []
    for key in sorted(manifest.sources):
        folder, _, name = key.partition("/")
        file = SourceFile(Path(name), folder, name)
        made_from, strips = finished_record(root, file)
        try:
            found.append(CutSource.of(file, made_from, strips, len(class_map)))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"{record_path(root, file)} is damaged; cut {file} anew with --overwrite.") from error
    return found


def _summary(
    root: Path,
    plan: Plan,
    cut_now: Sequence[SourceFile],
    notes: Sequence[str],
    everything: Sequence[CutSource] | None = None,
    failed: Sequence[str] = (),
) -> Summary:
    if everything is None:
        everything = _all_sources(root, plan.manifest, plan.class_map)
    names = {str(file) for file in cut_now}
    return Summary(
        root=root,
        class_map=plan.class_map,
        cut=tuple(source for source in everything if str(source.file) in names),
        finished=len(plan.finished),
        changed=plan.changed,
        patches=sum(len(source.row_N) for source in everything),
        labelled=sum(int(source.mask_N.sum()) for source in everything),
        class_px_K=sum((source.class_NK.sum(axis=0) for source in everything), np.zeros(len(plan.class_map), np.int64)),
        indexed=(root / INDEX).exists(),
        notes=tuple(notes),
        failed=(*plan.failed, *failed),
    )


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Makes the data root, and keeps other runs out of it."""
    hidden = root / HIDDEN
    hidden.mkdir(parents=True, exist_ok=True)
    lock = FileLock(hidden / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError(f"{root} is being written by another process; wait for it, or choose another --out.") from error
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            (hidden / "lock").unlink()


@contextmanager
def _errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be written ({error.strerror or error}); choose a folder that you may "
            "write to, with space left. What is cut is kept: repeat the command with --resume."
        ) from error


def _force_to_disk() -> None:
    if hasattr(os, "sync"):  # Windows has none, and writes within seconds; the record finds out what a power cut took
        os.sync()
