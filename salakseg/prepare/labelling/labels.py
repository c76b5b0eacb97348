"""What is known of the classes on a source, whatever its labels are: read this first, then follow a kind down.

A label path is one file, for one source or for many (polygons, a label raster, a COCO file), or a folder with a file
for each source (masks, LabelMe files, polygons, rasters).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import BACKGROUND, IGNORE_INDEX, ClassMap
from salakseg.errors import DataError
from salakseg.prepare.grid import Grid, Labels
from salakseg.prepare.labelling.coco import open_coco
from salakseg.prepare.labelling.frame import source_frame
from salakseg.prepare.labelling.json_files import json_kind, read_json, stem_of
from salakseg.prepare.labelling.label_facts import LabelFacts, summarise
from salakseg.prepare.labelling.label_files import (
    LABEL_SUFFIXES,
    POLYGON_SUFFIXES,
    RASTER_SUFFIXES,
    find_label_file,
    refuse_of_another,
    unused_label_files,
)
from salakseg.prepare.labelling.label_lookup import IGNORED, UNLABELLED
from salakseg.prepare.labelling.label_options import Fill, LabelOptions
from salakseg.prepare.labelling.labelme import open_labelme
from salakseg.prepare.labelling.photo_labels import open_mask
from salakseg.prepare.labelling.polygons import open_polygons
from salakseg.prepare.labelling.rasters import RasterLabels
from salakseg.prepare.labelling.shapes import ShapeLabels, read_within
from salakseg.prepare.labelling.shared_labels import refuse_shared

__all__ = [
    "Fill",
    "LabelOptions",
    "SourceLabels",
    "find_label_file",
    "open_labels",
    "refuse_shared",
    "summarise",
    "unused_label_files",
]

_LARGEST_PICTURE = 80_000_000
"""Pixels; a larger mask is read in windows."""


class SourceLabels:
    """The labels of a source, as `open_labels` gives them. One thread at a time may read from it.

    Attributes:
        facts: What was found in the labels.
    """

    def __init__(
        self, labels: Labels, grid: Grid, facts: LabelFacts, fill: Fill = "ignore", reviewed: Labels | None = None
    ) -> None:
        self.facts = facts
        self._labels, self._shape, self._fill, self._reviewed = labels, (grid.height, grid.width), fill, reviewed

    def __enter__(self) -> "SourceLabels":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        """Class ids of a window, as `salakseg.prepare.grid.Labels`; 255 beyond the grid, too."""
        return read_within(self._read_inside, self._shape, row, col, height, width)

    def close(self) -> None:
        """Closes what is open."""
        self._labels.close()
        if self._reviewed is not None:
            self._reviewed.close()

    def _read_inside(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        label_HW = self._labels.read(row, col, height, width).copy()
        if self._fill == "background":
            label_HW[label_HW == UNLABELLED] = BACKGROUND
        label_HW[label_HW == IGNORED] = IGNORE_INDEX
        if self._reviewed is not None:
            label_HW[self._reviewed.read(row, col, height, width) == UNLABELLED] = IGNORE_INDEX
        return label_HW


def open_labels(
    path: Path | None, grid: Grid, source: Path, class_map: ClassMap, options: LabelOptions
) -> SourceLabels | None:
    """Opens the labels of a source.

    Args:
        path: Labels: a file, or a folder with a file for each source; None if there are none.
        grid: The pixels that patches are cut from: the source's own, or finer or coarser ones over the same ground.
        source: The source's file, by whose name its labels are found.
        class_map: The classes.
        options: How labels are to be read.

    Returns:
        The labels; None if there is none for this source: no file or entry of its name, no polygon that reaches it, no
        raster that lies over it, or nothing of it reviewed.

    Raises:
        DataError: The labels cannot be read or understood, do not fit the source, or name what is no class.
    """
    if path is None:
        return None
    file = _file_for(path, source, LABEL_SUFFIXES, "the labels, a file or a folder, with --labels")
    if file is None:
        return None
    opened = _open_file(file, grid, source, class_map, options, own=path.is_dir())
    if opened is None:
        return None
    labels, facts = opened
    reviewed = None
    if options.reviewed is not None:
        try:
            reviewed = _open_reviewed(options.reviewed, grid, source, options)
        except BaseException:
            labels.close()
            raise
        if reviewed is None:
            labels.close()
            return None
    return SourceLabels(labels, grid, facts, options.fill, reviewed)


def _file_for(path: Path, source: Path, suffixes: tuple[str, ...], name: str) -> Path | None:
    if path.is_dir():
        return find_label_file(path, source, suffixes)
    if not path.exists():
        raise DataError(f"{path} does not exist; name {name}.")
    return path


def _open_file(
    file: Path, grid: Grid, source: Path, class_map: ClassMap, options: LabelOptions, own: bool
) -> tuple[Labels, LabelFacts] | None:
    """Opens a label file; `own` says that it was found by the source's name."""
    suffix = file.suffix.casefold()
    kind = json_kind(file) if suffix == ".json" else None
    if suffix in POLYGON_SUFFIXES or kind == "GeoJSON":
        return open_polygons(file, grid, source, class_map, options, own=own)
    _refuse_columns(file, options)
    if kind == "COCO":
        return open_coco(file, source_frame(grid, source), source, class_map, options)
    if kind == "LabelMe":
        if not (own or _names(file, source)):
            return None
        return open_labelme(file, source_frame(grid, source), source, class_map, options)
    if suffix not in RASTER_SUFFIXES:
        raise DataError(
            f"{file} is no kind of labels that is known; labels are polygons ({', '.join(POLYGON_SUFFIXES)}), rasters "
            f"or masks ({', '.join(RASTER_SUFFIXES)}), COCO or LabelMe (.json), or a folder of such files."
        )
    if grid.crs is None and suffix != ".vrt" and grid.height * grid.width <= _LARGEST_PICTURE:
        if not own:
            refuse_of_another(file, source)
        return open_mask(file, source_frame(grid, source), source, class_map)
    labels = RasterLabels(file, grid, source, class_map)
    try:
        if not (own or labels.placed):
            refuse_of_another(file, source)
        if labels.reaches():
            return labels, labels.facts
    except BaseException:
        labels.close()
        raise
    labels.close()
    return None


def _open_reviewed(path: Path, grid: Grid, source: Path, options: LabelOptions) -> ShapeLabels | None:
    file = _file_for(path, source, POLYGON_SUFFIXES, "the polygons of what was labelled with --reviewed")
    if file is None:
        return None
    options = LabelOptions(all_touched=options.all_touched)
    opened = open_polygons(file, grid, source, None, options, own=path.is_dir())
    return None if opened is None else opened[0]


def _names(file: Path, source: Path) -> bool:
    """Whether a LabelMe file that was named by the user is of this source."""
    named = read_json(file).get("imagePath")
    return stem_of(source.name) in (stem_of(file.name), stem_of(named) if isinstance(named, str) else "")


def _refuse_columns(file: Path, options: LabelOptions) -> None:
    settings = {
        "--class-column": options.class_column,
        "--layer": options.layer,
        "--priority-column": options.priority_column,
    }
    for flag, value in settings.items():
        if value is not None:
            raise DataError(f"{file} has no columns and layers; leave out {flag}, which is for polygon files.")
