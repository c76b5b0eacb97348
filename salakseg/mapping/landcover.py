"""The land-cover map as a file: colours, class names, georeference, cloud-optimised GeoTIFF.

A map is one band of class ids, uint8, 255 where nothing is known. It is first written as plain stripes into a scratch
file and turned into a COG at the end, because GDAL's COG driver only copies.
"""

import json
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import RasterError

BLOCK = 512
"""Side of the blocks in scratch file and map, pixels."""


def create_map(
    path: Path,
    *,
    crs: Any,  # noqa: ANN401
    transform: Any,  # noqa: ANN401
    height: int,
    width: int,
    class_map: ClassMap,
    tags: dict[str, str],
) -> Any:  # noqa: ANN401
    """Creates the scratch file that a map's stripes are written to.

    Its profile is made from nothing, since one taken over from an orthomosaic brings JPEG and alpha along. It is not
    compressed, so that stripes which end within a block can be completed in place.

    Args:
        path: The file to create.
        crs: The orthomosaic's CRS or None.
        transform: The orthomosaic's transform.
        height: Rows.
        width: Columns.
        class_map: Gives the colour table; 255 becomes transparent.
        tags: Metadata, see `map_tags`.

    Returns:
        A `rasterio` dataset open for writing, to be used as a context manager.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the user allowed it
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            dtype="uint8",
            count=1,
            height=height,
            width=width,
            crs=crs,
            transform=transform,
            nodata=IGNORE_INDEX,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            BIGTIFF="IF_SAFER",
        )
    colors = {land_class.id: (*land_class.color, 255) for land_class in class_map.classes}
    dataset.write_colormap(1, {**colors, IGNORE_INDEX: (0, 0, 0, 0)})
    dataset.update_tags(**tags)
    return dataset


def map_tags(class_map: ClassMap, *, model: str, tile: int, overlap: int) -> dict[str, str]:
    """What a map tells of its making: the model, its classes as JSON, the software, tile and overlap in pixels."""
    try:
        software = f"salakseg {version('salakseg')}"
    except PackageNotFoundError:  # a checkout that was never installed
        software = "salakseg"
    return {
        "TIFFTAG_SOFTWARE": software,
        "model": model,
        "classes": json.dumps(class_map.to_records(), ensure_ascii=False),
        "tile": str(tile),
        "overlap": str(overlap),
    }


def write_cog(scratch: Path, path: Path, class_map: ClassMap) -> None:
    """Turns a finished scratch file into a COG with class names beside it.

    Overviews take the most frequent class: an average of class ids means nothing.

    Args:
        scratch: A closed file made by `create_map`.
        path: The COG to create; its class names go to `path` + ``.aux.xml``.
        class_map: Gives the class names.

    Raises:
        RasterError: The file cannot be written.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            rasterio.shutil.copy(
                scratch,
                path,
                driver="COG",
                COMPRESS="DEFLATE",
                BLOCKSIZE=str(BLOCK),
                OVERVIEW_RESAMPLING="MODE",
                BIGTIFF="IF_SAFER",
                NUM_THREADS="ALL_CPUS",
            )
    except Exception as error:  # GDAL's own errors, which rasterio lets through here, share no public base class
        raise RasterError(f"{path} cannot be written ({error}); is the disk full?") from error
    write_category_names(path, class_map.names)


def sidecar(path: Path) -> Path:
    """The file in which GDAL looks for what a GeoTIFF cannot hold, class names among it."""
    return path.with_name(path.name + ".aux.xml")


def write_category_names(path: Path, names: tuple[str, ...]) -> None:
    """Writes class names where GDAL and QGIS find them; rasterio has no call for it.

    GDAL counts the names from id 0; ids behind the last name have none. What the sidecar holds already is kept.

    Args:
        path: The raster.
        names: Names in the order of the ids.
    """
    target = sidecar(path)
    root = ElementTree.parse(target).getroot() if target.exists() else ElementTree.Element("PAMDataset")
    band = root.find("PAMRasterBand[@band='1']")
    if band is None:
        band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    for old in band.findall("CategoryNames"):
        band.remove(old)
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in names:
        ElementTree.SubElement(categories, "Category").text = name
    ElementTree.ElementTree(root).write(target, encoding="utf-8", xml_declaration=False)


def count_classes(path: Path, classes: int) -> NDArray[np.int64]:
    """Counts the pixels of each class in a map, [K], reading block by block.

    Args:
        path: The map.
        classes: Number of classes, K.

    Raises:
        RasterError: The map cannot be read.
    """
    counts = np.zeros(classes, np.int64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                for _, window in dataset.block_windows(1):
                    counts += np.bincount(dataset.read(1, window=window).ravel(), minlength=256)[:classes]
    except RasterioError as error:
        raise RasterError(f"{path} cannot be read as a land-cover map; make it again.") from error
    return counts
