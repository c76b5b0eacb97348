"""What there is to do: which sources are finished, which were begun, and what contradicts what is there."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from salakseg.classes import ClassMap
from salakseg.errors import DataError, SalaksegError
from salakseg.prepare.finding import SourceFile, find_sources
from salakseg.prepare.manifest import Manifest, Plain, differences
from salakseg.prepare.record import HIDDEN, Listing, StripRecord, files_of, read_record, record_path
from salakseg.prepare.request import Request
from salakseg.prepare.windows import Windows


@dataclass(frozen=True, slots=True)
class Task:
    """A source to cut.

    Attributes:
        file: Which.
        made_from: What its patches are made from and how.
        windows: Where they lie.
        strips: What was cut of it before, still to be compared with the files.
    """

    file: SourceFile
    made_from: Plain
    windows: Windows
    strips: tuple[StripRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do in a data root.

    Attributes:
        class_map: The classes.
        manifest: What the root was made from, with the settings of this run.
        tasks: The sources to cut.
        finished: The sources that are left alone.
        changed: Files of those that are gone or of another size than they were.
        failed: Why sources cannot be cut, one sentence each.
    """

    class_map: ClassMap
    manifest: Manifest
    tasks: tuple[Task, ...]
    finished: tuple[SourceFile, ...]
    changed: tuple[Path, ...]
    failed: tuple[str, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether all is there."""
        return not self.tasks and self.manifest.indexed and bool(self.finished)


def make_plan(request: Request) -> Plan:
    """Looks at sources and data root; writes nothing.

    Raises:
        SalaksegError: A source is missing or cannot be read and is the only one, or the root holds what contradicts
            the request.
    """
    files = find_sources(request.sources, request.folder)
    if request.root.exists() and not request.root.is_dir():
        raise DataError(f"{request.root} is a file; name a folder for the patches.")
    if (request.root / "images").is_dir():
        raise DataError(
            f"{request.root} has a folder images of its own, and training would read that alone, not the patches in "
            "folders beside it; choose another --out."
        )
    class_map = request.class_map()
    manifest = Manifest.read(request.root)
    _settle(manifest, request, class_map, files)
    if request.labels is None and manifest.settings["classes"] is not None:
        class_map = ClassMap.from_records(manifest.settings["classes"], str(manifest.path))
    if request.labels is not None:
        request.labels.check([file.path for file in files])
    listing = Listing(request.root)
    tasks, finished, changed, failed = [], [], [], []
    for file in files:
        _refuse_own_patches(file, request.root)
        try:
            with request.opened(file) as source:
                made_from, windows = request.made_from(source), request.windows(source.grid)
        except SalaksegError as error:
            if len(files) == 1:
                raise
            failed.append(str(error))
            continue
        before = manifest.sources.get(str(file))
        if before is not None and not request.overwrite:
            if (different := differences(before, made_from)) is not None:
                raise DataError(
                    f"{request.root} holds patches of {file} that were made from something else ({different}); make "
                    "them anew with --overwrite, or give this source another --folder."
                )
            finished.append(file)
            changed += listing.changed(file, finished_record(request.root, file)[1])
        else:
            tasks.append(Task(file, made_from, windows, _begun(request, file, made_from, listing, before is not None)))
    return Plan(class_map, manifest, tuple(tasks), tuple(finished), tuple(changed), tuple(failed))


def finished_record(root: Path, file: SourceFile) -> tuple[Plain, list[StripRecord]]:
    """What a finished source was made from, and its strips.

    Raises:
        DataError: Its record is gone or damaged.
    """
    path = record_path(root, file)
    try:
        return read_record(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is gone or damaged, without which nobody knows what {file} consists of; cut it anew with "
            "--overwrite."
        ) from error


def _settle(manifest: Manifest, request: Request, class_map: ClassMap, files: Sequence[SourceFile]) -> None:
    """Brings the request's settings and those of the root together."""
    settings = request.settings(class_map)
    if not manifest.sources and not _anything_begun(request.root):  # an earlier run failed before it had a patch
        manifest.settings = {}
    before = dict(manifest.settings)
    if settings["classes"] is None or before.get("classes") is None:  # unlabelled patches go with any classes
        settings["classes"] = before["classes"] = settings["classes"] or before.get("classes")
    if manifest.settings and (different := differences(before, settings)) is not None:
        if not request.overwrite:
            raise DataError(
                f"{request.root} holds patches that were cut otherwise ({different}); choose another --out, give the "
                "same as before, or cut all sources anew with --overwrite."
            )
        others = sorted(manifest.sources.keys() - {str(file) for file in files})
        if others:
            raise DataError(
                f"{request.root} also holds patches of {others[0]}{' and others' * (len(others) > 1)}, which were cut "
                f"otherwise ({different}); name these sources, too, or choose another --out."
            )
    manifest.settings = settings


def _anything_begun(root: Path) -> bool:
    for path in (root / HIDDEN).rglob("*.jsonl"):
        with suppress(OSError, ValueError):
            if read_record(path)[1]:
                return True
    return False


def _begun(
    request: Request, file: SourceFile, made_from: Plain, listing: Listing, finished: bool
) -> tuple[StripRecord, ...]:
    """What a run that was stopped has left of a source."""
    if request.overwrite:
        if finished:
            _refuse_strangers(request.root, file, listing)
        return ()
    path = record_path(request.root, file)
    if not path.exists():
        if listing.has_patches(file):
            raise DataError(
                f"{request.root / file.folder} holds patches of {file.name} that salakseg prepare knows nothing of; "
                "choose another --folder or --out, or replace them with --overwrite."
            )
        return ()
    try:
        before, strips = read_record(path)
    except (OSError, ValueError):  # stopped in its first moment
        return ()
    if strips and not request.resume:
        raise DataError(
            f"{request.root} holds a part of the patches of {file} from a run that was stopped; go on with --resume, "
            "or begin anew with --overwrite."
        )
    if strips and (different := differences(before, made_from)) is not None:
        raise DataError(
            f"{request.root}: the patches of {file} cannot be gone on with, because they were begun from something "
            f"else ({different}); repeat the command as it was, or begin anew with --overwrite and without --resume."
        )
    return tuple(strips)


def _refuse_strangers(root: Path, file: SourceFile, listing: Listing) -> None:
    """Refuses to cut a source anew beside files that it did not give, such as masks that were drawn by hand.

    They are somebody's work, and beside other pictures of the same names they would be wrong labels. Of a source that
    was not finished, or whose record is damaged, nobody can tell: there, all that is named after it is cut anew.
    """
    try:
        _, strips = read_record(record_path(root, file))
    except (OSError, ValueError):
        return
    known = {path for strip in strips for patch in strip.patches for path, _ in files_of(root, file, patch)}
    strangers = [path for path in listing.patches(file) if path not in known]
    if strangers:
        more = f" and {len(strangers) - 1:,} more files were" if len(strangers) > 1 else " was"
        raise DataError(
            f"{strangers[0]}{more} not written by salakseg prepare, and would be taken for a part of the patches that "
            f"are cut anew; move what is named after {file.name} elsewhere first."
        )


def _refuse_own_patches(file: SourceFile, root: Path) -> None:
    if file.path.resolve().is_relative_to(root.resolve()) and file.path.parent.name in ("images", "masks"):
        raise DataError(f"{file.path} lies among the patches of {root} itself; choose another --out.")
