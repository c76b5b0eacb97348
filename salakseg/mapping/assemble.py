"""From finished stripes to cloud-optimised GeoTIFFs.

A GDAL virtual raster lays the stripes side by side, and GDAL's COG driver copies it. Its profile is made from nothing,
since one taken over from an orthomosaic brings JPEG and alpha along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import rasterio.shutil

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.layers import CLASSES, CONFIDENCE, PERCENT_NODATA
from salakseg.mapping.opening import without_place
from salakseg.mapping.plan import MapPlan
from salakseg.mapping.stripes import StripeFolder, StripeRecord

BLOCK = 512
"""Side of a map's blocks, pixels."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a map lies.

    Attributes:
        crs: A `rasterio.crs.CRS` or None.
        transform: From (column, row) of the map to coordinates, an `affine.Affine`.
    """

    crs: Any
    transform: Any


def assemble(
    folder: StripeFolder,
    layer: str,
    path: Path,
    plan: MapPlan,
    place: Georeference,
    class_map: ClassMap,
    tags: Mapping[str, str],
    name: Path | None = None,
) -> None:
    """Writes one layer of a map as a COG.

    Classes get their colours and overviews of the most frequent class, since an average of class ids means nothing;
    the other layers get averages.

    Args:
        folder: The stripes, all of them done.
        layer: Its name.
        path: The file to write.
        plan: Where the stripes lie.
        place: Where the map lies.
        class_map: Colours, and names of the bands.
        tags: Metadata of the file.
        name: What the file will be called, for messages; None for `path`.

    Raises:
        RasterError: The file cannot be written.
    """
    virtual = folder.path / f"{layer}.vrt"
    try:
        virtual.write_bytes(_virtual_raster(folder, layer, plan, place, class_map, tags))
        options = {"PREDICTOR": "FLOATING_POINT"} if folder.layers.is_float(layer) else {}
        with without_place():  # the user allowed it
            rasterio.shutil.copy(
                virtual,
                path,
                driver="COG",
                COMPRESS="LZW",  # a third faster than DEFLATE for 2 to 20 % more bytes, and read everywhere
                BLOCKSIZE=str(BLOCK),
                OVERVIEW_RESAMPLING="MODE" if layer == CLASSES else "AVERAGE",
                BIGTIFF="IF_SAFER",
                NUM_THREADS="ALL_CPUS",
                **options,
            )
    except Exception as error:  # GDAL's own errors, which rasterio lets through here, share no public base class
        raise RasterError(f"{name or path} cannot be written ({error}); is the disk full?") from error


def _virtual_raster(
    folder: StripeFolder,
    layer: str,
    plan: MapPlan,
    place: Georeference,
    class_map: ClassMap,
    tags: Mapping[str, str],
) -> bytes:
    root = ElementTree.Element("VRTDataset", rasterXSize=str(plan.width), rasterYSize=str(plan.height))
    if place.crs is not None:
        ElementTree.SubElement(root, "SRS").text = place.crs.to_wkt()
    if not place.transform.is_identity:
        ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, place.transform.to_gdal()))
    metadata = ElementTree.SubElement(root, "Metadata")
    for key, value in tags.items():
        ElementTree.SubElement(metadata, "MDI", key=key).text = value
    records = {at: folder.record(*at) for at in plan.all_stripes()}
    is_float = folder.layers.is_float(layer)
    dtype = "Float32" if is_float else "Byte"
    for index in range(1, folder.layers.bands[layer] + 1):
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType=dtype, band=str(index))
        if layer == CLASSES:
            _add_colors(band, class_map)
        else:
            what = "confidence, percent" if layer == CONFIDENCE else class_map.names[index - 1]
            ElementTree.SubElement(band, "Description").text = what
        ElementTree.SubElement(band, "NoDataValue").text = "nan" if is_float else str(PERCENT_NODATA)
        for (panel, stripe), record in records.items():
            if record.height:
                _add_source(band, folder.file(layer, panel, stripe), index, record)
    return ElementTree.tostring(root)


def _add_colors(band: ElementTree.Element, class_map: ClassMap) -> None:
    ElementTree.SubElement(band, "ColorInterp").text = "Palette"
    table = ElementTree.SubElement(band, "ColorTable")
    colors = {land_class.id: (*land_class.color, 255) for land_class in class_map.classes}
    for value in range(IGNORE_INDEX + 1):
        color = colors.get(value, (0, 0, 0, 0 if value == IGNORE_INDEX else 255))
        ElementTree.SubElement(table, "Entry", {f"c{i}": str(part) for i, part in enumerate(color, start=1)})


def _add_source(band: ElementTree.Element, file: Path, index: int, record: StripeRecord) -> None:
    source = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = file.name
    ElementTree.SubElement(source, "SourceBand").text = str(index)
    size = {"xSize": str(record.width), "ySize": str(record.height)}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(record.col), "yOff": str(record.row), **size})
