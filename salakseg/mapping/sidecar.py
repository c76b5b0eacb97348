"""Class names, colours and areas where GDAL and QGIS look for what a GeoTIFF cannot hold: in ``map.tif.aux.xml``."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from salakseg.classes import ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.files import write_whole

RAT_TYPES = {"Integer": 0, "Real": 1, "String": 2}
RAT_USAGES = {"Generic": 0, "PixelCount": 1, "Name": 2, "MinMax": 5, "Red": 6, "Green": 7, "Blue": 8}
"""GDAL's numbers for what a column of a raster attribute table holds (GDALRATFieldType, GDALRATFieldUsage)."""


def sidecar_path(path: Path) -> Path:
    """The file in which GDAL looks for what a GeoTIFF cannot hold, class names among it."""
    return path.with_name(path.name + ".aux.xml")


def write_class_table(
    path: Path,
    class_map: ClassMap,
    counts: Sequence[int] | None = None,
    hectares: Sequence[float] | None = None,
) -> None:
    """Writes class names and a raster attribute table where GDAL and QGIS find them; rasterio has no call for it.

    The table has a row for each class with its value, name and colour. What the sidecar holds of other things is kept.

    Args:
        path: The raster.
        class_map: The classes, K.
        counts: Pixels of each class, [K]; without them the table has no column for them.
        hectares: Area of each class, [K]; likewise.

    Raises:
        RasterError: The sidecar is damaged or cannot be written.
    """
    target = sidecar_path(path)
    try:
        root = ElementTree.parse(target).getroot() if target.exists() else ElementTree.Element("PAMDataset")
    except (OSError, ElementTree.ParseError) as error:
        raise RasterError(f"{target} cannot be read ({error}); delete it, it will be made again.") from error
    band = root.find("PAMRasterBand[@band='1']")
    if band is None:
        band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    for old in [*band.findall("CategoryNames"), *band.findall("GDALRasterAttributeTable")]:
        band.remove(old)
    categories = ElementTree.SubElement(band, "CategoryNames")  # GDAL counts them from id 0
    for name in class_map.names:
        ElementTree.SubElement(categories, "Category").text = name
    band.append(_attribute_table(class_map, counts, hectares))
    ElementTree.indent(root)
    write_whole(target, ElementTree.tostring(root, encoding="unicode") + "\n")


def _attribute_table(
    class_map: ClassMap, counts: Sequence[int] | None, hectares: Sequence[float] | None
) -> ElementTree.Element:
    classes = class_map.classes
    columns: list[tuple[str, str, str, Sequence[object]]] = [
        ("Value", "Integer", "MinMax", [land_class.id for land_class in classes]),
        ("Class", "String", "Name", class_map.names),
        ("Red", "Integer", "Red", [land_class.color[0] for land_class in classes]),
        ("Green", "Integer", "Green", [land_class.color[1] for land_class in classes]),
        ("Blue", "Integer", "Blue", [land_class.color[2] for land_class in classes]),
    ]
    if counts is not None:  # as real numbers, since GDAL's integers end at 2^31 and large maps do not
        columns.append(("Count", "Real", "PixelCount", [int(count) for count in counts]))
    if hectares is not None:
        columns.append(("Area_ha", "Real", "Generic", [float(area) for area in hectares]))
    table = ElementTree.Element("GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage, _) in enumerate(columns):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        ElementTree.SubElement(field, "Name").text = name
        ElementTree.SubElement(field, "Type", typeAsString=kind).text = str(RAT_TYPES[kind])
        ElementTree.SubElement(field, "Usage", usageAsString=usage).text = str(RAT_USAGES[usage])
    for index, values in enumerate(zip(*(column[3] for column in columns), strict=True)):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for value in values:
            ElementTree.SubElement(row, "F").text = str(value)
    return table
