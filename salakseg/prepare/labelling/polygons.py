"""Polygon files as labels: GeoPackage, Shapefile, GeoJSON and whatever else GDAL reads with a layer of polygons."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from rasterio.crs import CRS
from rasterio.errors import CRSError

from salakseg.classes import ClassMap
from salakseg.errors import DataError
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling.columns import NO_CLASS, find_class_column
from salakseg.prepare.labelling.label_facts import LabelFacts
from salakseg.prepare.labelling.label_files import refuse_of_another
from salakseg.prepare.labelling.label_lookup import IGNORED, ClassLookup, is_blank, layering
from salakseg.prepare.labelling.label_options import LabelOptions
from salakseg.prepare.labelling.placing import place
from salakseg.prepare.labelling.shapes import ShapeLabels, clean_polygons

_READ_ERRORS = (DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError, shapely.errors.ShapelyError)
_WORLD = (-361.0, -91.0, 361.0, 91.0)


@dataclass(frozen=True, slots=True)
class Layer:
    """The polygons of a layer that have a class, in the order in which they are laid down.

    Attributes:
        crs: Their `rasterio.crs.CRS`; None if the file names none.
        assumed: Whether the file names no `crs` and one is only assumed, as GeoJSON's is by definition.
        parts_P: Valid polygons without parts, [P].
        shape_P: Number of the feature that each is from, [P].
        class_ids_P: uint8 [P]; `IGNORED` for what is not to count.
        facts: What was found.
    """

    crs: Any
    assumed: bool
    parts_P: NDArray[Any]
    shape_P: NDArray[np.intp]
    class_ids_P: NDArray[np.uint8]
    facts: LabelFacts


def open_polygons(
    path: Path,
    grid: Grid,
    source: Path,
    class_map: ClassMap | None,
    options: LabelOptions,
    *,
    own: bool,
) -> tuple[ShapeLabels, LabelFacts] | None:
    """Opens a polygon file as labels of a source.

    A source without a reference system takes polygons in its own coordinates. For a photo these are pixels from its
    upper left corner, y downwards; polygons that were drawn over a photo in QGIS have y from 0 downwards to minus its
    height, and are taken so if no y is above 0.

    Args:
        path: The file.
        grid: The source's pixels.
        source: The source, for messages.
        class_map: The classes; None if all polygons count as class 0, whatever their columns say.
        options: How the file is to be read.
        own: Whether the file was found by the source's name. Else polygons in pixels must be named as the picture.

    Returns:
        The labels and what was found; None if no polygon reaches the source.

    Raises:
        DataError: The file cannot be read, or does not say where its polygons lie or what they are.
    """
    layer = read_layer(path, class_map, options)
    parts_P, crs = _in_reach_of(layer, path, grid, source)
    if grid.crs is None and grid.transform.is_identity and not own:  # in pixels
        refuse_of_another(path, source)
    placed, chosen = place(parts_P, crs, grid)
    if len(placed) == 0:
        return None
    facts = _copy(layer.facts)
    area = np.bincount(layer.shape_P[chosen], weights=shapely.area(placed))
    facts.slivers = int(((area > 0) & (area < 1)).sum())
    labels = ShapeLabels(placed, layer.class_ids_P[chosen], grid.height, grid.width, options.all_touched)
    return labels, facts


def read_layer(path: Path, class_map: ClassMap | None, options: LabelOptions) -> Layer:
    """Reads the polygons of a file; kept for the next source, for as long as the file does not change.

    Raises:
        DataError: As `open_polygons`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name the labels with --labels.") from error
    return _read_layer(path, class_map, options, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read_layer(path: Path, class_map: ClassMap | None, options: LabelOptions, *_: int) -> Layer:
    _refuse_cut_off(path)
    name = _layer_name(path, options.layer)
    try:
        meta, _fids, wkb, values = pyogrio.raw.read(path, layer=name, datetime_as_string=True)
        if wkb is None:
            raise DataError(f"{path} holds a table without shapes; export the layer with its geometry.")
        shapes_N = shapely.from_wkb(wkb, on_invalid="ignore")
    except _READ_ERRORS as error:
        raise DataError(f"{path} cannot be read as polygons ({error}); export it anew, best as GeoPackage.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} has text that is not UTF-8; export it anew as GeoPackage.") from error
    cleaned = clean_polygons(np.asarray(shapes_N, object))
    columns = dict(zip(map(str, meta["fields"]), values, strict=True))
    facts = LabelFacts(path, "polygons", left_out=cleaned.left_out, mended=cleaned.mended)
    class_ids_N = np.zeros(len(shapes_N), np.int16)
    order = np.arange(len(shapes_N))
    if class_map is not None and len(shapes_N):
        lookup = ClassLookup(class_map)
        column = find_class_column(path, columns, lookup, options.class_column)
        facts.column, class_ids_N = column.name, column.class_ids_N
        order = _order(path, columns, class_ids_N, lookup, options)
        usable = np.unique(cleaned.shape_P)
        facts.shapes = Counter(lookup.name(int(i)) for i in class_ids_N[usable] if i != NO_CLASS)
        facts.left_out += Counter({"without a class": int((class_ids_N[usable] == NO_CLASS).sum())})
    height_N = np.empty(len(order), np.intp)
    height_N[order] = np.arange(len(order))
    laid = np.argsort(height_N[cleaned.shape_P], kind="stable")
    laid = laid[class_ids_N[cleaned.shape_P[laid]] != NO_CLASS]
    if len(shapes_N) and len(laid) == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(facts.left_out.items()))
        raise DataError(f"{path} has shapes but no polygon that could be a label ({reasons}); is it the right file?")
    shape_P = cleaned.shape_P[laid]
    crs, assumed = _crs(path, meta["crs"], cleaned.parts_P)
    return Layer(crs, assumed, cleaned.parts_P[laid], shape_P, class_ids_N[shape_P].astype(np.uint8), facts)


