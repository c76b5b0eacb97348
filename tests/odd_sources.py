"""Engines that tell every mistake in what they are shown, and pictures for them.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasters import UTM_SOUTH, read_map, write_raster
from scipy import ndimage

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.summary import MapSummary

RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


class ColourEngine:
    """Tells bright from dark in each of red, green and blue, so that no two bands can be taken for one another."""

    class_map: ClassMap = SALAK
    name = "colour"
    runs_on = "numpy on the CPU"

    def __init__(self, tile: int = 48, gsd_m: float | None = None) -> None:
        self.gsd_m = gsd_m
        self.tile = tile
        self.identity = {"model": "colour"}
        self.seen: list[NDArray[np.uint8]] = []

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += list(image_BCHW.copy())
        label_BHW = np.stack([colour_class(image_CHW) for image_CHW in image_BCHW])
        prob_BKHW = np.zeros((len(image_BCHW), len(SALAK), self.tile, self.tile), np.float32)
        np.put_along_axis(prob_BKHW, label_BHW[:, None].astype(np.intp), 1, axis=1)
        return prob_BKHW


class BlurringEngine(ColourEngine):
    """Each pixel depends on those around it."""

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        return ndimage.uniform_filter(super().predict(image_BCHW), (1, 1, 5, 5), mode="nearest")  # type: ignore[no-any-return]


def colour_class(image_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = (band_HW > 127 for band_HW in image_CHW)
    label_HW: NDArray[np.uint8] = np.minimum(red + 2 * green + 4 * blue, 6).astype(np.uint8)
    return label_HW


def mapped(
    source: Path, engine: ColourEngine | None = None, gsd: Any = "auto", **options: Any
) -> tuple[NDArray[np.uint8], MapSummary]:
    out = source.parent / "map.tif"
    settings = MapSettings(gsd=gsd, source=SourceOptions(**options))
    summary = predict_map(source, out, engine or ColourEngine(), settings, overwrite=True)
    return read_map(out), summary


def seen(source: Path, **options: Any) -> NDArray[np.uint8]:
    """The picture of at most 128 pixels a side that the model gets."""
    with rasterio.open(source) as dataset:
        height, width = dataset.shape
    engine = ColourEngine(128)
    mapped(source, engine, **options)
    (image_CHW,) = engine.seen
    return image_CHW[:, :height, :width]


def refused(source: Path, *words: str, midway: bool = False, **options: Any) -> str:
    """Maps what cannot be mapped; what is done before a failure midway may wait in its hidden folder."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(RasterError) as caught:
        mapped(source, **options)
    message = str(caught.value)
    for word in (str(source), *words):
        assert word in message
    assert "\n" not in message and message.endswith(".")
    left = [path for path in source.parent.iterdir() if path.name != ".map.tif.unfinished" or not midway]
    assert sorted(left) == before
    return message


def scene(height: int = 100, width: int = 120, seed: int = 0) -> NDArray[np.uint8]:
    """Soft blotches, different in each band."""
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, height, width)), (0, 4, 4))
    return np.asarray(127.5 + 60 * soft / soft.std()).clip(1, 254).astype(np.uint8)


def holes(height: int = 100, width: int = 120) -> NDArray[np.bool_]:
    """Valid pixels."""
    valid_HW = np.random.default_rng(5).random((height, width)) < 0.9
    valid_HW[:30, :25] = False
    return valid_HW


def where_valid(image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    label_HW: NDArray[np.uint8] = np.where(valid_HW, colour_class(image_CHW), 255).astype(np.uint8)
    return label_HW


def vrt_mosaic(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    """Four files with their masks, and a VRT as gdalbuildvrt writes it."""
    bands: list[list[str]] = [[], [], [], []]
    alpha = np.where(valid_HW, 255, 0).astype(np.uint8)[None]
    whole = np.concatenate([image_CHW, alpha])
    for row, col in ((0, 0), (0, 50), (45, 0), (45, 50)):
        part = whole[:, row : row + (45 if row == 0 else 55), col : col + (50 if col == 0 else 70)]
        name = f"part-{row}-{col}.tif"
        write_raster(folder / name, part, transform=UTM_SOUTH @ Affine.translation(col, row))
        size = f'xSize="{part.shape[2]}" ySize="{part.shape[1]}"'
        for band, sources in enumerate(bands, start=1):
            sources.append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}'
                f'</SourceBand><SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{col}" yOff="{row}" {size}/>'
                "</SimpleSource>"
            )
    content = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{color}</ColorInterp>{"".join(sources)}'
        "</VRTRasterBand>"
        for band, (color, sources) in enumerate(zip(("Red", "Green", "Blue", "Alpha"), bands, strict=True), start=1)
    )
    geo = ", ".join(map(str, UTM_SOUTH.to_gdal()))
    (folder / "o.vrt").write_text(
        f'<VRTDataset rasterXSize="120" rasterYSize="100"><SRS>EPSG:32749</SRS><GeoTransform>{geo}</GeoTransform>'
        f"{content}</VRTDataset>"
    )
    return folder / "o.vrt"
