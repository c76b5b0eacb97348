"""From what was chosen to files: table, contact sheets, and what `train` or `prepare` go on from."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.data.splits import Split
from salakseg.errors import DataError
from salakseg.network.torch_engine import TorchEngine
from salakseg.suggest.candidates import CandidateCell, cells_of
from salakseg.suggest.choose import Chosen, Wish, precision_for
from salakseg.suggest.mosaics import MosaicSource
from salakseg.suggest.output import AREAS, LIST, SPLIT, TABLE, rows_of, write_areas, write_patch_lists, write_table
from salakseg.suggest.sheet import ON_A_SHEET, show_candidate, write_sheet
from salakseg.suggest.sources import PatchSource, Source
from salakseg.suggest.store import CellStore


@dataclass(frozen=True, slots=True)
class Files:
    """What was written.

    Attributes:
        table: The suggestions with all figures, CSV.
        sheets: Contact sheets, PNG.
        pictures: Which pictures of the data root to label; None for orthomosaics.
        split: The split with the suggested photos in the labelled part; None for orthomosaics, or where there was none.
        areas: GeoPackage of the areas; None for patches.
    """

    table: Path
    sheets: tuple[Path, ...]
    pictures: Path | None = None
    split: Path | None = None
    areas: Path | None = None

    @property
    def all(self) -> list[Path]:
        """Every file."""
        return [path for path in (self.table, self.pictures, self.split, self.areas, *self.sheets) if path is not None]


def open_folder(folder: Path, overwrite: bool) -> None:
    """Makes the folder for the results, before anything is looked at in vain.

    Args:
        folder: The folder.
        overwrite: Whether files of earlier suggestions may be replaced.

    Raises:
        DataError: It cannot be written, or holds such files.
    """
    there = [folder / name for name in (TABLE, LIST, SPLIT, AREAS) if (folder / name).exists()]
    if there and not overwrite:
        raise DataError(f"{there[0]} exists; name another folder with --out or replace it with --overwrite.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}); name another folder with --out.") from error


def deliver(
    folder: Path,
    chosen: Chosen,
    wish: Wish,
    sources: Sequence[Source],
    stores: Sequence[CellStore],
    engine: TorchEngine,
    split: Split | None = None,
) -> tuple[list[dict[str, Any]], Files]:
    """Writes everything; the table comes last, so that where it is the rest is there too.

    Args:
        folder: It is there, see `open_folder`. Files of earlier suggestions are replaced or removed.
        chosen: What was chosen.
        wish: What was wanted.
        sources: One of patches, or orthomosaics.
        stores: Their cells.
        engine: The network, which looks once more at what is drawn.
        split: The split of the patches, if there is one.

    Returns:
        The rows of the table, and the files.

    Raises:
        DataError, RasterError: A file cannot be written.
    """
    _remove([folder / TABLE])
    rows = rows_of(chosen, sources, engine.class_map, wish.unit)
    key_M4 = chosen.found.key_M4[list(chosen.places)]
    cells = _cells(sources, stores, wish, key_M4)
    sheets = _sheets(folder, rows, key_M4, cells, sources, engine)
    pictures = new_split = areas = None
    first = sources[0]
    if isinstance(first, PatchSource):
        numbers = [number for of_one in cells for number in dict.fromkeys(cell.item for cell in of_one)]
        photos = list(dict.fromkeys(first.patches[number].photo_key for number in numbers))  # as the split has them
        pictures, new_split = write_patch_lists(folder, first, numbers, photos, split)
    else:
        mosaics = [source for source in sources if isinstance(source, MosaicSource)]
        side = wish.side if wish.unit == "area" else 1
        squares = [
            (int(key[0]), of_one[0].row // side, of_one[0].col // side)
            for key, of_one in zip(key_M4, cells, strict=True)
        ]
        areas = folder / AREAS
        write_areas(areas, mosaics, side, squares, rows)
    files = Files(folder / TABLE, tuple(sheets), pictures, new_split, areas)
    earlier = (*folder.glob("sheet-*.png"), *(folder / name for name in (LIST, SPLIT, AREAS)))
    _remove([path for path in earlier if path not in files.all])
    write_table(folder / TABLE, rows)
    return rows, files


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path} cannot be removed ({error.strerror}); close it in other programs.") from error


def _cells(
    sources: Sequence[Source], stores: Sequence[CellStore], wish: Wish, key_M4: NDArray[np.int64]
) -> list[list[CandidateCell]]:
    """The cells of each suggestion."""
    found: dict[tuple[int, ...], list[CandidateCell]] = {}
    for number, (source, store) in enumerate(zip(sources, stores, strict=True)):
        mine = key_M4[key_M4[:, 0] == number]
        if len(mine):
            found |= cells_of(number, source, store, wish.unit, wish.side, mine)
    return [found[tuple(key)] for key in key_M4.tolist()]


def _sheets(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    key_M4: NDArray[np.int64],
    cells: Sequence[Sequence[CandidateCell]],
    sources: Sequence[Source],
    engine: TorchEngine,
) -> list[Path]:
    paths: list[Path] = []
    for start in range(0, len(rows), ON_A_SHEET):
        some = slice(start, start + ON_A_SHEET)
        shown = [
            show_candidate(sources[key[0]], of_one, engine, precision_for(engine))
            for key, of_one in zip(key_M4[some], cells[some], strict=True)
        ]
        path = folder / f"sheet-{len(paths) + 1}.png"
        title = f"What to label next, by {engine.name}: {start + 1} to {start + len(shown)} of {len(rows)}"
        write_sheet(path, shown, rows[some], engine.class_map, title)
        paths.append(path)
    return paths
