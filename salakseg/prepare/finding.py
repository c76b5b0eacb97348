"""Which files are cut, and what their patches are called.

A source's patches are ``<folder>/images/<name>_patch_<row>_<col>.png``. The folder is that of the source itself, the
name is the file's without its ending, both made safe for every file system: a split, a report and a check speak of
folders and sources by these names.
"""

import glob
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from salakseg.data.patches import natural_key
from salakseg.errors import DataError
from salakseg.mapping.opening import without_place
from salakseg.prepare.labelling.label_files import RESERVED, own_folder
from salakseg.prepare.manifest import FILE_NAME

PHOTOS = (".jpg", ".jpeg", ".png")
RASTERS = (".tif", ".tiff", ".vrt")
"""Ends of the names that are looked for in a folder. Other rasters can be named one by one."""

_JPEG = (".jpg", ".jpeg")
_MASK_ENDS = ("_mask", "_masks", "_label", "_labels")

SPLIT_PICTURE = "splits.png"
"""The picture of the parts, in a data root."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that patches are cut from.

    Attributes:
        path: The file.
        folder: Folder of its patches below the data root.
        name: What its patches' names begin with.
    """

    path: Path
    folder: str
    name: str

    @property
    def key(self) -> str:
        """What no two sources of a data root share, on a file system that knows no capitals either."""
        return f"{self.folder}/{self.name}".casefold()

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


def find_sources(paths: Sequence[Path], folder: str | None = None) -> list[SourceFile]:
    """Finds the files to cut.

    Args:
        paths: Files, folders, and names with * and ?. Of a folder, the photos and rasters that lie directly in it, or
            in its ``images``; maps of salakseg, the parts of a VRT, JPEGs beside an orthomosaic of their name and
            masks are left out. A mask is known by lying beside its picture, with the same name, or with ``_mask`` or
            ``_label`` behind it.
        folder: One folder for all patches. By default the patches of a source are in a folder with the name of the
            one where the source lies (where that is called ``images``, of the one above).

    Returns:
        The sources, each once, in the order of `paths`, those of a folder in natural order.

    Raises:
        DataError: Nothing is there, a name cannot be used, or two sources would give patches of one name.
    """
    if folder is not None and (folder != safe_name(folder) or folder.casefold() in RESERVED):
        raise DataError(f"--folder {folder} is no name for a folder of patches; give one name, such as site-1.")
    found: dict[str, SourceFile] = {}
    for path in (file for given in paths for file in _expand(given)):
        _refuse_bytes(path)
        source = SourceFile(path, folder or _folder_of(path), safe_name(path.stem))
        other = found.setdefault(source.key, source)
        if other.path.resolve() != path.resolve():
            raise DataError(
                f"{other.path} and {path} would both give patches named {source}; leave one out, give each a --folder "
                "of its own in two commands, or rename one."
            )
    return list(found.values())


def safe_name(text: str) -> str:
    """A name that every file system takes, and that no listing hides; most names stay as they are.

    Characters that Windows forbids and control characters become ``_``, and so do a dot in front and dots and spaces at
    the end; what Windows takes for a device, such as ``con`` or ``aux.1``, gets one in front. Letters of any script
    stay; those that can be written in two ways are composed.
    """
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f]', "_", unicodedata.normalize("NFC", text))
    text = re.sub(r"[. ]+$", lambda end: "_" * len(end[0]), text)
    text = re.sub(r"^[. ]", "_", text) or "_"
    return f"_{text}" if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", text, re.IGNORECASE) else text


def _refuse_bytes(path: Path) -> None:
    """Refuses names that are no text, as unpacking an old archive can give: neither GDAL nor a record takes them."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path.absolute()).decode("utf-8", "replace")
        raise DataError(f"{shown} has a name that is not UTF-8; rename the file or the folder.") from error


def _folder_of(path: Path) -> str:
    return safe_name(own_folder(path) or "source")


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):  # Windows leaves it to the programs
        files = sorted((Path(name) for name in glob.glob(str(path), recursive=True)), key=_natural)
        if files := [file for file in files if file.is_file()]:
            return files
        raise DataError(f"{path} fits no file; check the folder and the names' ending.")
    raise DataError(f"{path} does not exist; check the name of the orthomosaic, photo or folder.")


def _in_folder(folder: Path) -> list[Path]:
    files = _pictures(folder)
    if not files and (folder / "images").is_dir():
        files = _pictures(folder / "images")
    if not files:
        raise DataError(
            f"{folder} holds no orthomosaic and no photo ({', '.join((*RASTERS, *PHOTOS))}); name the files themselves."
        )
    return files


def _pictures(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        files = [Path(entry.path) for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    files = sorted((file for file in files if file.suffix.lower() in (*RASTERS, *PHOTOS)), key=_natural)
    for file in files:
        _refuse_bytes(file)  # GDAL would be the first to stumble
    looks = _quick_looks(files)
    left_out = {file.resolve() for file in looks} | _masks([file for file in files if file not in looks])
    if (folder / FILE_NAME).is_file():  # patches of this folder are in it as well, and pictures of their split
        left_out.add((folder / SPLIT_PICTURE).resolve())
    for file in files:
        if file.suffix.lower() in RASTERS:
            left_out |= _not_to_cut(file)
    return [file for file in files if file.resolve() not in left_out]


def _quick_looks(files: Sequence[Path]) -> set[Path]:
    """JPEGs that say not where they lie, beside an orthomosaic of the same name that does: it is to be cut."""
    rasters = {file.stem.casefold(): file for file in files if file.suffix.lower() in RASTERS}
    looks = set()
    for file in files:
        raster = rasters.get(file.stem.casefold())
        if raster is None or file.suffix.lower() not in _JPEG:
            continue
        (_, placed), (bands, raster_placed) = _bands_and_place(file), _bands_and_place(raster)
        if raster_placed and bands >= 3 and not placed:
            looks.add(file)
    return looks


def _bands_and_place(picture: Path) -> tuple[int, bool]:
    """How many bands a picture has, and whether it says where it lies; none and no where it cannot be opened."""
    try:
        with without_place(), rasterio.Env(), rasterio.open(picture) as dataset:
            return dataset.count, not dataset.transform.is_identity
    except RasterioError:
        return 0, False


def _masks(files: Sequence[Path]) -> set[Path]:
    """Which of the pictures are masks of others: with the name of a JPEG, or one that says so of any other."""
    stems = {file.stem.casefold() for file in files}
    photos = {file.stem.casefold() for file in files if file.suffix.lower() in _JPEG}
    return {
        file.resolve()
        for file in files
        if file.suffix.lower() not in _JPEG
        and (file.stem.casefold() in photos or any(_of_mask(file, end) in stems for end in _MASK_ENDS))
    }


def _of_mask(file: Path, end: str) -> str | None:
    """What a mask with this ending would be the mask of."""
    stem = file.stem.casefold()
    return stem.removesuffix(end) if stem.endswith(end) else None


def _not_to_cut(raster: Path) -> set[Path]:
    """A map of salakseg itself, and the files that a VRT joins."""
    try:
        with without_place(), rasterio.Env(), rasterio.open(raster) as dataset:
            if dataset.tags().get("TIFFTAG_SOFTWARE", "").startswith("salakseg"):
                return {raster.resolve()}
            if raster.suffix.lower() == ".vrt":
                return {Path(file).resolve() for file in dataset.files} - {raster.resolve()}
    except RasterioError:
        pass  # opening it says what is wrong with it
    return set()


def _natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    return natural_key(str(path))
