"""A land-cover map as polygons in a GeoPackage: small patches sieved away, edges smoothed without gaps or overlaps.

Sieve, polygons and file all stream, so memory grows with what the map shows and not with its pixels. Axes: H rows from
the top, W columns, K classes.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.features import sieve
from rasterio.windows import Window

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.areas import pixel_areas
from salakseg.mapping.dissolve import count_chunks, polygonize
from salakseg.mapping.files import check_output
from salakseg.mapping.geopackage import Place, PolygonLayer
from salakseg.mapping.opening import without_place
from salakseg.mapping.raster import gdal_settings

DEFAULT_TOLERANCE_PX = 1.25
"""Straightens staircases of one to three pixels a step, whose corners make triangles of 0.5, 1 and 1.5 pixels.

Visvalingam and Whyatt's rule drops a vertex whose triangle has less than the tolerance's square, 1.56 pixels here.
Roads of 3 pixels kept their area within 1 % at every angle tried, discs of 6 pixels and more within 8 %; from 1.5 on,
squares of 2 pixels become triangles and small discs lose a fifth.
"""

CHUNK = 1024
"""Side of the chunks that are polygonized at once, pixels; 2048 took longer and three times the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class PolygonSummary:
    """What became of a map.

    Attributes:
        out: The GeoPackage.
        polygons: Number of polygons.
        class_names: Class names, K of them.
        class_polygons: Polygons of each class [K], int64.
        area_m2: Area of each class's polygons in square metres [K]; None if the map does not say where it lies.
        area_px: The same in pixels [K].
        sieved_px: Pixels that took the class of a neighbour, because their patch was too small.
    """

    out: Path
    polygons: int
    class_names: tuple[str, ...]
    class_polygons: NDArray[np.int64]
    area_m2: NDArray[np.float64] | None
    area_px: NDArray[np.float64]
    sieved_px: int


