"""Paths in commands that a message tells to type."""

import os
import re
import shlex
from pathlib import Path


def as_argument(path: Path | str) -> str:
    """A path as one argument of a command line, quoted where a shell would cut it up, as at the blank of `My Maps`.

    Double quotes on Windows, which cmd and PowerShell both know, else what `shlex.quote` gives.
    """
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w.:/\\+=-]+", text) else f'"{text}"'
