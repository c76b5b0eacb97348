"""Orthomosaics as users have them: band orders, depths, masks, containers, damage, and real files.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import re
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
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasters import RGBA, UTM_SOUTH, read_map, write_raster
from scipy import ndimage

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping import raster
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.stretch import Stretch
from salakseg.mapping.summary import MapSummary

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
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


# --- bands --------------------------------------------------------------------------------------------------------


def test_bands_are_taken_in_the_order_that_is_named(tmp_path: Path) -> None:
    image_CHW = scene()
    nir = np.full((2, 100, 120), 255, np.uint8)
    grey = [ColorInterp.gray] + [ColorInterp.undefined] * 4
    source = write_raster(tmp_path / "o.tif", np.concatenate([nir, image_CHW]), colorinterp=grey)
    for bands in ((3, 4, 5), (5, 4, 3), (4, 4, 4), (3, 1, 5)):
        label_HW, _ = mapped(source, bands=bands)
        all_bands = np.concatenate([nir, image_CHW])
        np.testing.assert_array_equal(label_HW, colour_class(all_bands[[band - 1 for band in bands]]))
        with rasterio.open(tmp_path / "map.tif") as made:
            assert made.tags()["bands"] == ",".join(map(str, bands))
    refused(source, "bands 1 to 5", "--bands 3,4,6", bands=(3, 4, 6))
    refused(source, "--bands 0,1,2", bands=(0, 1, 2))


def test_bands_are_found_by_their_meaning(tmp_path: Path) -> None:
    image_CHW, nir = scene(), np.full((100, 120), 99, np.uint8)
    bands = np.stack([nir, image_CHW[2], nir, image_CHW[1], image_CHW[0]])
    other = ColorInterp.undefined
    meanings = [other, ColorInterp.blue, other, ColorInterp.green, ColorInterp.red]
    source = write_raster(tmp_path / "o.tif", bands, colorinterp=meanings)
    np.testing.assert_array_equal(mapped(source)[0], colour_class(image_CHW))


def test_named_bands_change_the_colours_and_not_what_is_valid(tmp_path: Path) -> None:
    image_CHW, valid_HW = scene(), holes()
    bands = np.concatenate([image_CHW, np.where(valid_HW, 255, 0).astype(np.uint8)[None]])
    source = write_raster(tmp_path / "o.tif", bands)
    np.testing.assert_array_equal(mapped(source, bands=(3, 2, 1))[0], where_valid(image_CHW[::-1], valid_HW))


def test_the_first_bands_that_are_not_alpha_are_taken_where_none_has_a_meaning(tmp_path: Path) -> None:
    image_CHW = scene()
    alpha = np.full((1, 100, 120), 255, np.uint8)
    meanings = [ColorInterp.alpha, ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined]
    source = write_raster(tmp_path / "o.tif", np.concatenate([alpha, image_CHW]), colorinterp=meanings)
    np.testing.assert_array_equal(mapped(source)[0], colour_class(image_CHW))


# --- depth --------------------------------------------------------------------------------------------------------

DEPTHS: list[tuple[str, float, float]] = [("uint16", 0, 4080), ("int16", -1020, 3060), ("float32", 0, 1)]


@pytest.mark.parametrize(("dtype", "low", "high"), DEPTHS)
def test_a_stretch_makes_8_bits_of_any_depth(tmp_path: Path, dtype: str, low: float, high: float) -> None:
    # Steps of 1/1024 of the range, from far below it to far above: exact in float32 and in float64.
    position = np.random.default_rng(3).integers(-200, 1224, (3, 60, 70)) / 1024
    values = low + (high - low) * position
    if dtype != "float32":
        values = np.floor(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    source = write_raster(tmp_path / "o.tif", values.astype(dtype))
    exact = (values - low) / (high - low) * 255
    image_CHW = seen(source, stretch=Stretch(low, high))
    assert np.abs(image_CHW - exact.clip(0, 255)).max() <= 0.5001
    assert image_CHW.min() == 0 and image_CHW.max() == 255
    np.testing.assert_array_equal(mapped(source, stretch=Stretch(low, high))[0], colour_class(image_CHW))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.tags()["scale"] == f"{low:g},{high:g}"
    refused(source, dtype, "--scale")


def test_8_bits_are_taken_as_they_are_unless_a_stretch_is_named(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", scene())
    np.testing.assert_array_equal(seen(source), scene())
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.tags()["scale"] == "none"
    stretched = seen(source, stretch=Stretch(100, 151))
    np.testing.assert_array_equal(stretched, (5 * (scene().astype(int) - 100)).clip(0, 255))


def _dtype_values(dtype: str) -> NDArray[Any]:
    """Three bands of quite different ranges."""
    values = np.random.default_rng(6).normal([[[900]], [[1500]], [[2400]]], [[[200]], [[300]], [[100]]], (3, 150, 170))
    if dtype == "float32":
        return (values / 4095).astype(np.float32)
    return np.rint(values - (1300 if dtype == "int16" else 0)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_percentiles_are_those_of_all_valid_values_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(raster, "_PART", 64)  # the file is gone through in nine parts
    valid_HW = holes(150, 170)
    values = scene(150, 170) if dtype == "uint8" else _dtype_values(dtype)
    nodata = 0 if dtype == "uint8" else -9999 if dtype != "uint16" else 65535
    marked = np.where(valid_HW, values, np.array(nodata, values.dtype))
    source = write_raster(tmp_path / "o.tif", marked, nodata=nodata)
    label_HW, _ = mapped(source, stretch="percentile")
    with rasterio.open(tmp_path / "map.tif") as made:
        low, high = map(float, made.tags()["scale"].split(","))
    known = values[:, valid_HW].astype(np.float64)
    width = 1.0 if dtype != "float32" else (known.max() - known.min()) / 65535
    # Between two values numpy interpolates; the smallest gap that can be told is one bin.
    exact = np.percentile(known, [2, 98])
    gap = np.percentile(known, [2, 98], method="higher") - np.percentile(known, [2, 98], method="lower")
    assert (np.abs(np.array([low, high]) - exact) <= width + gap).all()
    # Whoever names the range that was found gets the same map.
    np.testing.assert_array_equal(mapped(source, stretch=Stretch(low, high))[0], label_HW)
    grey = ((known - low) / (high - low) * 255).clip(0, 255)
    assert (np.isclose(grey, 0).mean(), np.isclose(grey, 255).mean()) == pytest.approx((0.02, 0.02), abs=0.006)
    np.testing.assert_array_equal(label_HW == 255, ~valid_HW)


def test_what_is_not_a_number_is_unknown_and_changes_nothing_else(tmp_path: Path) -> None:
    values = _dtype_values("float32")[:, :100, :120].copy()
    valid_HW = holes()
    broken = values.copy()
    for band, wrong in enumerate((np.nan, np.inf, -np.inf)):  # each in one band only
        broken[band][~valid_HW & (np.arange(120) % 3 == band)] = wrong
    masked = write_raster(tmp_path / "masked" / "o.tif", values, mask=valid_HW)
    for options in ({"stretch": "percentile"}, {"stretch": Stretch(0, 1)}):
        expected_HW, _ = mapped(masked, BlurringEngine(), **options)
        with rasterio.open(masked.with_name("map.tif")) as made:
            scale = made.tags()["scale"]
        for name, nodata in (("plain", None), ("nan", np.nan)):
            source = write_raster(tmp_path / name / "o.tif", broken, nodata=nodata)
            label_HW, _ = mapped(source, BlurringEngine(), **options)
            np.testing.assert_array_equal(label_HW, expected_HW)
            with rasterio.open(source.with_name("map.tif")) as made:
                assert made.tags()["scale"] == scale
    np.testing.assert_array_equal(expected_HW == 255, ~valid_HW)


def test_a_file_without_a_range_of_values_is_refused(tmp_path: Path) -> None:
    constant = write_raster(tmp_path / "o.tif", np.full((3, 40, 50), 700, np.uint16))
    refused(constant, "--scale percentile", "700", stretch="percentile")
    empty = write_raster(tmp_path / "e.tif", np.zeros((3, 40, 50), np.uint16), nodata=0)
    refused(empty, "--scale percentile", "no valid pixel", stretch="percentile")


def test_values_of_which_nearly_all_are_the_same_still_have_a_range(tmp_path: Path) -> None:
    values = np.full((3, 60, 70), 700, np.uint16)
    values[:, :2, :2], values[:, 5:6, 5:6] = 100, 1120
    image_CHW = seen(write_raster(tmp_path / "o.tif", values), stretch="percentile")
    assert (image_CHW[:, 0, 0].tolist(), image_CHW[:, 5, 5].tolist()) == ([0] * 3, [255] * 3)
    assert np.unique(image_CHW[:, 10:]).tolist() == [150]


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", np.ones((3, 40, 50), np.complex64))
    refused(source, "complex", stretch="percentile")


# --- valid pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opaque", [65535, 255])
def test_alpha_of_16_bits(tmp_path: Path, opaque: int) -> None:
    image_CHW, valid_HW = scene(), holes()
    alpha = np.where(valid_HW, opaque, 0).astype(np.uint16)
    alpha[50, 10:20] = [1, 2, 100, 200, 255, 256, 300, 1000, 30000, 65534]  # a little is something
    valid_HW[50, 10:20] = True
    source = write_raster(tmp_path / "o.tif", np.concatenate([image_CHW.astype(np.uint16) * 16, alpha[None]]))
    label_HW, _ = mapped(source, stretch=Stretch(0, 4080))
    np.testing.assert_array_equal(label_HW, where_valid(image_CHW, valid_HW))


@pytest.mark.parametrize("meanings", ["rgbna", "rgbnna", "nbagr", "argb"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_counts_wherever_it_stands(tmp_path: Path, dtype: str, meanings: str) -> None:
    """Multispectral cameras give five bands and more, the last of which is alpha."""
    image_CHW, valid_HW = scene(), holes()
    nir = np.random.default_rng(8).integers(0, 256, valid_HW.shape)
    band = {"r": image_CHW[0], "g": image_CHW[1], "b": image_CHW[2], "n": nir, "a": np.where(valid_HW, 255, 0)}
    meaning = dict(zip("rgba", RGBA, strict=True)) | {"n": ColorInterp.undefined}
    bands = np.stack([band[letter] for letter in meanings]).astype(dtype)
    source = write_raster(tmp_path / "o.tif", bands, colorinterp=[meaning[letter] for letter in meanings])
    label_HW, _ = mapped(source, stretch=None if dtype == "uint8" else Stretch(0, 255))
    np.testing.assert_array_equal(label_HW, where_valid(image_CHW, valid_HW))


def test_nodata_of_each_band_in_a_vrt(tmp_path: Path) -> None:
    image_CHW = scene().clip(10, 240)
    valid_HW = holes()
    nodata = np.array([0, 255, 7])
    bands = np.where(valid_HW, image_CHW, nodata[:, None, None]).astype(np.uint8)
    bands[0, 60, 60:70] = 0  # of one band only: a dark red is no hole
    write_raster(tmp_path / "bands.tif", bands)
    parts = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>{value}</NoDataValue>'
        f"<ColorInterp>{color}</ColorInterp><SimpleSource><SourceFilename relativeToVRT='1'>bands.tif</SourceFilename>"
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, value, color in zip((1, 2, 3), nodata, ("Red", "Green", "Blue"), strict=True)
    )
    geo = ", ".join(map(str, UTM_SOUTH.to_gdal()))
    source = tmp_path / "o.vrt"
    source.write_text(
        f'<VRTDataset rasterXSize="120" rasterYSize="100"><SRS>EPSG:32749</SRS><GeoTransform>{geo}</GeoTransform>'
        f"{parts}</VRTDataset>"
    )
    np.testing.assert_array_equal(mapped(source)[0], where_valid(bands, valid_HW))


# --- containers ---------------------------------------------------------------------------------------------------


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


def _mosaic(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
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


@pytest.mark.parametrize("gsd_m", [None, 0.08])
@pytest.mark.parametrize("container", [_striped, _tiled, _jpeg, _big, _cog, _five_bands, _mosaic])
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


# --- damage -------------------------------------------------------------------------------------------------------

Place = tuple[int, int, int, int]


def damage(path: Path, block: tuple[int, int], band: int = 1) -> Place:
    """Overwrites the middle of one block on the disk; gives its row, column, height and width."""
    with rasterio.open(path) as dataset:
        name = f"{block[1]}_{block[0]}"
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{name}", "TIFF", bidx=band)) for what in ("OFFSET", "SIZE")
        )
        height, width = dataset.block_shapes[0]
        row, col = block[0] * height, block[1] * width
        place = row, col, min(height, dataset.height - row), min(width, dataset.width - col)
    with path.open("r+b") as file:
        file.seek(offset + size // 3)
        file.write(b"\xff" * (size // 3))
    return place


LAYOUTS: dict[str, tuple[dict[str, Any], tuple[int, int], int]] = {
    "tiled": ({"tiled": True, "blockxsize": 64, "blockysize": 64}, (1, 2), 1),
    "at the corner": ({"tiled": True, "blockxsize": 64, "blockysize": 64}, (2, 3), 1),
    "striped": ({"blockysize": 10}, (7, 0), 1),
    "band by band": ({"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"}, (0, 1), 3),
    "alpha alone": ({"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"}, (1, 1), 4),
    "transparent": ({"tiled": True, "blockxsize": 32, "blockysize": 32}, (2, 1), 1),
}


@pytest.mark.parametrize("scale", [None, "percentile"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_block_is_refused_or_mapped_around(tmp_path: Path, layout: str, scale: Any) -> None:
    options, block, band = LAYOUTS[layout]
    bands = np.random.default_rng(1).integers(1, 255, (3, 150, 210), dtype=np.uint8)
    transparent = layout in ("transparent", "alpha alone")
    if transparent:
        bands = np.concatenate([bands, np.where(holes(150, 210), 255, 0).astype(np.uint8)[None]])
    whole_HW, _ = mapped(write_raster(tmp_path / "whole" / "o.tif", bands), stretch=Stretch(6, 249) if scale else None)
    source = write_raster(tmp_path / "o.tif", bands, compress="deflate", **({"interleave": "pixel"} | options))
    row, col, height, width = place = damage(source, block, band)

    message = refused(source, "cannot be read", "damaged", "--skip-bad-blocks", midway=True, stretch=scale)
    found = re.search(r"at row (\d+), column (\d+);", message)
    assert found is not None
    if scale is None:  # the window of 48 pixels that was being read
        assert row - 48 < int(found[1]) < row + height
        assert col - 48 < int(found[2]) < col + width

    engine = ColourEngine()
    label_HW, summary = mapped(source, engine, stretch=scale, skip_bad_blocks=True)
    assert summary.bad_blocks == (place,)
    assert len(summary.warnings) == 1
    assert f"row {row} column {col}" in summary.warnings[0] and "1 block" in summary.warnings[0]
    inside = slice(row, row + height), slice(col, col + width)
    assert (label_HW[inside] == 255).all()
    if scale is not None:  # the range comes from other pixels, if only a few
        with rasterio.open(tmp_path / "map.tif") as made:
            low, high = map(float, made.tags()["scale"].split(","))
        known = np.ones((150, 210), np.bool_)
        known[inside] = False
        if transparent:
            known &= bands[3] > 0
        assert [low, high] == pytest.approx(np.percentile(bands[:3, known], [2, 98]), abs=1)
        expected_HW = mapped(tmp_path / "whole" / "o.tif", stretch=Stretch(low, high))[0]
    else:
        expected_HW = whole_HW
    different_HW = label_HW != expected_HW
    different_HW[inside] = False
    assert not different_HW.any()


@pytest.mark.parametrize("gsd_m", [0.1, 0.165, 0.03])
def test_a_bad_block_reaches_no_further_than_its_neighbourhood_when_resampled(tmp_path: Path, gsd_m: float) -> None:
    image_CHW = scene(150, 210)
    whole_HW, _ = mapped(write_raster(tmp_path / "whole" / "o.tif", image_CHW), ColourEngine(gsd_m=gsd_m))
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "interleave": "pixel"}
    source = write_raster(tmp_path / "o.tif", image_CHW, **options)
    row, col, height, width = place = damage(source, (1, 1))
    label_HW, summary = mapped(source, ColourEngine(gsd_m=gsd_m), skip_bad_blocks=True)
    assert summary.bad_blocks == (place,)
    bad_HW = np.zeros((150, 210), np.bool_)
    bad_HW[row : row + height, col : col + width] = True
    np.testing.assert_array_equal(label_HW == 255, bad_HW)
    # The model's pixels that touch the block, and those between whose centres it lies.
    reach = int(np.ceil(2 * max(1.0, gsd_m / 0.05)))
    near_HW = ndimage.binary_dilation(bad_HW, np.ones((2 * reach + 1, 2 * reach + 1)))
    np.testing.assert_array_equal(label_HW[~near_HW], whole_HW[~near_HW])
    assert (label_HW[near_HW & ~bad_HW] != 255).all()


def test_several_bad_blocks_are_all_listed(tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "pixel"}
    image_CHW = np.random.default_rng(1).integers(1, 255, (3, 150, 210), dtype=np.uint8)
    source = write_raster(tmp_path / "o.tif", image_CHW, **options)
    places = sorted(damage(source, block) for block in ((0, 0), (0, 6), (2, 3), (2, 4), (4, 6), (4, 0)))
    label_HW, summary = mapped(source, skip_bad_blocks=True)
    assert summary.bad_blocks == tuple(places)
    assert "6 blocks" in summary.warnings[0] and "1 more" in summary.warnings[0]
    expected_HW = colour_class(image_CHW)
    for row, col, height, width in places:
        expected_HW[row : row + height, col : col + width] = 255
    np.testing.assert_array_equal(label_HW, expected_HW)


def test_bad_blocks_of_an_earlier_run_are_listed_after_resuming(tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "pixel"}
    source = write_raster(tmp_path / "o.tif", scene(300, 100), **options)
    places = sorted(damage(source, block) for block in ((0, 1), (8, 2)))
    settings = MapSettings(source=SourceOptions(skip_bad_blocks=True))

    class FailingEngine(ColourEngine):
        def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            if len(self.seen) == 12:
                raise RuntimeError("out of memory")
            return super().predict(image_BCHW)

    with pytest.raises(RuntimeError):
        predict_map(source, tmp_path / "map.tif", FailingEngine(), settings)
    summary = predict_map(source, tmp_path / "map.tif", ColourEngine(), settings, resume=True)
    assert summary.resumed > 0
    assert summary.bad_blocks == tuple(places)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), mapped(source, skip_bad_blocks=True)[0])


@pytest.mark.parametrize("transparent", [True, False])
def test_a_missing_part_of_a_mosaic_is_never_mapped(tmp_path: Path, transparent: bool) -> None:
    image_CHW = scene().clip(128, 254)  # all of it class 6, so that black shows as what it is
    source = _mosaic(tmp_path, image_CHW, np.ones((100, 120), np.bool_))
    if not transparent:
        alpha = re.compile(r'<VRTRasterBand dataType="Byte" band="4">.*?</VRTRasterBand>', re.DOTALL)
        source.write_text(alpha.sub("", source.read_text()))
    (tmp_path / "part-45-50.tif").unlink()
    refused(source, "cannot be read", "--skip-bad-blocks", midway=True)
    label_HW, summary = mapped(source, skip_bad_blocks=True)
    assert (label_HW[45:, 50:] == 255).all()
    assert set(np.unique(label_HW)) <= {6, 255}
    assert summary.bad_blocks and summary.warnings  # nothing is left out without a word


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
