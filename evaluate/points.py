"""Points of a sample as a GeoPackage that is labelled in QGIS, and what comes back from there. Axes: N points."""

import math
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FieldError
from pyproj.exceptions import ProjError

from salakseg.classes import ClassMap
from salakseg.errors import SampleError
from salakseg.evaluate.design import Design
from salakseg.evaluate.sampling import Sample
from salakseg.evaluate.strata import LandCover
from salakseg.mapping.files import check_output, move_whole, write_whole
from salakseg.mapping.style import QGIS_VERSION, style_path

LAYER = "points"
"""The GeoPackage's only layer."""

NUMBER = "point"
LABEL = "label"
"""Its columns: the point's number from 1 on, and the name of its class, empty at first."""

DESIGN_KEY = "salakseg_sample"
"""Under which the layer's metadata hold the design."""

UNLABELLED = -1
"""The label of a point that has none."""

_QGIS_NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"  # what the drop-down of QGIS stores for "no value"


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points with labels, read from a file.

    Attributes:
        path: The file.
        numbers: The points' numbers [N] where the file has them, else None.
        names: What each is called in messages [N]: its number, or the identifier that the file gives it.
        coordinates_N2: x and y in the map's coordinate reference system [N, 2].
        label_N: Class ids [N], -1 where there is no label.
        design: How they were drawn; None if the file does not tell.
    """

    path: Path
    numbers: tuple[int | None, ...]
    names: tuple[str, ...]
    coordinates_N2: NDArray[np.float64]
    label_N: NDArray[np.int64]
    design: Design | None


def check_points_output(path: Path, land_cover: Path, overwrite: bool) -> None:
    """Refuses a GeoPackage that cannot be written, or whose style would take the place of the map's or another.

    Raises:
        SampleError: The name does not end in .gpkg, or its style's name is the map's.
        RasterError: It or its style exists and is not to be replaced, or its folder does not.
    """
    if path.suffix.lower() != ".gpkg":
        raise SampleError(f"{path} is not named .gpkg, and points are written as a GeoPackage; name it so.")
    styles = {os.path.normcase(style_path(one).resolve()) for one in (path, land_cover)}
    if len(styles) == 1:
        raise SampleError(
            f"{path} would share its style {style_path(path).name} with the map; give the points another name."
        )
    check_output(path, land_cover, overwrite, "map")
    check_output(style_path(path), land_cover, overwrite, "map")


def write_points(path: Path, land_cover: LandCover, sample: Sample) -> None:
    """Writes a sample with an empty label column, and beside it a style that gives QGIS a list of the classes.

    The map's class of a point is not in the file: whoever knew it would tend to agree.

    Args:
        path: The GeoPackage, replaced if it exists; see `check_points_output`. Its style is ``.qml``.
        land_cover: The map.
        sample: Pixels of it, whose centres become the points.

    Raises:
        SampleError: The GeoPackage cannot be written.
        RasterError: It cannot be put in its place, or the style cannot be written.
    """
    centres = shapely.points(land_cover.coordinates(sample.row_N, sample.col_N))
    columns = {
        NUMBER: np.arange(1, len(centres) + 1, dtype=np.int32),
        LABEL: np.full(len(centres), None, np.object_),  # text, so that names may be typed as well as chosen
    }
    crs = None if land_cover.crs is None else land_cover.crs.to_wkt()
    table = gpd.GeoDataFrame(columns, geometry=centres, crs=crs)
    try:
        # Inside the folder rather than elsewhere: a move within one file system is all or nothing.
        with tempfile.TemporaryDirectory(prefix=".points-", dir=path.absolute().parent) as folder:
            whole = Path(folder) / path.name
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
                pyogrio.write_dataframe(
                    table,
                    whole,
                    layer=LAYER,
                    driver="GPKG",
                    geometry_type="Point",
                    layer_metadata={DESIGN_KEY: Design.of(land_cover, sample).to_json()},
                )
            if pyogrio.read_info(whole, layer=LAYER)["features"] != len(table):  # a full disk goes unnoticed
                raise OSError("it is incomplete")
            for ending in ("-wal", "-shm", "-journal"):  # of a file that is replaced; SQLite would apply them to ours
                path.with_name(path.name + ending).unlink(missing_ok=True)
            move_whole(whole, path)
    except (DataSourceError, DataLayerError, OSError) as error:
        reason = str(error).rpartition("failed: ")[2]  # GDAL puts whole statements before it
        raise SampleError(
            f"{path} cannot be written ({reason[:200]}); choose a folder with space left to write in."
        ) from error
    _write_form(path, land_cover.class_map)


def check_points_input(path: Path) -> None:
    """Refuses a file of points that is not there, before a large map is read.

    Raises:
        SampleError: It is missing or a folder.
    """
    if not path.is_file():
        raise SampleError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; check the points' name.")


def read_points(path: Path, land_cover: LandCover, label_column: str = LABEL) -> Points:
    """Reads points and their labels.

    A label is a class's name, in any case, or its id. A file of one layer, or with a layer ``points``, is expected.

    Args:
        path: A GeoPackage, or any file of points that GDAL reads.
        land_cover: The map, to whose coordinate reference system the points are brought.
        label_column: The column with the labels.

    Returns:
        The points.

    Raises:
        SampleError: The file is unreadable, has no such layer or column, holds other things than points or
            labels that are no class, says not where its points lie, or no point is labelled.
    """
    try:
        layer = _layer(path)
        metadata = pyogrio.read_info(path, layer=layer).get("layer_metadata") or {}
        table = pyogrio.read_dataframe(path, layer=layer, fid_as_index=True)
    except (DataSourceError, DataLayerError, FieldError, OSError, ValueError) as error:
        raise SampleError(f"{path} cannot be read as a file of points; name a GeoPackage.") from error
    if label_column not in table.columns:
        others = ", ".join(str(name) for name in table.columns if name != "geometry") or "none"
        raise SampleError(f"{path} has no column {label_column!r}; name one of its own ({others}) with --label-column.")
    numbers = _numbers(table)
    # A point that was added by hand has no number, and is called by the identifier that the file gives it
    names = tuple(
        f"fid {fid}" if number is None else str(number) for fid, number in zip(table.index, numbers, strict=True)
    )
    label_N = _labels(path, table[label_column].tolist(), names, land_cover.class_map)
    if (label_N == UNLABELLED).all():
        raise SampleError(
            f"{path} has no label in its column {label_column!r}; open it in QGIS over the orthomosaic and label its "
            "points first."
        )
    return Points(path, numbers, names, _coordinates(path, table, land_cover), label_N, _design(path, metadata))


def naming(names: list[str]) -> str:
    """Points as a sentence names them: the first three, and how many more."""
    if len(names) == 1:
        return f"point {names[0]}"
    if len(names) <= 3:
        return f"points {', '.join(names[:-1])} and {names[-1]}"
    return f"points {', '.join(names[:3])} and {len(names) - 3} more"


def _layer(path: Path) -> str:
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if LAYER in layers:
        return LAYER
    if len(layers) != 1:
        found = f"{len(layers)} layers ({', '.join(layers)})" if layers else "no layer of points"
        raise SampleError(f"{path} has {found}; keep the points in a file of their own.")
    return layers[0]


def _design(path: Path, metadata: dict[str, str]) -> Design | None:
    text = metadata.get(DESIGN_KEY)
    if text is None:
        return None
    try:
        return Design.from_json(text)
    except ValueError as error:
        raise SampleError(
            f"{path} tells in a way that cannot be read how it was drawn ({error}); draw it again with "
            "`salakseg sample`, by the version that is to read it."
        ) from error


def _numbers(table: Any) -> tuple[int | None, ...]:  # noqa: ANN401
    if NUMBER not in table.columns:
        return (None,) * len(table)
    return tuple(_whole(value) for value in table[NUMBER].tolist())


def _whole(value: object) -> int | None:
    """A value as a whole number, if it is one."""
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def _labels(path: Path, values: list[Any], names: tuple[str, ...], class_map: ClassMap) -> NDArray[np.int64]:
    by_name = {name.strip().casefold(): class_id for class_id, name in enumerate(class_map.names)}
    label_N = np.full(len(values), UNLABELLED, np.int64)
    unknown: dict[str, list[str]] = {}
    for index, (value, name) in enumerate(zip(values, names, strict=True)):
        text = "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()
        class_id = by_name.get(text.casefold(), _whole(text))  # names first: a class may be called by a number
        if class_id is None and text in ("", "NULL", "<NA>", "nan", _QGIS_NULL):
            continue
        if class_id is None or not 0 <= class_id < len(class_map):
            unknown.setdefault(text, []).append(name)
        else:
            label_N[index] = class_id
    if unknown:
        text, which = next(iter(unknown.items()))
        others = f", and {len(unknown) - 1} more such labels" if len(unknown) > 1 else ""
        raise SampleError(
            f"{path} has the label {text!r} ({naming(which)}){others}, which is no class of the map; "
            f"use {', '.join(class_map.names)}, or leave it empty."
        )
    return label_N


def _coordinates(path: Path, table: Any, land_cover: LandCover) -> NDArray[np.float64]:  # noqa: ANN401
    geometry = table.geometry.to_numpy()
    # A drawing may hold points in collections of one; what is empty or more than a point cannot be placed
    if not (shapely.get_num_coordinates(geometry) == 1).all():
        raise SampleError(f"{path} holds shapes that are no single points; each point must be one feature.")
    if (table.crs is None) != (land_cover.crs is None):
        without, other = (path, land_cover.path) if table.crs is None else (land_cover.path, path)
        raise SampleError(
            f"{without} names no coordinate reference system and {other} does; assign it, "
            "or use the points that `salakseg sample` drew from this map."
        )
    placed = table.geometry
    if land_cover.crs is not None:
        try:
            placed = placed.to_crs(land_cover.crs.to_wkt())
        except ProjError as error:
            raise SampleError(
                f"{path} cannot be brought to the coordinate reference system of {land_cover.path} ({error}); "
                "save it in that one."
            ) from error
    coordinates_N2: NDArray[np.float64] = shapely.get_coordinates(placed.to_numpy())
    return coordinates_N2


def _write_form(path: Path, class_map: ClassMap) -> None:
    """Writes a style by which QGIS shows the label as a list of class names, and guards the number."""
    root = ElementTree.Element("qgis", version=QGIS_VERSION, styleCategories="Fields|Forms")
    fields = ElementTree.SubElement(root, "fieldConfiguration")
    number = ElementTree.SubElement(fields, "field", name=NUMBER)
    config = ElementTree.SubElement(ElementTree.SubElement(number, "editWidget", type="TextEdit"), "config")
    ElementTree.SubElement(config, "Option", type="Map")
    label = ElementTree.SubElement(fields, "field", name=LABEL)
    config = ElementTree.SubElement(ElementTree.SubElement(label, "editWidget", type="ValueMap"), "config")
    options = ElementTree.SubElement(config, "Option", type="Map")
    entries = ElementTree.SubElement(options, "Option", type="List", name="map")
    for shown, stored in (("(no label)", _QGIS_NULL), *((name, name) for name in class_map.names)):
        entry = ElementTree.SubElement(entries, "Option", type="Map")
        ElementTree.SubElement(entry, "Option", type="QString", name=shown, value=stored)
    editable = ElementTree.SubElement(root, "editable")
    ElementTree.SubElement(editable, "field", name=NUMBER, editable="0")
    ElementTree.SubElement(editable, "field", name=LABEL, editable="1")
    ElementTree.SubElement(root, "layerGeometryType").text = "0"  # points
    ElementTree.indent(root)
    write_whole(style_path(path), ElementTree.tostring(root, encoding="unicode") + "\n")
