"""``blocks.csv``: which block of ground a patch belongs to, where ground is divided and not photos.

A mosaic cut into patches would be a single photo, too large to be held out. Its patches are grouped by squares of
ground instead, and so are photos whose position is known. A block takes the place of the photo in everything that
follows: parts of a split, units of resampling. Patches between two parts are in blocks of their own, whose names end
in `GAP_ENDING`.
"""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path

from salakseg import replacing
from salakseg.errors import DataError

BLOCKS = "blocks.csv"
"""The file's name in the data root."""

COLUMNS = ("folder", "patch", "block")

GAP_ENDING = ".gap"
"""How the name of a block ends whose patches are used nowhere."""

Blocks = dict[str, dict[str, str]]
"""Block by folder and by the stem of the patch's file."""


def read_blocks(path: Path) -> Blocks:
    """Reads the blocks; lines of patches that are not there any more do no harm.

    Args:
        path: CSV file with the columns folder, patch (file name without its ending) and block, in any order.

    Raises:
        DataError: The file cannot be read, a column is missing, a line is damaged, or a patch is in two blocks.
    """
    blocks: Blocks = {}
    try:
        # csv.reader, not DictReader: half a million lines are read at the start of every command
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            folder_at, patch_at, block_at = _places_of_columns(next(lines, []), path)
            needed = max(folder_at, patch_at, block_at) + 1
            for row in lines:
                if not row:
                    continue
                if len(row) < needed or not row[patch_at] or not row[block_at]:
                    raise DataError(f"{path} line {lines.line_num}: folder, patch and block are wanted; {_ANEW}")
                patches = blocks.setdefault(row[folder_at], {})
                block = sys.intern(row[block_at])
                if patches.setdefault(row[patch_at], block) != block:
                    raise DataError(
                        f"{path} line {lines.line_num}: patch {row[patch_at]!r} is in two blocks, "
                        f"{patches[row[patch_at]]!r} and {block!r}; keep one of the lines."
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file ({error}); {_ANEW}") from error
    return blocks


def write_blocks(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes rows of folder, patch and block; the file appears only when whole.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        replacing.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_ANEW = "make it anew with: salakseg splits make ROOT --overwrite"


def _places_of_columns(header: list[str], path: Path) -> tuple[int, int, int]:
    names = [name.strip() for name in header]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}, it needs {', '.join(COLUMNS)}; {_ANEW}")
    folder, patch, block = (names.index(column) for column in COLUMNS)
    return folder, patch, block