def write_polygons(
    land_cover: Path,
    out: Path,
    class_map: ClassMap,
    *,
    min_area_m2: float = 1.0,
    small: Literal["merge", "drop"] = "merge",
    tolerance_px: float = DEFAULT_TOLERANCE_PX,
    chunk: int = CHUNK,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PolygonSummary:
    """Turns a land-cover map into polygons, one for each patch of connected pixels (4 neighbours) of a class.

    Patches below the smallest area first take the class of their largest neighbour; where all neighbours are as small,
    or nodata, a patch stays. Edges are then simplified together, so that neighbours keep sharing them; nodata stays
    empty. The polygons of the layer ``land_cover`` have ``class_id``, ``class_name``, ``area_m2`` and ``area_ha``; a
    map that does not say where it lies gives ``area_px`` instead of the areas. The file appears under its name only
    when it is whole.

    Args:
        land_cover: The map: a GeoTIFF of one uint8 band of class ids, 255 where nothing is known.
        out: The GeoPackage to write, ``.gpkg``.
        class_map: The map's classes, K.
        min_area_m2: Smallest patch to keep, square metres; pixels if the map does not say where it lies. 0 keeps all.
        small: What becomes of smaller patches: "merge" as said above, "drop" leaves them out and changes no other.
        tolerance_px: Square root of the area in pixels below which a bend of an edge is smoothed away; 0 keeps every
            pixel edge.
        chunk: Side of the chunks that are polygonized at once, pixels.
        overwrite: Replace a GeoPackage that exists.
        progress: Called with the chunks done and the chunks in all; first with 0 when the sieve is done.

    Returns:
        Polygons and areas by class.

    Raises:
        RasterError: The map cannot be read or is none of this class map, or the GeoPackage cannot be written.
        ValueError: A negative area or tolerance, or a chunk below 1.
    """
    if not (0 <= min_area_m2 < math.inf and 0 <= tolerance_px < math.inf and chunk >= 1):
        raise ValueError(
            f"min_area_m2 ({min_area_m2}) and tolerance_px ({tolerance_px}) must not be negative, "
            f"and chunk ({chunk}) must be at least 1"
        )
    if out.suffix.lower() != ".gpkg":
        raise RasterError(f"{out} is not named .gpkg, and polygons are written as a GeoPackage; name it so.")
    check_output(out, land_cover, overwrite, "map")
    with gdal_settings(), _Map(land_cover, class_map) as source, _scratch(out) as folder:
        smallest_px = min_area_m2 if source.area_H is None else min_area_m2 / float(source.area_H.mean())
        sieved_px = _sieve(source, Path(folder) / "sieved", smallest_px, out) if small == "merge" else 0
        # QGIS shows a picture without a place with its rows at negative y
        transform = Affine.scale(1, -1) if source.transform.is_identity else source.transform
        layer = PolygonLayer(
            Path(folder) / out.name, out, class_map, Place(source.crs, transform, source.area_H), min_area_m2
        )
        total = count_chunks(source.height, source.width, chunk)
        finished = polygonize(source.read, source.height, source.width, chunk=chunk, tolerance_px=tolerance_px)
        _report(progress, 0, total)
        for done, (polygons, class_ids) in enumerate(finished, start=1):
            if small == "drop":
                large = shapely.area(polygons) > smallest_px - 1e-6  # their coordinates are pixels
                polygons, class_ids = polygons[large], class_ids[large]
            layer.add(polygons, class_ids)
            _report(progress, done, total)
        layer.finish()
        return PolygonSummary(
            out=out,
            polygons=int(layer.class_polygons.sum()),
            class_names=class_map.names,
            class_polygons=layer.class_polygons,
            area_m2=None if source.area_H is None else layer.area_m2,
            area_px=layer.area_px,
            sieved_px=sieved_px,
        )


class _Map:
    """An open land-cover map, and its sieved labels once there are any.

    Args:
        path: The map.
        class_map: Its classes.

    Raises:
        RasterError: No land-cover map that can be read.
    """

    def __init__(self, path: Path, class_map: ClassMap) -> None:
        self.path = path
        self.class_map = class_map
        self.sieved: Path | None = None  # uint8, row after row, without a header
        if not path.exists():
            raise RasterError(f"{path} does not exist; check the map's name.")
        try:
            with without_place():
                self.dataset = rasterio.open(path)
        except RasterioError as error:
            raise RasterError(f"{path} cannot be read as a land-cover map; make it again.") from error
        if self.dataset.dtypes != ("uint8",):
            self.dataset.close()
            raise RasterError(f"{path} is not one band of class ids; name a map that salakseg has made.")
        self.height: int = self.dataset.height
        self.width: int = self.dataset.width
        self.transform: Any = self.dataset.transform
        self.crs: Any = self.dataset.crs or None
        self.area_H = pixel_areas(self.crs, self.transform, self.height, self.width)

    def __enter__(self) -> "_Map":
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        """Labels of a window, sieved if there was a sieve."""
        if self.sieved is None:
            return self.read_original(Window(col, row, width, height))
        # Opened anew each time: a mapping that stays open keeps all pages that were read, and Windows keeps the file.
        label_HW = np.memmap(self.sieved, np.uint8, "r", shape=(self.height, self.width))
        return np.array(label_HW[row : row + height, col : col + width])

    def read_original(self, window: Window) -> NDArray[np.uint8]:
        """Labels of a window as the map has them; ids that are no class are refused."""
        try:
            label_HW: NDArray[np.uint8] = self.dataset.read(1, window=window)
        except RasterioError as error:
            raise RasterError(f"{self.path} cannot be read as a land-cover map; make it again.") from error
        unknown = label_HW[(label_HW >= len(self.class_map)) & (label_HW != IGNORE_INDEX)]
        if unknown.size:
            raise RasterError(
                f"{self.path} holds class {unknown.max()}, but {self.class_map.source} ends at "
                f"{len(self.class_map) - 1}; name the class mapping that the map was made with."
            )
        return label_HW


def _sieve(source: _Map, path: Path, smallest_px: float, out: Path) -> int:
    """Gives patches that are too small the class of their largest neighbour, over the whole map at once.

    GDAL's sieve streams: it holds a few rows and some bytes for each patch. Its output goes into a file mapped into
    memory, since `rasterio` takes nothing but an array for it. Nodata is masked, so it neither grows nor is eaten.

    Args:
        source: The map; it reads the sieved labels from then on.
        path: The file for them.
        smallest_px: Smallest patch to keep, pixels.
        out: The GeoPackage, for messages.

    Returns:
        Number of pixels that changed.
    """
    size = math.ceil(round(smallest_px, 6))  # a square metre in pixels of 0.05 m is 400 of them, not 401
    if size < 2:
        return 0
    mask_path = path.with_name("valid.tif")
    try:
        with path.open("wb") as file:  # written out, as a hole in the file would end the process once the disk is full
            for _ in range(source.height):
                file.write(bytes(source.width))
        _write_mask(source, mask_path)
        sieved_HW = np.memmap(path, np.uint8, "r+", shape=(source.height, source.width))
        with without_place(), rasterio.open(mask_path) as mask:
            label, valid = rasterio.band(source.dataset, 1), rasterio.band(mask, 1)
            sieve(label, min(size, sieved_HW.size), out=sieved_HW, mask=valid, connectivity=4)
        sieved_HW.flush()
    except (OSError, RasterioError) as error:
        raise RasterError(f"{out} cannot be written ({error}); is the disk full?") from error
    finally:
        mask_path.unlink(missing_ok=True)
    del sieved_HW
    source.sieved = path
    changed = 0
    for _, window in source.dataset.block_windows(1):
        changed += int(np.count_nonzero(source.read_original(window) != source.read(*_corner_and_size(window))))
    return changed


def _write_mask(source: _Map, path: Path) -> None:
    """Writes which pixels have a class as 0 and 1, since GDAL's sieve takes no other mask."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": source.height, "width": source.width}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    with without_place(), rasterio.open(path, "w", **profile) as mask:
        for _, window in mask.block_windows(1):
            valid_HW = source.read_original(window) != IGNORE_INDEX
            mask.write(valid_HW.astype(np.uint8), 1, window=window)


def _corner_and_size(window: Window) -> tuple[int, int, int, int]:
    return window.row_off, window.col_off, window.height, window.width


def _scratch(out: Path) -> tempfile.TemporaryDirectory[str]:
    """A hidden folder beside the GeoPackage (renaming works within one disk only), removed whatever happens."""
    try:
        return tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise RasterError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to."
        ) from error


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
