"""Orthomosaics and photos as pixels to cut, on the grid that was asked for.

Axes: C red, green, blue; H rows from the top; W columns from the left.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rasterio.errors import RasterioError

from salakseg.data.masks import is_deep
from salakseg.errors import DataError
from salakseg.mapping.opening import SourceOptions, without_place
from salakseg.mapping.plan import resample_by
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.resampled import ResampledOrthomosaic
from salakseg.mapping.settings import MAX_ENLARGEMENT, MAX_REDUCTION
from salakseg.prepare.finding import PHOTOS
from salakseg.prepare.grid import Grid
from salakseg.prepare.parts.exif import damaged_exif_says_nothing

SAME_GSD = 0.01
"""An orthomosaic whose pixels are the wanted ones but for this share is cut as it is: resampling would blur it."""

Pixels = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""image_CHW [3, H, W], red green blue, and valid_HW [H, W]."""


class Source(Protocol):
    """An open orthomosaic or photo. One thread at a time may read from it.

    Attributes:
        path: The file.
        grid: The pixels that patches are cut from; without a CRS where the place is not known.
    """

    path: Path
    grid: Grid

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know, one sentence each; grows while it is read."""
        ...

    def read(self, row: int, col: int, height: int, width: int) -> Pixels:
        """Reads a window of the grid, which may reach beyond its end.

        Args:
            row: First row, from 0 on.
            col: First column, from 0 on.
            height: Rows of the window.
            width: Columns of the window.

        Returns:
            image_CHW [3, height, width] uint8, and valid_HW [height, width], False beyond the grid and where the file
            marks no data. What is not valid has any colour.

        Raises:
            SalaksegError: The file cannot be read.
        """
        ...

    def state(self) -> dict[str, str]:
        """Size and time of last change of the files that it consists of, as text by name."""
        ...

    def close(self) -> None:
        """Closes what is open."""
        ...


def open_source(path: Path, options: SourceOptions, gsd_m: float | None = None) -> Source:
    """Opens an orthomosaic or a photo.

    JPEG and PNG files are photos, and so are TIFF files that say nothing of a place, unless `options.allow_no_crs`
    makes them orthomosaics; those are read piece by piece, at any depth and any size.

    Args:
        path: The file.
        options: How an orthomosaic is read; photos are what they are.
        gsd_m: Metres a pixel of the grid; None for the file's own pixels.

    Raises:
        SalaksegError: The file is missing, damaged, of an unfit kind, or has pixels of unknown size where `gsd_m` is
            given.
    """
    if path.suffix.lower() in PHOTOS or not (options.allow_no_crs or _says_its_place(path)):
        if gsd_m is not None:
            raise DataError(
                f"{path} is a photo, whose pixels have no known size on the ground; leave out --gsd for photos."
            )
        return PhotoSource(path)
    orthomosaic = Orthomosaic(path, options)
    try:
        return MosaicSource(orthomosaic, gsd_m)
    except BaseException:
        orthomosaic.close()
        raise


class MosaicSource:
    """An orthomosaic as a `Source`; the attributes are described there.

    Args:
        orthomosaic: Closed with the source.
        gsd_m: Metres a pixel; None for its own pixels.

    Raises:
        DataError: Its pixels have no area, or their size is not known or too coarse for `gsd_m`.
    """

    def __init__(self, orthomosaic: Orthomosaic, gsd_m: float | None = None) -> None:
        self.path = orthomosaic.path
        self._orthomosaic = orthomosaic
        self._reader: Orthomosaic | ResampledOrthomosaic = orthomosaic
        self._settled = orthomosaic.options.stretch != "percentile"
        self.grid = Grid(orthomosaic.height, orthomosaic.width, orthomosaic.transform, orthomosaic.crs)
        if self.grid.transform.is_degenerate:
            raise DataError(
                f"{self.path} has a georeference by which its pixels have no area; export it anew, or give it another "
                "with `gdal_edit.py -a_ullr`."
            )
        if gsd_m is not None:
            self._resample_to(gsd_m)

    def _resample_to(self, gsd_m: float) -> None:
        if self._orthomosaic.pixel_m is None:
            raise DataError(
                f"{self.path} names no coordinate reference system, so that the size of its pixels is not known; "
                "assign one, or leave out --gsd."
            )
        across, down = (gsd_m / size for size in self._orthomosaic.pixel_m)
        if min(across, down) < 1 / MAX_ENLARGEMENT or max(across, down) > MAX_REDUCTION:
            raise DataError(
                f"{self.path} has {self._orthomosaic.gsd_m:.3g} m a pixel, which is too far from --gsd {gsd_m:g}; "
                f"choose {max(self._orthomosaic.pixel_m) / MAX_ENLARGEMENT:.3g} m or more, or check its georeference."
            )
        if max(abs(across - 1), abs(down - 1)) <= SAME_GSD:
            return
        to_grid = resample_by(self._orthomosaic.height, self._orthomosaic.width, (down, across))
        self._reader = ResampledOrthomosaic(self._orthomosaic, to_grid.rows, to_grid.cols)
        transform = self._orthomosaic.transform @ Affine.scale(across, down)
        self.grid = Grid(to_grid.rows.size_out, to_grid.cols.size_out, transform, self._orthomosaic.crs)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Source`; grows while the file is read."""
        bad = len(self._orthomosaic.bad_blocks)
        unread = (f"{self.path}: {bad} blocks cannot be read and are not valid.",) if bad else ()
        return unread if self._orthomosaic.guess is None else (self._orthomosaic.guess, *unread)

    def read(self, row: int, col: int, height: int, width: int) -> Pixels:
        """See `Source`."""
        if not self._settled:  # reads the whole file twice: only when it is really cut
            self._orthomosaic.settle_stretch()
            self._settled = True
        return self._reader.read(row, col, height, width)

    def state(self) -> dict[str, str]:
        """See `Source`."""
        return self._orthomosaic.state()

    def close(self) -> None:
        """See `Source`."""
        self._orthomosaic.close()


