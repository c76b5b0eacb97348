"""Opening a raster file as an orthomosaic: everything that can be wrong with a user's file, in one sentence each."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from salakseg.errors import RasterError
from salakseg.mapping.stretch import Stretch
from salakseg.shell import as_argument


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a user wants an orthomosaic to be read.

    Attributes:
        bands: One-based indices of red, green and blue; None finds them by their meaning or their name, or takes the
            first three.
        stretch: The range of values that becomes 0 to 255; "percentile" finds it in the file; None takes 8-bit values
            as they are and refuses all others.
        allow_no_crs: Accept a picture that does not say where it lies.
        skip_bad_blocks: Take blocks of the file that cannot be read for not valid, and note them.
    """

    bands: tuple[int, int, int] | None = None
    stretch: Stretch | Literal["percentile"] | None = None
    allow_no_crs: bool = False
    skip_bad_blocks: bool = False


def open_dataset(path: Path, options: SourceOptions) -> tuple[Any, tuple[int, int, int]]:
    """Opens a file that fulfils all that the mapping needs.

    Returns:
        The open `rasterio` dataset, and its red, green and blue bands, counted from one.

    Raises:
        RasterError: The file is missing, no raster, has no such bands, another depth or no georeference.
    """
    dataset = _open(path)
    try:
        bands = _rgb_bands(dataset, path) if options.bands is None else _named_bands(dataset, path, options.bands)
        _check_depth(dataset, bands, path, options)
        _check_georeference(dataset, path, options.allow_no_crs)
    except BaseException:
        dataset.close()
        raise
    return dataset, bands


@contextmanager
def without_place() -> Iterator[None]:
    """Lets rasters pass without a warning that do not say where they lie, as stripes and some maps do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _open(path: Path) -> Any:  # noqa: ANN401
    if not path.exists():
        raise RasterError(f"{path} does not exist; check the orthomosaic's name.")
    if path.is_dir():
        raise RasterError(f"{path} is a folder; name the orthomosaic's file in it.")
    try:
        with without_place():  # _check_georeference says it better
            return rasterio.open(path)
    except RasterioError as error:
        raise RasterError(
            f"{path} is not a raster that can be read, or it is damaged; export the orthomosaic as GeoTIFF."
        ) from error


def told_bands(dataset: Any) -> tuple[int, int, int] | None:  # noqa: ANN401
    """The bands that a file itself says are red, green and blue, by their meaning or their description."""
    names = [(name or "").strip().casefold() for name in dataset.descriptions]
    meanings: list[tuple[list[Any], tuple[Any, Any, Any]]] = [
        (list(dataset.colorinterp), (ColorInterp.red, ColorInterp.green, ColorInterp.blue)),
        (names, ("red", "green", "blue")),
    ]
    for found, (red, green, blue) in meanings:
        if red in found and green in found and blue in found:
            return found.index(red) + 1, found.index(green) + 1, found.index(blue) + 1
    return None


def _rgb_bands(dataset: Any, path: Path) -> tuple[int, int, int]:  # noqa: ANN401
    if (told := told_bands(dataset)) is not None:
        return told
    meanings = list(dataset.colorinterp)
    others = [index for index, meaning in enumerate(meanings, start=1) if meaning != ColorInterp.alpha]
    if len(others) >= 3:
        return others[0], others[1], others[2]
    if ColorInterp.palette in meanings:
        remedy = f"expand its palette with `gdal_translate -expand rgb {as_argument(path)} rgb.tif`"
    else:
        remedy = "an RGB orthomosaic is needed, export it with red, green and blue"
    raise RasterError(f"{path} has {len(others)} colour band{'s' * (len(others) != 1)} where 3 are needed; {remedy}.")


def _named_bands(dataset: Any, path: Path, bands: tuple[int, int, int]) -> tuple[int, int, int]:  # noqa: ANN401
    if not all(1 <= band <= dataset.count for band in bands):
        named = ",".join(map(str, bands))
        raise RasterError(f"{path} has bands 1 to {dataset.count}, not --bands {named}; name three that it has.")
    return bands


def _check_depth(dataset: Any, bands: tuple[int, int, int], path: Path, options: SourceOptions) -> None:  # noqa: ANN401
    dtype = next((dataset.dtypes[band - 1] for band in bands if dataset.dtypes[band - 1] != "uint8"), None)
    if dtype is not None and dtype.startswith("complex"):
        raise RasterError(f"{path} holds complex numbers ({dtype}); an orthomosaic of red, green and blue is needed.")
    if dtype is not None and options.stretch is None:
        brightest = "1" if dtype.startswith("float") else "4095"
        raise RasterError(
            f"{path} is {dtype}, and a model knows 8-bit colours; say which values are black and white, for example "
            f"--scale 0,{brightest} (the brightest value that the camera gives), or let --scale percentile find them."
        )


def _check_georeference(dataset: Any, path: Path, allow_no_crs: bool) -> None:  # noqa: ANN401
    if dataset.transform.is_identity and (dataset.gcps[0] or dataset.rpcs):
        raise RasterError(
            f"{path} is georeferenced by control points only; "
            f"rectify it first with `gdalwarp -r bilinear -dstalpha {as_argument(path)} rectified.tif`."
        )
    if allow_no_crs:
        return
    if not dataset.crs:
        raise RasterError(
            f"{path} names no coordinate reference system; assign it with `gdal_edit.py -a_srs EPSG:CODE "
            f"{as_argument(path)}`, or let predict or prepare take it without one by --allow-no-crs."
        )
    if dataset.transform.is_identity:
        raise RasterError(
            f"{path} does not say where its pixels lie; export it with its georeference (or its world file beside it), "
            "or let predict or prepare take it without one by --allow-no-crs."
        )
