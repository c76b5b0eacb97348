"""The change as a raster and as polygons: one class for each transition, in the colours of what it has become.

Axes: H row, W column, K class.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window

from salakseg.change.compare import Change
from salakseg.change.pair import Pair, strips
from salakseg.classes import IGNORE_INDEX, ClassMap, LandClass
from salakseg.errors import RasterError
from salakseg.mapping.assemble import BLOCK
from salakseg.mapping.files import move_whole
from salakseg.mapping.opening import without_place
from salakseg.mapping.polygons import PolygonSummary, write_polygons
from salakseg.mapping.raster import gdal_settings
from salakseg.mapping.sidecar import sidecar_path
from salakseg.mapping.style import write_qml

UNCHANGED = "unchanged"
_GREY = (225, 225, 225)
_MOST = 253  # transitions that fit beside what is unchanged
# Share of the new class's colour in that of a transition: with 0.75 those into one class could hardly be told apart
_OF_NEW = 0.6


def transitions(change: Change) -> tuple[ClassMap, NDArray[np.uint8]]:
    """The legend of a change raster, and the value of each transition.

    Args:
        change: What was counted.

    Returns:
        Classes: 0 unchanged, then the transitions that occur, the largest first; and their values [K, K], where 0 is
        also that of a transition too small to have one among the 253 largest.
    """
    classes = change.pair.class_map.classes
    pixels_KK = change.pixels_KK - np.diag(np.diag(change.pixels_KK))
    order = np.argsort(-pixels_KK, axis=None, kind="stable")
    order = order[pixels_KK.ravel()[order] > 0][:_MOST]
    value_KK = np.zeros(pixels_KK.shape, np.uint8)
    legend, taken = [LandClass(0, UNCHANGED, _GREY)], {_GREY}
    for number, code in enumerate(order.tolist(), start=1):
        old, new = divmod(code, len(classes))
        value_KK[old, new] = number
        mixed = (_OF_NEW * np.array(classes[new].color) + (1 - _OF_NEW) * np.array(classes[old].color)).round()
        color = _free((int(mixed[0]), int(mixed[1]), int(mixed[2])), taken)
        taken.add(color)
        legend.append(LandClass(number, f"{classes[old].name} > {classes[new].name}", color))
    if len(legend) == 1:  # a class map has at least two
        legend.append(LandClass(1, "changed", (255, 0, 0)))
    return ClassMap(tuple(legend), "the transitions"), value_KK


def write_change(
    change: Change, raster: Path, polygons: Path | None, min_area_m2: float, progress: Callable[[int, int], None]
) -> PolygonSummary | None:
    """Writes the change as a cloud-optimised GeoTIFF with its style, and its polygons.

    Args:
        change: What was counted.
        raster: The GeoTIFF, uint8: 0 unchanged, 255 where nothing was compared.
        polygons: The GeoPackage of what changed; None for none.
        min_area_m2: Smallest polygon, square metres; smaller ones are left out.
        progress: Called with the rows done and the rows in all.

    Raises:
        RasterError: A file cannot be read or written.
    """
    legend, value_KK = transitions(change)
    summary: PolygonSummary | None = None
    try:
        with tempfile.TemporaryDirectory(prefix=f".{raster.stem}-", dir=raster.parent) as folder:
            plain, only = Path(folder) / "all.tif", Path(folder) / "changes.tif"
            _write_values(change.pair, legend, value_KK, plain, only, progress)
            whole = Path(folder) / raster.name
            try:
                with gdal_settings(), without_place():
                    rasterio.shutil.copy(
                        plain, whole, driver="COG", COMPRESS="LZW", BLOCKSIZE=str(BLOCK), OVERVIEW_RESAMPLING="MODE"
                    )
            except Exception as error:  # GDAL's own errors, which share no public base class
                raise RasterError(f"{raster} cannot be written ({error}); is the disk full?") from error
            if polygons is not None:
                # Every pixel edge: smoothed, the small pieces that change is made of would lose half of their area
                summary = write_polygons(
                    only, polygons, legend, min_area_m2=min_area_m2, small="drop", tolerance_px=0, overwrite=True
                )
            sidecar_path(raster).unlink(missing_ok=True)  # class names and areas of what was there before
            move_whole(whole, raster)
    except OSError as error:
        raise RasterError(f"{raster} cannot be written ({error}); is the disk full?") from error
    write_qml(raster, legend)
    return summary


def _write_values(
    pair: Pair,
    legend: ClassMap,
    value_KK: NDArray[np.uint8],
    plain: Path,
    only: Path,
    progress: Callable[[int, int], None],
) -> None:
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "height": pair.height, "width": pair.width, "crs": pair.crs,
        "transform": pair.transform, "nodata": IGNORE_INDEX, "compress": "lzw", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    lookup = np.full((256, 256), IGNORE_INDEX, np.uint8)
    lookup[: len(value_KK), : len(value_KK)] = value_KK
    with gdal_settings(), without_place(), rasterio.open(plain, "w", **profile) as all_of_it:
        all_of_it.write_colormap(1, {one.id: (*one.color, 255) for one in legend.classes})
        all_of_it.update_tags(old=pair.old.path.name, new=pair.new.path.name)
        with rasterio.open(only, "w", **profile) as changes:
            for strip in strips(pair):
                value_HW = lookup[strip.old_HW, strip.new_HW]
                window = Window(0, strip.row, pair.width, len(value_HW))
                all_of_it.write(value_HW, 1, window=window)
                changes.write(np.where(value_HW == 0, IGNORE_INDEX, value_HW).astype(np.uint8), 1, window=window)
                progress(strip.row + len(value_HW), pair.height)


def _free(color: tuple[int, int, int], taken: set[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The colour itself, or the nearest darker or lighter one that no other transition has."""
    for step in range(256):
        for sign in (-1, 1):
            red, green, blue = (min(255, max(0, part + sign * step)) for part in color)
            if (red, green, blue) not in taken:
                return red, green, blue
    return color
