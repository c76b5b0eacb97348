"""Labels in pixels that would be those of two sources: cameras use the same names again, flight after flight."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import pyogrio
import rasterio
from pyogrio.errors import DataSourceError
from rasterio.errors import RasterioError

from salakseg.classes import ClassMap
from salakseg.errors import DataError
from salakseg.mapping.opening import without_place
from salakseg.prepare.labelling.coco import find_entry
from salakseg.prepare.labelling.json_files import json_kind, stem_of
from salakseg.prepare.labelling.label_files import POLYGON_SUFFIXES, find_label_file


def refuse_shared(path: Path, sources: Sequence[Path], class_map: ClassMap) -> None:
    """Refuses a mask, or an entry of a file, that two sources of one name would both be labelled by.

    What lies at a place on the ground may label any number of sources.

    Args:
        path: Labels: a file, or a folder with a file for each source.
        sources: All sources that are cut.
        class_map: The classes.

    Raises:
        DataError: There is one, or the labels cannot be read.
    """
    alike: dict[str, list[Path]] = {}
    for source in sources:
        alike.setdefault(stem_of(source.name), []).append(source)
    owners: dict[Hashable, Path] = {}
    for source in (source for group in alike.values() if len(group) > 1 for source in group):
        found = _label_of(path, source, class_map)
        if found is None:
            continue
        other = owners.setdefault(found, source)
        if other.resolve() != source.resolve():
            raise DataError(
                f"{found[0]} would label both {other} and {source}, and shows one of them at most; sort the labels "
                "into folders that are named as those of the sources, or cut the sources by commands of their own."
            )


def _label_of(path: Path, source: Path, class_map: ClassMap) -> tuple[Path, int] | None:
    """What labels a source by its name alone: a file, or a file and the number of its entry."""
    file = find_label_file(path, source) if path.is_dir() else path
    if file is None or not file.is_file():
        return None
    if file.suffix.casefold() in POLYGON_SUFFIXES:
        return None if _has_a_system(file) else (file, 0)
    if file.suffix.casefold() == ".json":
        kind = json_kind(file)
        if kind == "COCO":
            entry = find_entry(file, source, class_map)
            return None if entry is None else (file, id(entry))
        return (file, 0) if kind == "LabelMe" else None
    return None if _lies_somewhere(file) else (file, 0)


def _has_a_system(polygons: Path) -> bool:
    """Whether polygons name a reference system; GeoJSON always has one, if only an assumed one."""
    try:
        return pyogrio.read_info(polygons)["crs"] is not None
    except (DataSourceError, ValueError):
        return True  # opening it as labels says what is wrong with it


def _lies_somewhere(raster: Path) -> bool:
    try:
        with without_place(), rasterio.Env(), rasterio.open(raster) as dataset:
            return dataset.crs is not None
    except RasterioError:
        return False  # opening it as labels says what is wrong with it
