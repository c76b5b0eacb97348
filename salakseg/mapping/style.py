"""The layer style that gives a land-cover map its colours and class names in QGIS."""

from pathlib import Path
from xml.etree import ElementTree

from salakseg.classes import ClassMap
from salakseg.mapping.files import write_whole

QGIS_VERSION = "3.0.0"
"""The version whose format is written. Later ones read it as it is; without one QGIS takes it for a file of QGIS 0."""


def style_path(raster: Path) -> Path:
    """The file in which QGIS looks for a raster's style: ``map.tif`` has ``map.qml``."""
    return raster.with_suffix(".qml")


def write_qml(path: Path, class_map: ClassMap) -> None:
    """Writes a style that QGIS 3 applies by itself when it opens the raster: one legend entry for each class.

    Pixels that are 255 have no entry and stay transparent, as the raster's nodata value they are so anyway.

    Args:
        path: The raster; its style goes beside it (see `style_path`), where an older one is replaced.
        class_map: Names and colours.

    Raises:
        RasterError: The style cannot be written.
    """
    root = ElementTree.Element("qgis", version=QGIS_VERSION, styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for land_class in class_map.classes:
        red, green, blue = land_class.color
        ElementTree.SubElement(
            palette,
            "paletteEntry",
            value=str(land_class.id),
            color=f"#{red:02x}{green:02x}{blue:02x}",
            alpha="255",
            label=land_class.name,
        )
    ElementTree.SubElement(root, "blendMode").text = "0"  # normal: the map covers what lies below it
    ElementTree.indent(root)
    write_whole(style_path(path), ElementTree.tostring(root, encoding="unicode") + "\n")
