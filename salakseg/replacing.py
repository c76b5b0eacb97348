"""Where files can be made, and giving a finished one its name, also on Windows, where none is replaced that is open."""

import errno
import os
import tempfile
import time
from pathlib import Path

from salakseg.errors import SalaksegError

ATTEMPTS = 6
"""How often a name is tried: a virus scanner or an indexer lets go within a second or two."""

WAIT_S = 0.5
"""Seconds between two attempts."""


class FileInUseError(SalaksegError, PermissionError):
    """A file that another program keeps open, or that must not be replaced; whoever expects an OSError gets one."""

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be replaced ({self.strerror}); close it in other programs, see that its "
            "folder may be written to, and run the command again."
        )


def may_write(folder: Path) -> bool:
    """Whether a file can be made in a folder; tried, since Windows calls every folder writable."""
    try:
        tempfile.TemporaryDirectory(prefix=".salakseg-", dir=folder).cleanup()
    except OSError:
        return False
    return True


def replace(old: Path | str, new: Path | str) -> None:
    """Gives a file or folder another name, in place of a file of that name.

    A `PermissionError` is waited out a few times: Windows raises it while another process has the file open.

    Raises:
        FileInUseError: The file stayed in use, or must not be replaced.
        OSError: It cannot be done for another reason.
    """
    for attempt in range(ATTEMPTS):
        try:
            os.replace(old, new)
            return
        except PermissionError as error:
            if attempt == ATTEMPTS - 1:
                raise FileInUseError(errno.EACCES, error.strerror or "permission denied", str(new)) from error
            time.sleep(WAIT_S)