class PhotoSource:
    """A photo as a `Source`; the attributes are described there.

    Its pixels are those of the file, whatever its EXIF orientation says of turning them for display: masks and
    annotations are compared with the file, and a map is made of unturned rasters. `notes` tells of such a photo.

    Raises:
        DataError: The file is missing, no picture, or has more than 8 bits a channel.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pixels: Pixels | None = None
        turned = 1
        # Warnings are of panoramas, which are large, and of damaged EXIF data
        with _errors(path), warnings.catch_warnings(action="ignore"):
            with Image.open(path) as picture:
                with damaged_exif_says_nothing():
                    # not the picture's own method: that of PNG decodes the whole file to look behind the pixels, too
                    turned = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
                if is_deep(picture):
                    raise DataError(
                        f"{path} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits, or give "
                        "it as a TIFF with --allow-no-crs and --scale."
                    )
                self.grid = Grid(picture.height, picture.width, Affine.identity())
        self.notes: tuple[str, ...] = ()
        if turned not in (0, 1):
            self.notes = (
                f"{path} is to be turned for display (EXIF orientation {turned}), but is cut as it is stored; masks "
                "and annotations must be of the unturned picture.",
            )

    def read(self, row: int, col: int, height: int, width: int) -> Pixels:
        """See `Source`."""
        if self._pixels is None:
            self._pixels = self._decode()
        image_CHW = np.zeros((3, height, width), np.uint8)
        valid_HW = np.zeros((height, width), np.bool_)
        all_CHW, all_HW = self._pixels
        part_HW = all_HW[row : row + height, col : col + width]
        there = slice(0, part_HW.shape[0]), slice(0, part_HW.shape[1])
        image_CHW[:, *there] = all_CHW[:, row : row + height, col : col + width]
        valid_HW[there] = part_HW
        return image_CHW, valid_HW

    def _decode(self) -> Pixels:
        with _errors(self.path), warnings.catch_warnings(action="ignore"):
            with Image.open(self.path) as picture:
                if picture.has_transparency_data:
                    image_HWC = np.asarray(picture.convert("RGBA"))
                    return image_HWC[..., :3].transpose(2, 0, 1), image_HWC[..., 3] > 0
                image_HWC = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
        return image_HWC.transpose(2, 0, 1), np.ones(image_HWC.shape[:2], np.bool_)

    def state(self) -> dict[str, str]:
        """See `Source`."""
        return file_state(self.path)

    def close(self) -> None:
        """See `Source`."""
        self._pixels = None


def file_state(*files: Path) -> dict[str, str]:
    """Size and time of last change of files, as text by name."""
    states = {file.name: file.stat() for file in files}
    return {name: f"{found.st_size} bytes, changed {found.st_mtime_ns}" for name, found in states.items()}


def _says_its_place(path: Path) -> bool:
    """Whether a raster is georeferenced in any way; one that cannot be opened is for `Orthomosaic` to complain of."""
    if not path.is_file():
        return True
    try:
        with without_place(), rasterio.Env(), rasterio.open(path) as dataset:
            placed = dataset.crs or not dataset.transform.is_identity or dataset.gcps[0] or dataset.rpcs
            return bool(placed) or dataset.driver != "GTiff"
    except RasterioError:
        return True


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the photo's name.") from error
    # Pillow reports a damaged picture with one of these, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        remedy = "copy it anew or leave it out"
        if path.suffix.lower() not in PHOTOS:  # Pillow knows few kinds of TIFF, GDAL nearly all
            remedy += ", or cut it as an orthomosaic by --allow-no-crs, with --scale if it has more than 8 bits"
        raise DataError(f"{path} is no readable photo ({error}); {remedy}.") from error
