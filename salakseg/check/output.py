"""The files of a check: ``check.json`` and ``check.html``.

``check.json`` holds one object:

- ``schema``: 1; ``root``, ``class_mapping``, ``splits`` (null without a split): what was checked, by what;
- ``classes``: id, name and colour of each;
- ``patches``, ``labelled``, ``photos``: all of them; ``looked_at``, ``is_sample``: how many were read;
- ``errors``, ``warnings``, ``notes``: numbers of findings;
- ``findings``: errors first, each with ``kind`` (a key of `salakseg.check.finding.TITLES`), ``severity`` ("error",
  "warning" or "note"), ``count``, ``message``, ``remedy`` and ``examples``: ``path`` relative to the root (or the name
  of a class, photo or folder), ``detail`` in words, and ``other``, the file that it is compared with, or null;
- ``folders``: ``name`` ("" for the plain layout), ``patches``, ``labelled``, ``class_pixels`` by class name,
  ``pictures`` that could be read, their ``mean`` and ``std`` over the pixels (0 to 255, red green blue), ``lab`` (mean
  in CIELAB), ``shift_lab`` and ``shift_sd`` (from the labelled patches of the other folders, see
  `salakseg.check.shift`; nulls where there is nothing to compare with) and ``shifted``;
- ``parts``: ``name`` (a role of the split), ``photos``, ``patches``, ``class_pixels``.
"""

import json
import tempfile
from pathlib import Path

from salakseg.check.page import render_page
from salakseg.check.result import CheckResult
from salakseg.errors import ReportError
from salakseg.mapping.files import put_bytes

JSON = "check.json"
PAGE = "check.html"


def check_output_folder(folder: Path) -> None:
    """Finds out whether a check could be written, before the work for it is done; leaves nothing behind.

    Raises:
        ReportError: It could not.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        for name in (JSON, PAGE):
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")
    except OSError as error:
        raise _cannot_write(folder, error) from error


def write_check(result: CheckResult, folder: Path) -> tuple[Path, Path]:
    """Writes both files, replacing those of an older check.

    Args:
        result: What was found.
        folder: Where to; made if missing.

    Returns:
        The JSON file and the page.

    Raises:
        ReportError: The folder cannot be written to.
    """
    page = render_page(result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        put_bytes(folder / PAGE, page.encode("utf-8", errors="replace"))
        put_bytes(folder / JSON, (to_json(result) + "\n").encode("utf-8", errors="replace"))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder / JSON, folder / PAGE


def to_json(result: CheckResult, ensure_ascii: bool = False) -> str:
    """The text of ``check.json``; in ASCII for a stream of which nobody knows the encoding."""
    return json.dumps(result.to_dict(), indent=1, ensure_ascii=ensure_ascii, allow_nan=False)


def _cannot_write(folder: Path, error: OSError) -> ReportError:
    return ReportError(f"The check cannot be written to {folder} ({error}); name another folder with --out.")
