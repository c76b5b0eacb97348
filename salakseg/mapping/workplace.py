"""The hidden folder beside a map that is being made: what it is made from, who works on it, its finished stripes."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from salakseg.errors import RasterError
from salakseg.mapping.files import put_bytes

_MANIFEST = "made_from.json"


def workplace_path(out: Path) -> Path:
    """The folder of an unfinished map; it lies beside the map because renaming works within one disk only."""
    return out.with_name(f".{out.name}.unfinished")


def is_unfinished(out: Path) -> bool:
    """Whether a part of a map is there that can be gone on with."""
    return _has_stripes(workplace_path(out))


@contextmanager
def workplace(out: Path, made_from: Mapping[str, object], *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Opens the folder of an unfinished map, or makes it. It is removed when all went well, or if nothing is done yet.

    Args:
        out: The map.
        made_from: All that decides the map's content, as values that JSON knows: finished stripes are taken over only
            from a run that was told the same.
        resume: Go on with what is there.
        overwrite: Throw away what is there, unless `resume` wants it.

    Yields:
        The folder.

    Raises:
        RasterError: An unfinished map is there and neither is wanted, it was made from something else, another process
            works on it, or the folder cannot be written.
    """
    folder = workplace_path(out)
    with _errors(out):
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0).acquire()
    keep = True
    try:
        with _errors(out):
            _prepare(folder, out, json.loads(json.dumps(made_from)), resume=resume, overwrite=overwrite)
        yield folder
        keep = False
    finally:
        keep = keep and _has_stripes(folder)
        if not keep:
            with suppress(OSError):  # what cannot be removed is in nobody's way
                _empty(folder)
        lock.lock.release()
        if not keep:
            with suppress(OSError):  # Windows insists on a free lock; another process may have taken it by now
                (folder / "lock").unlink(missing_ok=True)  # where the lock does not remove it itself, as on Windows
                folder.rmdir()


@contextmanager
def _errors(out: Path) -> Iterator[None]:
    try:
        yield
    except Timeout as error:
        raise RasterError(f"{out} is being made by another process; wait for it, or choose another name.") from error
    except OSError as error:
        raise RasterError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to, with space left."
        ) from error


def _has_stripes(folder: Path) -> bool:
    return any(folder.glob("stripe-*.json"))


def _empty(folder: Path) -> None:
    """Removes everything but the lock; the records first, without which nothing counts."""
    for old in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".json", path.name == _MANIFEST)):
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != "lock":
            old.unlink()


def _prepare(folder: Path, out: Path, made_from: dict[str, object], *, resume: bool, overwrite: bool) -> None:
    if _has_stripes(folder):
        if not (resume or overwrite):
            raise RasterError(
                f"{folder} holds a part of this map from a run that was stopped; go on with --resume, "
                "or begin anew with --overwrite."
            )
        if resume:
            _check_same(folder / _MANIFEST, out, made_from)
            return
    _empty(folder)
    put_bytes(folder / _MANIFEST, json.dumps(made_from, indent=1).encode())


def _check_same(manifest: Path, out: Path, now: dict[str, object]) -> None:
    try:
        before: dict[str, object] = dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RasterError(
            f"{out} cannot be resumed, because {manifest} is damaged; begin anew with --overwrite and without --resume."
        ) from error
    different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if different:
        told = "; ".join(f"{key} was {_short(before.get(key))}, is {_short(now.get(key))}" for key in different[:3])
        raise RasterError(
            f"{out} cannot be resumed, because it was begun from something else ({told}); "
            f"repeat the command as it was, or begin anew with --overwrite and without --resume."
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
