"""Orthomosaics as users have them: band orders, depths, and which pixels are valid.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odd_sources import BlurringEngine, colour_class, holes, mapped, refused, scene, seen, where_valid
from rasterio.enums import ColorInterp
from rasters import RGBA, UTM_SOUTH, write_raster

from salakseg.mapping import raster
from salakseg.mapping.stretch import Stretch

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


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
