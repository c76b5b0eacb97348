"""Which file of a folder labels a source."""

import os
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

from salakseg.errors import DataError

POLYGON_SUFFIXES = (".gpkg", ".shp", ".geojson", ".fgb")
RASTER_SUFFIXES = (".png", ".tif", ".tiff", ".vrt")
LABEL_SUFFIXES = (*POLYGON_SUFFIXES, *RASTER_SUFFIXES, ".json")

RESERVED = ("images", "masks")
"""Folders that mean something else in a data root, and say nothing of what lies in them."""

_LOSSY = (".jpg", ".jpeg")
_SETTLED_NS = 2 * 10**9
"""A folder that changed just now may change again without another time of change, which some disks keep coarsely."""

_ENDINGS = ("", "_mask", "_masks", "_label", "_labels")


def find_label_file(folder: Path, source: Path, suffixes: tuple[str, ...] = LABEL_SUFFIXES) -> Path | None:
    """The file of a folder that belongs to a source.

    It has the source's stem, which ``_mask`` or ``_label`` may follow, and lies in the folder itself or in a subfolder
    that is named as the source's own folder (as the one above ``images``); the subfolder goes first, because cameras
    use the same names again.

    Args:
        folder: The folder with labels; it may be that of the sources.
        source: The source.
        suffixes: Kinds of files that count.

    Returns:
        The file; None if there is none.

    Raises:
        DataError: Several files belong to the source, or a mask is a JPEG picture.
    """
    for place in (folder / own_folder(source), folder):
        found = _belonging(place, source, suffixes) if place.is_dir() else []
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{place} holds several labels of {source.name}: {names}; keep one of them.")
        if found:
            return found[0]
    return None


def own_folder(source: Path) -> str:
    """The name of the folder that a source lies in, or of the one above where that is only called ``images``."""
    parents = Path(os.path.normpath(source.absolute())).parents
    return next((parent.name for parent in parents if parent.name and parent.name.casefold() not in RESERVED), "")


def is_named_as(file: Path, source: Path) -> bool:
    """Whether a label file has the name of a source, which ``_mask`` or ``_label`` may follow."""
    return _alike(file.stem) in {_alike(source.stem + ending) for ending in _ENDINGS}


def refuse_of_another(file: Path, source: Path) -> None:
    """Refuses labels in pixels that nothing but their name could tie to a source.

    Raises:
        DataError: They are named otherwise.
    """
    if not is_named_as(file, source):
        raise DataError(
            f"{file} does not say which picture it labels: for {source.name} name it {source.stem}{file.suffix}, or "
            "put the labels of several pictures into a folder and name that."
        )


def unused_label_files(folder: Path, sources: Iterable[Path]) -> list[Path]:
    """The files of a folder that look like labels and belong to no source, for a word of warning.

    Args:
        folder: The folder with labels.
        sources: All sources, none of which counts as a label.
    """
    everything = list(sources)
    used = {path for path in (find_label_file(folder, source) for source in everything) if path is not None}
    pictures = {os.path.realpath(source) for source in everything}
    return [
        path
        for path in _visible(folder)
        if path.suffix.casefold() in LABEL_SUFFIXES and path not in used and os.path.realpath(path) not in pictures
    ]


def _belonging(place: Path, source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    now, changed = time.time_ns(), place.stat().st_mtime_ns
    files = _by_stem(place, changed if now - changed > _SETTLED_NS else now)
    named = [
        path for ending in _ENDINGS for path in files.get(_alike(source.stem + ending), []) if not _same(path, source)
    ]
    found = sorted(path for path in named if path.suffix.casefold() in suffixes)
    lossy = [path for path in named if path.suffix.casefold() in _LOSSY]
    if lossy and not found and not _same(place, source.parent):
        raise DataError(f"{lossy[0]} is a JPEG mask, whose colours are blurred; save masks as PNG.")
    return found


@lru_cache(maxsize=64)
def _by_stem(folder: Path, _stamp: int) -> dict[str, list[Path]]:
    """The files of a folder by stem; kept, because every photo asks for them."""
    files: dict[str, list[Path]] = {}
    for path in _visible(folder):
        files.setdefault(_alike(path.stem), []).append(path)
    return files


def _alike(stem: str) -> str:
    return normalize("NFC", stem).casefold()


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _visible(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}); see that you may read it.") from error
    return [folder / name for name in sorted(names)]
