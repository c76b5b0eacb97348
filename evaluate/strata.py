"""A land-cover map as what points are drawn from: its classes are the strata, its pixels the units.

Axes: H rows from the top, W columns from the left, K classes, N points.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import SampleError
from salakseg.mapping.areas import areas_of
from salakseg.mapping.opening import without_place
from salakseg.mapping.raster import gdal_settings
from salakseg.shell import as_argument

WINDOW = 1024
"""Side of the windows in which a map is gone through, pixels: their order is that of the pixels in a stratum, whatever
the blocks of the file."""


@dataclass(frozen=True, slots=True, eq=False)
class LandCover:
    """A land-cover map and what its classes cover.

    Attributes:
        path: The file.
        class_map: The classes, K.
        height: Rows.
        width: Columns.
        crs: Coordinate reference system, a `rasterio.crs.CRS`; None if the file names none.
        grid: From (column, row) of pixel corners to coordinates. Where the file does not say, rows run to negative y,
            as QGIS shows such a picture.
        pixels_K: Pixels of each class [K], int64.
        hectares_K: True area of each class [K]; None if the map does not say where it lies.
    """

    path: Path
    class_map: ClassMap
    height: int
    width: int
    crs: Any
    grid: Any
    pixels_K: NDArray[np.int64]
    hectares_K: NDArray[np.float64] | None

    def coordinates(self, row_N: NDArray[np.int64], col_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Centres of pixels as x and y, [N, 2]."""
        return np.stack(_apply(self.grid, col_N + 0.5, row_N + 0.5), axis=1)

    def pixels_at(self, points_N2: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns [N] of the pixels in which coordinates lie; -1 beyond the map."""
        col_N, row_N = _apply(~self.grid, points_N2[:, 0], points_N2[:, 1])
        inside_N = (row_N >= 0) & (row_N < self.height) & (col_N >= 0) & (col_N < self.width)
        row_N, col_N = np.where(inside_N, row_N, -1), np.where(inside_N, col_N, -1)
        return np.floor(row_N).astype(np.int64), np.floor(col_N).astype(np.int64)


def open_land_cover(path: Path, class_mapping: ClassMap | None = None) -> LandCover:
    """Reads where a map lies, which classes it has and what they cover.

    Args:
        path: A map of class ids, uint8, 255 where nothing is known.
        class_mapping: Its classes; None takes them from the map itself, where salakseg writes them.

    Raises:
        SampleError: The file is missing or no land-cover map, holds no class, or does not tell its classes.
        RasterError: It cannot be read, or holds ids that are no class.
    """
    if not path.is_file():
        raise SampleError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; check the map's name.")
    try:
        with gdal_settings(), without_place(), rasterio.open(path) as dataset:
            class_map = _class_map(path, dataset.tags().get("classes"), class_mapping)
            if dataset.nodata not in (None, IGNORE_INDEX):
                raise SampleError(
                    f"{path} marks what is not known by {dataset.nodata:g}, which is a class's number here; "
                    f"convert it first with `gdalwarp -dstnodata {IGNORE_INDEX} {as_argument(path)} map.tif`."
                )
            transform, (height, width) = dataset.transform, dataset.shape
            crs = None if transform.is_identity else dataset.crs or None  # a system alone says not where it lies
    except RasterioError as error:
        raise SampleError(f"{path} cannot be read as a land-cover map; name a map that salakseg has made.") from error
    with gdal_settings():
        rows = areas_of(path, class_map)
    hectares = [row.hectares for row in rows if row.hectares is not None]
    pixels_K = np.array([row.pixels for row in rows], np.int64)
    if not pixels_K.any():
        raise SampleError(f"{path} holds no pixel with a class; name a map of an orthomosaic with valid pixels.")
    return LandCover(
        path=path,
        class_map=class_map,
        height=height,
        width=width,
        crs=crs,
        grid=Affine.scale(1, -1) if transform.is_identity else transform,
        pixels_K=pixels_K,
        hectares_K=np.array(hectares) if hectares else None,
    )


def walk(
    land_cover: LandCover, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Goes through a map in windows of one size, rows of windows from the top, each from the left.

    Args:
        land_cover: The map.
        progress: Called with the pixels gone through and the pixels in all.

    Yields:
        First row and first column of a window, and its class ids [H, W].

    Raises:
        SampleError: A part of the map cannot be read.
    """
    height, width = land_cover.height, land_cover.width
    done = 0
    try:
        with gdal_settings(), without_place(), rasterio.open(land_cover.path) as dataset:
            for row in range(0, height, WINDOW):
                for col in range(0, width, WINDOW):
                    window = Window(col, row, min(WINDOW, width - col), min(WINDOW, height - row))
                    label_HW = dataset.read(1, window=window)
                    yield row, col, label_HW
                    done += label_HW.size
                    if progress is not None:
                        progress(done, height * width)
    except RasterioError as error:
        raise SampleError(f"{land_cover.path} cannot be read to its end; copy it again or make it again.") from error


class Digest:
    """Knows a map by where its pixels lie and what they hold, however the file is compressed or cut into blocks."""

    def __init__(self, land_cover: LandCover) -> None:
        place = [land_cover.height, land_cover.width, *map(float, tuple(land_cover.grid)[:6])]
        self._hash = hashlib.sha256(json.dumps(place).encode())

    def add(self, label_HW: NDArray[np.uint8]) -> None:
        """Takes the next window of `walk`."""
        self._hash.update(label_HW.tobytes())

    @property
    def text(self) -> str:
        """The digest as hexadecimal text."""
        return self._hash.hexdigest()


def classes_at(
    land_cover: LandCover,
    row_N: NDArray[np.int64],
    col_N: NDArray[np.int64],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.uint8], str]:
    """Reads the class of some pixels and, since every window is read, the digest of the map.

    Args:
        land_cover: The map.
        row_N: Rows [N]; -1 for a point beyond the map.
        col_N: Columns [N].
        progress: Called with the pixels gone through and the pixels in all.

    Returns:
        Class ids [N], 255 beyond the map and where it knows none; and the digest.

    Raises:
        SampleError: A part of the map cannot be read.
    """
    class_N = np.full(len(row_N), IGNORE_INDEX, np.uint8)
    digest = Digest(land_cover)
    for row, col, label_HW in walk(land_cover, progress):
        digest.add(label_HW)
        down_N, across_N = row_N - row, col_N - col
        here = (down_N >= 0) & (down_N < label_HW.shape[0]) & (across_N >= 0) & (across_N < label_HW.shape[1])
        class_N[here] = label_HW[down_N[here], across_N[here]]
    return class_N, digest.text


def _apply(
    transform: Any,  # noqa: ANN401
    x_N: NDArray[np.floating[Any]],
    y_N: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return (
        transform.a * x_N + transform.b * y_N + transform.c,
        transform.d * x_N + transform.e * y_N + transform.f,
    )


def _class_map(path: Path, tag: str | None, class_mapping: ClassMap | None) -> ClassMap:
    if tag is None:
        if class_mapping is None:
            raise SampleError(f"{path} does not tell its classes' names; name them with --class-mapping FILE.")
        return class_mapping
    try:
        own = ClassMap.from_records(json.loads(tag), str(path))
    except json.JSONDecodeError as error:
        raise SampleError(f"{path} has a damaged tag of classes ({error}); make the map again.") from error
    if class_mapping is not None and not class_mapping.same_as(own):
        raise SampleError(
            f"{path} has the classes {', '.join(own.names)}, but {class_mapping.source} has "
            f"{', '.join(class_mapping.names)}; leave out --class-mapping."
        )
    return own
