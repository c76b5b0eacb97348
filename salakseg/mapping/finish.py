"""From finished stripes to the files that a user named: put together, read back, and only then in their places."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.classes import ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.areas import ClassArea, areas_of
from salakseg.mapping.assemble import Georeference, assemble
from salakseg.mapping.files import move_whole
from salakseg.mapping.layers import CLASSES, CONFIDENCE, PROBABILITIES
from salakseg.mapping.opening import without_place
from salakseg.mapping.plan import MapPlan
from salakseg.mapping.sidecar import sidecar_path, write_class_table
from salakseg.mapping.stripes import StripeFolder, StripeRecord, checksum, to_disk
from salakseg.mapping.style import style_path, write_qml

Records = Mapping[tuple[int, int], StripeRecord]
"""What is known of every stripe, by panel and stripe."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files to write.

    Attributes:
        classes: The map, a cloud-optimised GeoTIFF; class names go to ``.aux.xml``, a style for QGIS to ``.qml``.
        confidence: The probability of the map's class, percent; a COG like the map.
        probabilities: The probabilities of all classes; a COG like the map.
    """

    classes: Path
    confidence: Path | None = None
    probabilities: Path | None = None

    @property
    def by_layer(self) -> dict[str, Path]:
        """The files that are wanted, by the layer that they hold; the map comes last."""
        found = {PROBABILITIES: self.probabilities, CONFIDENCE: self.confidence, CLASSES: self.classes}
        return {layer: path for layer, path in found.items() if path is not None}


def finish_map(
    outputs: Outputs,
    stripes: StripeFolder,
    records: Records,
    plan: MapPlan,
    place: Georeference,
    class_map: ClassMap,
    tags: Mapping[str, str],
    overwrite: bool,
) -> tuple[ClassArea, ...]:
    """Puts the stripes together, reads the map back, and gives all files their names.

    Args:
        outputs: The files; replaced if they exist, but for a style that is not to be overwritten.
        stripes: The stripes, all of them done.
        records: Their records.
        plan: Where they lie.
        place: Where the map lies.
        class_map: Names and colours.
        tags: Metadata of the files.
        overwrite: Whether a style beside the map is replaced, which may be the user's own.

    Returns:
        What each class covers.

    Raises:
        RasterError: A file cannot be written.
    """
    _check_complete(records, plan)
    whole = {layer: stripes.path / f"{layer}.tif" for layer in outputs.by_layer}
    for layer, path in whole.items():
        assemble(stripes, layer, path, plan, place, class_map, tags, outputs.by_layer[layer])
    areas = _read_back(whole[CLASSES], records, class_map, outputs.classes)
    for layer, path in outputs.by_layer.items():
        if layer != CLASSES and not _holds(whole[layer], layer, records):
            raise RasterError(f"{path} could not be written completely; is the disk full?")
    hectares = [area.hectares for area in areas if area.hectares is not None]
    write_class_table(whole[CLASSES], class_map, [area.pixels for area in areas], hectares or None)
    for path in whole.values():  # all of them, before the first has its name and the stripes go
        to_disk(path)
    for layer, path in outputs.by_layer.items():
        move_whole(whole[layer], path)
        if sidecar_path(whole[layer]).exists():
            move_whole(sidecar_path(whole[layer]), sidecar_path(path))
        else:
            sidecar_path(path).unlink(missing_ok=True)  # of the file that was there before
    if overwrite or not style_path(outputs.classes).exists():
        write_qml(outputs.classes, class_map)
    return areas


def _check_complete(records: Records, plan: MapPlan) -> None:
    """The stripes lie side by side as planned: a gap would read as nodata, silently."""
    for (panel, stripe), record in records.items():
        start, stop = plan.stripe_rows(stripe, stripe + 1)
        columns = plan.panels[panel].start, plan.panels[panel].stop
        found = record.row, record.row + record.height, record.col, record.col + record.width
        assert found == (start, stop, *columns), f"stripe {stripe} of panel {panel} lies at {found}"


def _holds(whole: Path, layer: str, records: Records) -> bool:
    """Whether a file holds what the stripes held of a layer."""
    try:
        with without_place(), rasterio.open(whole) as dataset:
            return all(
                checksum(dataset.read(window=Window(record.col, record.row + row, record.width, height))) == told
                for record in records.values()
                for name, row, height, told in record.checksums
                if name == layer
            )
    except RasterioError:
        return False


def _read_back(whole: Path, records: Records, class_map: ClassMap, name: Path) -> tuple[ClassArea, ...]:
    """The areas of a map, which holds what the stripes held.

    On a full disk GDAL closes a GeoTIFF without a word, and what is missing reads as nodata.
    """
    expected = np.sum([record.counts for record in records.values()], axis=0)[: len(class_map)]
    try:
        areas = areas_of(whole, class_map)
    except RasterError:
        areas = ()
    if [area.pixels for area in areas] != expected.tolist():
        raise RasterError(f"{name} could not be written completely; is the disk full?")
    return areas
