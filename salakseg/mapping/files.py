"""Files that a user names: refused early if they cannot be, and under their name only when they are whole."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from salakseg import replacing
from salakseg.errors import RasterError
from salakseg.replacing import FileInUseError


def check_output(path: Path, source: Path, overwrite: bool, what: str = "orthomosaic") -> None:
    """Refuses a file that cannot be written, is the source itself, or exists and is not to be replaced.

    Args:
        path: The file to write.
        source: The file that is read.
        overwrite: Whether a file may be replaced.
        what: What the source is called.

    Raises:
        RasterError: Any of these.
    """
    if path.is_dir():
        raise RasterError(f"{path} is a folder; name the file in it.")
    if not path.absolute().parent.is_dir():
        raise RasterError(f"{path} cannot be written: the folder {path.parent} does not exist; create it first.")
    check_source(path, source, what)
    if path.exists() and not overwrite:
        raise RasterError(f"{path} exists; name another file or replace it with --overwrite.")


def check_outputs(paths: Sequence[Path], sources: Sequence[Path], overwrite: bool, what: str) -> None:
    """`check_output` of several files that one command writes, none of which may be another one.

    Raises:
        RasterError: A file cannot be written, is a source, exists and is not to be replaced, or is named twice.
    """
    for path in paths:
        for source in sources:
            check_output(path, source, overwrite, what)
    refuse_twice(paths)


def refuse_twice(paths: Iterable[Path]) -> None:
    """Refuses files to write of which one would replace another.

    Raises:
        RasterError: Two have the same name.
    """
    names = Counter(Path(os.path.normcase(path.resolve())) for path in paths)
    twice = next((path for path, count in names.items() if count > 1), None)
    if twice is not None:
        raise RasterError(f"{twice} would be written twice; give the files different names.")


def check_source(path: Path, source: Path, what: str = "orthomosaic") -> None:
    """Refuses a file to write that is a file to read, by whatever name.

    Raises:
        RasterError: They are the same.
    """
    if path.exists() and source.exists() and os.path.samefile(source, path):
        raise RasterError(f"{path} is the {what} itself; give the new file another name.")


def write_whole(path: Path, text: str) -> None:
    """Writes a small text file in UTF-8 that appears under its name only when it is whole.

    Args:
        path: The file, which is replaced if it exists.
        text: Its content; line ends are kept as they are.

    Raises:
        RasterError: The file cannot be written.
    """
    try:
        put_bytes(path, text.encode("utf-8"))
    except FileInUseError:
        raise  # it has its own remedy
    except OSError as error:
        raise RasterError(
            f"{path} cannot be written ({error.strerror}); choose a folder that you may write to, with space left."
        ) from error


def put_bytes(path: Path, content: bytes) -> None:
    """Writes a file that appears under its name only when it is whole and on the disk.

    Raises:
        OSError: The file cannot be written.
    """
    hidden = path.with_name(f".{path.name}.part")
    try:
        with hidden.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        replacing.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def move_whole(whole: Path, path: Path) -> None:
    """Gives a finished file its name, in one step on any disk.

    Args:
        whole: The file; gone afterwards.
        path: Where to, in a folder that exists; replaced if it exists.

    Raises:
        RasterError: The file cannot be replaced.
    """
    hidden = path.with_name(f".{path.name}.part")
    try:
        try:
            replacing.replace(whole, path)
        except OSError as error:
            if error.errno != errno.EXDEV:  # renaming works within one disk only
                raise
            shutil.copyfile(whole, hidden)
            replacing.replace(hidden, path)
            whole.unlink()
    except OSError as error:
        raise RasterError(
            f"{path} cannot be replaced ({error.strerror}); close it in other programs, see that the disk has space, "
            "and try again."
        ) from error
    finally:
        hidden.unlink(missing_ok=True)