def _refuse_cut_off(path: Path) -> None:
    """A Shapefile that is shorter than it says; GDAL reads what is missing as shapes without geometry."""
    if path.suffix.casefold() != ".shp":
        return
    with path.open("rb") as file:
        header = file.read(28)
    if len(header) == 28 and 2 * int.from_bytes(header[24:28], "big") > path.stat().st_size:
        raise DataError(f"{path} cannot be read as polygons (it is cut off); copy or export it again.")


def _layer_name(path: Path, wanted: str | None) -> str:
    try:
        layers = pyogrio.list_layers(path)
    except _READ_ERRORS as error:
        raise DataError(f"{path} cannot be read as polygons ({error}); export it anew, best as GeoPackage.") from error
    names = [str(name) for name, _ in layers]
    if wanted is not None:
        if wanted not in names:
            raise DataError(
                f"{path} has no layer {wanted!r}; its layers are {', '.join(names)}: name one with --layer."
            )
        return wanted
    areal = [str(name) for name, kind in layers if kind is not None and not str(kind).endswith(("Point", "LineString"))]
    if len(areal) > 1:
        raise DataError(f"{path} has several layers of shapes: {', '.join(areal)}; name one with --layer.")
    if not (areal or names):
        raise DataError(f"{path} holds no layer; export the labels anew.")
    return areal[0] if areal else names[0]


def _crs(path: Path, text: str | None, parts_P: NDArray[Any]) -> tuple[Any, bool]:
    """The file's reference system, and whether it is only assumed."""
    assumed = path.suffix.casefold() in (".geojson", ".json") and b'"crs"' not in path.read_bytes()
    if text is None or "undefined" in text.casefold():
        return None, False
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise DataError(f"{path} names a reference system that is not understood ({error}); export it anew.") from error
    if not crs.is_geographic and not crs.is_projected:
        return None, False
    return crs, assumed


def _order(
    path: Path,
    columns: dict[str, NDArray[Any]],
    class_ids_N: NDArray[np.int16],
    lookup: ClassLookup,
    options: LabelOptions,
) -> NDArray[np.intp]:
    """Features from the bottom to the top: by the column of priorities, by class, as drawn."""
    by_class = layering(
        np.where(class_ids_N == NO_CLASS, IGNORED, class_ids_N).astype(np.uint8), options.priority, lookup
    )
    if options.priority_column is None:
        return by_class
    if options.priority_column not in columns:
        listed = ", ".join(map(repr, columns)) or "none"
        raise DataError(f"{path} has no column {options.priority_column!r} with priorities; its columns are {listed}.")
    values = columns[options.priority_column]
    try:
        height_N = np.array([-np.inf if is_blank(value) else float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: column {options.priority_column!r} holds priorities that are no numbers.") from error
    return by_class[np.argsort(height_N[by_class], kind="stable")]


def _in_reach_of(layer: Layer, path: Path, grid: Grid, source: Path) -> tuple[NDArray[Any], Any]:
    """Polygons and reference system as the grid can use them; None for the grid's own coordinates."""
    if grid.crs is None:
        if layer.crs is not None and not layer.assumed:
            raise DataError(
                f"{path} lies in {layer.crs.to_string()}, but {source.name} does not say where it lies; georeference "
                "the picture, or draw its labels in pixels without a reference system."
            )
        parts_P = layer.parts_P
        if layer.assumed and grid.transform.is_identity and _is_a_speck(parts_P):
            raise DataError(
                f"{path} lies in longitude and latitude, but {source.name} does not say where it lies; georeference "
                "the picture, or draw its labels in pixels."
            )
        upwards = grid.transform.is_identity and len(parts_P) > 0 and shapely.total_bounds(parts_P)[3] <= 0
        if upwards:  # QGIS draws a picture without a place beneath the x axis
            parts_P = shapely.transform(parts_P, lambda points_N2: points_N2 * (1.0, -1.0))
        return parts_P, None
    if layer.crs is None:
        raise DataError(
            f"{path} names no coordinate reference system; set it in QGIS (Layer, Set Layer CRS) and export it anew, "
            f"or with `ogr2ogr -a_srs EPSG:CODE new.gpkg {path.name}`."
        )
    if layer.crs.is_geographic and len(layer.parts_P):
        left, bottom, right, top = shapely.total_bounds(layer.parts_P)
        if left < _WORLD[0] or bottom < _WORLD[1] or right > _WORLD[2] or top > _WORLD[3]:
            read_as = "is read as degrees, as GeoJSON without crs is," if layer.assumed else "is in degrees"
            raise DataError(
                f"{path} {read_as} but has coordinates up to {max(-left, right):g}, {max(-bottom, top):g}; export it "
                "anew as GeoPackage in its own reference system."
            )
    return layer.parts_P, layer.crs


def _is_a_speck(parts_P: NDArray[Any]) -> bool:
    """Whether all polygons together are smaller than a pixel, as those of a farm in degrees are."""
    if len(parts_P) == 0:
        return False
    left, bottom, right, top = shapely.total_bounds(parts_P)
    return bool(right - left < 1 and top - bottom < 1)


def _copy(facts: LabelFacts) -> LabelFacts:
    return LabelFacts(
        facts.path, facts.kind, None, facts.column, Counter(facts.shapes), Counter(facts.left_out), facts.mended,
        notes=list(facts.notes),
    )  # fmt: skip
