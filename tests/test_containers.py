"""Orthomosaics in every container that users have, and real files.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from helpers import SHARED_DATA
from numpy.typing import NDArray
from odd_sources import RGB, ColourEngine, holes, mapped, refused, scene, vrt_mosaic, where_valid
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasters import UTM_SOUTH, write_raster

from salakseg.classes import SALAK
from salakseg.errors import RasterError
from salakseg.mapping import raster
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def _striped(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    return write_raster(folder / "o.tif", image_CHW, mask=valid_HW, tiled=False, blockysize=7, compress="lzw")


def _tiled(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 16, "interleave": "band", "compress": "deflate"}
    return write_raster(folder / "o.tif", image_CHW, mask=valid_HW, **options)


def _jpeg(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "jpeg", "photometric": "ycbcr"}
    return write_raster(folder / "o.tif", image_CHW, mask=valid_HW, interleave="pixel", **options)


def _big(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    path = write_raster(folder / "o.tif", image_CHW, mask=valid_HW, BIGTIFF="YES")
    assert path.read_bytes()[2] == 43  # its version number
    return path


def _cog(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    alpha = np.where(valid_HW, 255, 0).astype(np.uint8)[None]
    plain = write_raster(folder / "plain.tif", np.concatenate([image_CHW, alpha]))
    rasterio.shutil.copy(plain, folder / "o.tif", driver="COG", COMPRESS="DEFLATE", BLOCKSIZE="128")
    return folder / "o.tif"


def _five_bands(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    nir = np.random.default_rng(8).integers(0, 256, (1, *valid_HW.shape), dtype=np.uint8)
    meanings = [*RGB, ColorInterp.undefined, ColorInterp.undefined]
    return write_raster(folder / "o.tif", np.concatenate([image_CHW, nir, nir]), colorinterp=meanings, mask=valid_HW)


@pytest.mark.parametrize("gsd_m", [None, 0.08])
@pytest.mark.parametrize("container", [_striped, _tiled, _jpeg, _big, _cog, _five_bands, vrt_mosaic])
def test_containers_make_no_difference(tmp_path: Path, container: Callable[..., Path], gsd_m: float | None) -> None:
    image_CHW, valid_HW = scene(), holes()
    source = container(tmp_path, image_CHW, valid_HW)
    with rasterio.open(source) as dataset:
        stored_CHW = dataset.read([1, 2, 3])
        assert dataset.shape == (100, 120)
    assert np.abs(stored_CHW - image_CHW.astype(int)).mean() < 8  # a JPEG is not quite what it was
    label_HW, summary = mapped(source, ColourEngine(gsd_m=gsd_m))
    plain = write_raster(tmp_path / "plain" / "plain.tif", stored_CHW, mask=valid_HW)
    expected_HW = where_valid(stored_CHW, valid_HW) if gsd_m is None else mapped(plain, ColourEngine(gsd_m=gsd_m))[0]
    np.testing.assert_array_equal(label_HW, expected_HW)
    assert not summary.bad_blocks and not summary.warnings
    with rasterio.open(tmp_path / "map.tif") as made:
        assert (made.crs, made.transform) == (rasterio.crs.CRS.from_epsg(32749), UTM_SOUTH)
        assert (made.count, made.dtypes, made.nodata) == (1, ("uint8",), 255)
        assert made.compression == rasterio.enums.Compression.lzw


@pytest.mark.parametrize("allowed", [False, True])
def test_control_points_alone_are_no_georeference(tmp_path: Path, allowed: bool) -> None:
    points = [
        GroundControlPoint(row, col, 431000 + 0.05 * col + 0.01 * row, 9154000 - 0.05 * row)
        for row in (0, 99) for col in (0, 119)
    ]  # fmt: skip
    source = write_raster(tmp_path / "o.tif", scene(), transform=Affine.identity(), crs=None)
    with rasterio.open(source, "r+") as dataset:
        dataset.gcps = points, rasterio.crs.CRS.from_epsg(32749)
    refused(source, "control points", "gdalwarp", allow_no_crs=allowed)


def test_camera_models_alone_are_no_georeference(tmp_path: Path) -> None:
    row, col = [1.0, *[0.0] * 19], [0.0, 1.0, *[0.0] * 18]
    rpc = RPC(0.0, 100.0, -7.6, 0.1, row, col, 50.0, 50.0, 110.1, 0.1, row, col, 60.0, 60.0, 1.0, 1.0)
    source = write_raster(tmp_path / "o.tif", scene(), transform=Affine.identity(), crs=None, rpcs=rpc)
    refused(source, "gdalwarp")


# --- real files ---------------------------------------------------------------------------------------------------


class LightEngine(ColourEngine):
    """Two classes by the green band alone: quick on millions of pixels."""

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        prob_BKHW = np.zeros((len(image_BCHW), len(SALAK), self.tile, self.tile), np.float32)
        prob_BKHW[:, 1] = image_BCHW[:, 1] > 100
        prob_BKHW[:, 0] = 1 - prob_BKHW[:, 1]
        return prob_BKHW


REAL_FILES: list[Any] = sorted(
    path
    for folder in ("geotiff-kinds", "orthomosaics")
    for path in (SHARED_DATA / folder).glob("*")
    if path.suffix in (".tif", ".vrt")
)
ABSENT = pytest.param(SHARED_DATA, marks=pytest.mark.skip(reason="the shared imagery is not beside this checkout"))
REFUSED_AT_5_CM = ("RGB.byte.tif", "3420B", "ngi_")


@pytest.mark.parametrize("source", REAL_FILES or [ABSENT], ids=lambda path: path.name)
def test_real_files_are_mapped_at_their_own_pixels_and_at_others(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "map.tif"
    with rasterio.open(source) as dataset:
        image_CHW, valid_HW = dataset.read([1, 2, 3]), dataset.dataset_mask() > 0
        crs, transform, dtype = dataset.crs, dataset.transform, dataset.dtypes[0]
    options = SourceOptions()
    if dtype != "uint8":
        with pytest.raises(RasterError, match=r"uint16.*--scale") as caught:
            predict_map(source, out, LightEngine(256))
        assert str(source) in str(caught.value)
        options = SourceOptions(stretch="percentile", allow_no_crs=True)
    with raster.Orthomosaic(source, options) as orthomosaic:
        orthomosaic.settle_stretch()
        image_CHW = orthomosaic.read(0, 0, orthomosaic.height, orthomosaic.width)[0] if dtype != "uint8" else image_CHW
        gsd_m = orthomosaic.gsd_m
    settings = MapSettings(source=options)
    predict_map(source, out, LightEngine(256), settings)
    expected_HW = np.where(valid_HW, image_CHW[1] > 100, 255).astype(np.uint8)
    with rasterio.open(out) as made:
        assert (made.crs, made.transform) == (crs, transform)
        np.testing.assert_array_equal(made.read(1), expected_HW)

    if source.name.startswith(REFUSED_AT_5_CM):
        with pytest.raises(RasterError) as caught:
            predict_map(source, out, LightEngine(256, gsd_m=0.05), settings, overwrite=True)
        assert str(source) in str(caught.value) and "--gsd off" in str(caught.value)
        assert "times as coarse" in str(caught.value) and "\n" not in str(caught.value)
    # Reduced: the file's own grid, its own valid pixels, and mostly the class of the pixels themselves.
    reduced = None if gsd_m is None else 0.05 if gsd_m < 0.03 else 2.2 * gsd_m
    summary = predict_map(source, out, LightEngine(256, gsd_m=reduced), settings, overwrite=True)
    with rasterio.open(out) as made:
        assert (made.crs, made.transform) == (crs, transform)
        label_HW = made.read(1)
    np.testing.assert_array_equal(label_HW == 255, ~valid_HW)
    assert summary.valid_share == pytest.approx(valid_HW.mean())
    assert (label_HW == expected_HW).mean() > 0.8
