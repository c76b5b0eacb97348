"""Opening orthomosaics: georeference, bands, valid pixels, and one clear sentence for a file that cannot be mapped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from salakseg.errors import RasterError
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.raster import Orthomosaic, reduced_shape
from salakseg.mapping.stretch import Stretch
from salakseg.mapping.tiles import fill_invalid

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
_E2 = 0.00669437999014
_BEND = 1 - _E2 * math.sin(math.radians(55.0)) ** 2
MERCATOR_55 = math.cos(math.radians(55.0)) * math.sqrt(_BEND**-0.5 * (1 - _E2) * _BEND**-1.5)
"""Metres on the ellipsoid for a metre of web Mercator, whose formulas are the sphere's, at 55 degrees north."""
ROTATED = Affine(0.04, 0.03, 431000.0, 0.03, -0.04, 9154000.0)
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write_raster(path: Path, bands: NDArray[Any], **profile: Any) -> Path:
    count, height, width = bands.shape
    defaults = {"driver": "GTiff", "crs": "EPSG:32749", "transform": UTM, "dtype": bands.dtype}
    mask = profile.pop("mask", None)
    meanings = profile.pop("colorinterp", None)
    with rasterio.open(path, "w", count=count, height=height, width=width, **(defaults | profile)) as dataset:
        if meanings is not None:
            dataset.colorinterp = meanings
        dataset.write(bands)
        if mask is not None:
            dataset.write_mask(mask)
    return path


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(1, 256, (3, 40, 60), dtype=np.uint8)


def test_a_window_is_read_as_it_is(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    with Orthomosaic(write_raster(tmp_path / "o.tif", rgb)) as orthomosaic:
        image_CHW, valid_HW = orthomosaic.read(10, 20, 16, 8)
        assert (orthomosaic.height, orthomosaic.width) == (40, 60)
        assert orthomosaic.transform == UTM
        assert orthomosaic.crs.to_epsg() == 32749
    assert image_CHW.dtype == np.uint8
    assert valid_HW.all()
    np.testing.assert_array_equal(image_CHW, rgb[:, 10:26, 20:28])


@pytest.mark.parametrize(("row", "col"), [(-5, -7), (35, 55), (-3, 58), (100, 100), (-50, 3)])
def test_beyond_the_raster_nothing_is_valid(tmp_path: Path, rgb: NDArray[np.uint8], row: int, col: int) -> None:
    padded = np.zeros((3, 40 + 400, 60 + 400), np.uint8)
    padded[:, 200:240, 200:260] = rgb
    with Orthomosaic(write_raster(tmp_path / "o.tif", rgb)) as orthomosaic:
        image_CHW, valid_HW = orthomosaic.read(row, col, 12, 14)
    expected = padded[:, 200 + row : 212 + row, 200 + col : 214 + col]
    np.testing.assert_array_equal(image_CHW, expected)
    np.testing.assert_array_equal(valid_HW, expected.any(axis=0))


def test_bands_are_found_by_their_meaning(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    infrared = np.full((1, 40, 60), 7, np.uint8)
    meanings = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    path = write_raster(tmp_path / "o.tif", np.concatenate([infrared, rgb[::-1]]), colorinterp=meanings)
    with Orthomosaic(path) as orthomosaic:
        assert orthomosaic.bands == (4, 3, 2)
        np.testing.assert_array_equal(orthomosaic.read(0, 0, 40, 60)[0], rgb)


def test_bands_without_meaning_are_the_first_three(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    bands = np.concatenate([rgb, np.full((1, 40, 60), 7, np.uint8)])
    meanings = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined, ColorInterp.undefined]
    with Orthomosaic(write_raster(tmp_path / "o.tif", bands, colorinterp=meanings)) as orthomosaic:
        assert orthomosaic.bands == (1, 2, 3)
        assert orthomosaic.guess is not None
        assert "which of its 4 bands are red, green and blue; bands 1,2,3 are taken" in orthomosaic.guess
        assert orthomosaic.read(0, 0, 40, 60)[1].all()
    with Orthomosaic(tmp_path / "o.tif", SourceOptions(bands=(1, 2, 3))) as orthomosaic:
        assert orthomosaic.guess is None


def test_bands_are_found_by_their_name(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """As multispectral cameras leave them: blue first, and no colour interpretation."""
    bands = np.concatenate([rgb[::-1], np.full((2, 40, 60), 7, np.uint8)])
    path = write_raster(tmp_path / "o.tif", bands, colorinterp=[ColorInterp.gray, *[ColorInterp.undefined] * 4])
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("Blue", "Green", "Red", "RedEdge", "NIR")
    with Orthomosaic(path) as orthomosaic:
        assert orthomosaic.bands == (3, 2, 1)
        assert orthomosaic.guess is None
        np.testing.assert_array_equal(orthomosaic.read(0, 0, 40, 60)[0], rgb)


def test_what_programs_leave_beside_a_raster_is_no_part_of_it(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = write_raster(tmp_path / "o.tif", rgb)
    with Orthomosaic(path) as orthomosaic:
        before = orthomosaic.state()
    assert list(before) == ["o.tif"]
    with rasterio.open(path) as dataset:  # as QGIS does for its histogram
        dataset.statistics(1)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2])
    assert {file.name for file in tmp_path.iterdir()} == {"o.tif", "o.tif.aux.xml", "o.tif.ovr"}
    with Orthomosaic(path) as orthomosaic:
        assert orthomosaic.state() == before


def _valid(path: Path) -> NDArray[np.bool_]:
    with Orthomosaic(path) as orthomosaic:
        return orthomosaic.read(0, 0, orthomosaic.height, orthomosaic.width)[1]


def test_alpha_marks_valid_pixels_and_half_transparent_ones_count(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    alpha = np.full((1, 40, 60), 255, np.uint8)
    alpha[0, :10], alpha[0, 10:20] = 0, 128
    path = write_raster(tmp_path / "o.tif", np.concatenate([rgb, alpha]), colorinterp=RGBA)
    np.testing.assert_array_equal(_valid(path), alpha[0] > 0)


def test_nodata_counts_only_where_all_bands_have_it(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    rgb[:, :10] = 0
    rgb[0, 10:20] = 0  # pure shades without red are data
    expected = np.ones((40, 60), np.bool_)
    expected[:10] = False
    np.testing.assert_array_equal(_valid(write_raster(tmp_path / "o.tif", rgb, nodata=0)), expected)


def test_an_infrared_of_nodata_is_no_hole(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """Over water the near infrared is 0; only where all four bands are is nothing."""
    near = np.full((1, 40, 60), 90, np.uint8)
    near[0, :20] = rgb[:, :10] = 0
    meanings = [*RGBA[:3], ColorInterp.undefined]
    path = write_raster(tmp_path / "o.tif", np.concatenate([rgb, near]), nodata=0, colorinterp=meanings)
    expected = np.ones((40, 60), np.bool_)
    expected[:10] = False
    np.testing.assert_array_equal(_valid(path), expected)


def test_an_opaque_alpha_is_not_nodata(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """White as nodata, which is what an opaque pixel has as its alpha."""
    alpha = np.full((1, 40, 60), 255, np.uint8)
    rgb[:, :10], alpha[0, 30:] = 255, 0
    path = write_raster(tmp_path / "o.tif", np.concatenate([rgb, alpha]), nodata=255, colorinterp=RGBA)
    expected = np.ones((40, 60), np.bool_)
    expected[:10] = expected[30:] = False
    np.testing.assert_array_equal(_valid(path), expected)


@pytest.mark.parametrize("internal", [True, False], ids=["internal mask", ".msk file"])
def test_masks_mark_valid_pixels(tmp_path: Path, rgb: NDArray[np.uint8], internal: bool) -> None:
    mask = np.random.default_rng(2).random((40, 60)) < 0.5
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write_raster(tmp_path / "o.tif", rgb, mask=mask)
    assert (tmp_path / "o.tif.msk").exists() is not internal
    np.testing.assert_array_equal(_valid(path), mask)


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32749", UTM, 0.05),
        ("EPSG:32749", ROTATED, 0.05),
        ("EPSG:2229", Affine(0.5, 0, 6e6, 0, -0.5, 2e6), 0.5 * 1200 / 3937),  # US survey feet
        ("EPSG:3857", Affine(0.2, 0, 11_241_103.0, 0, -0.2, 7_361_866.113), 0.2 * MERCATOR_55),
        ("EPSG:4326", Affine(1e-6, 0, 110.0, 0, -1e-6, 0.0), math.sqrt(0.1113195 * 0.1105743)),  # on the equator
        (
            "EPSG:4326",
            Affine(1e-6, 0, 110.0, 0, -1e-6, 60.0),
            math.sqrt(0.0558000 * 0.1114122),
        ),  # published degree lengths
    ],
    ids=["UTM", "rotated", "feet", "web Mercator at 55 degrees", "degrees, equator", "degrees, 60 north"],
)
def test_ground_sampling_distance(
    tmp_path: Path, rgb: NDArray[np.uint8], crs: str, transform: Affine, expected: float
) -> None:
    with Orthomosaic(write_raster(tmp_path / "o.tif", rgb, crs=crs, transform=transform)) as orthomosaic:
        assert orthomosaic.gsd_m == pytest.approx(expected, rel=1e-4)


def test_oblong_pixels_have_two_sizes(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = write_raster(tmp_path / "o.tif", rgb, transform=Affine(0.1, 0, 431000, 0, -0.4, 9154000))
    with Orthomosaic(path) as orthomosaic:
        assert orthomosaic.pixel_m == pytest.approx((0.1, 0.4))
        assert orthomosaic.gsd_m == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("height", "width", "most", "expected"),
    [(400, 600, 60, (40, 60)), (600, 400, 60, (60, 40)), (400, 600, 10_000, (400, 600)), (1, 9000, 90, (1, 90))],
)
def test_a_reduced_picture_keeps_the_aspect(
    tmp_path: Path, height: int, width: int, most: int, expected: tuple[int, int]
) -> None:
    assert reduced_shape(height, width, most) == expected
    bands = np.full((3, height, width), 90, np.uint8)
    with Orthomosaic(write_raster(tmp_path / "o.tif", bands)) as orthomosaic:
        image_CHW, valid_HW = orthomosaic.read_small(*expected)
    assert image_CHW.shape == (3, *expected)
    assert valid_HW.shape == expected
    assert (image_CHW == 90).all()
    assert valid_HW.all()


# --- which bands, which values ------------------------------------------------------------------------------------


def test_bands_that_are_named_are_taken(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = write_raster(tmp_path / "o.tif", np.concatenate([rgb, rgb[:1] // 2]))
    with Orthomosaic(path, SourceOptions(bands=(4, 1, 3))) as orthomosaic:
        assert orthomosaic.bands == (4, 1, 3)
        np.testing.assert_array_equal(orthomosaic.read(0, 0, 40, 60)[0], np.stack([rgb[0] // 2, rgb[0], rgb[2]]))


@pytest.mark.parametrize("bands", [(1, 2, 5), (0, 1, 2)])
def test_bands_that_are_not_there_are_refused(
    tmp_path: Path, rgb: NDArray[np.uint8], bands: tuple[int, int, int]
) -> None:
    path = write_raster(tmp_path / "o.tif", np.concatenate([rgb, rgb[:1]]))
    named = ",".join(map(str, bands))
    refused(path, "bands 1 to 4", f"--bands {named}", options=SourceOptions(bands=bands))


def _stretched(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """0 to 255 by the plainest arithmetic; halves may fall either way and are not asked for."""
    exact = (values.astype(np.float64) - low) / (high - low) * 255
    return np.rint(np.clip(exact, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint16", 500, 3000), ("int16", -500, 2900), ("float32", -0.2, 0.71), ("uint8", 9, 99)]
)
def test_a_range_of_values_becomes_8_bits(tmp_path: Path, dtype: str, low: float, high: float) -> None:
    wide = np.random.default_rng(6).uniform(low - (high - low) / 4, high + (high - low) / 4, (3, 40, 60))
    values = wide.clip(0, None).astype(dtype) if dtype.startswith("u") else wide.astype(dtype)
    path = write_raster(tmp_path / "o.tif", values)
    with Orthomosaic(path, SourceOptions(stretch=Stretch(low, high))) as orthomosaic:
        image_CHW, valid_HW = orthomosaic.read(-2, 3, 30, 20)
        small_CHW, _ = orthomosaic.read_small(40, 60)
    expected = _stretched(values, low, high)
    assert np.abs(image_CHW[:, 2:].astype(int) - expected[:, :28, 3:23]).max() <= 1  # float32 rounds at its halves
    assert (image_CHW[:, 2:] == expected[:, :28, 3:23]).mean() > 0.99
    assert (image_CHW[:, :2] == 0).all()
    assert valid_HW[2:].all()
    assert (small_CHW == expected).mean() > 0.99
    assert {int(expected.min()), int(expected.max())} == {0, 255}


def test_the_ends_of_a_range_are_black_and_white() -> None:
    values = np.array([-1, 0, 1, 2047, 4095, 5000, 65535])
    np.testing.assert_array_equal(Stretch(0, 4095).apply(values), [0, 0, 0, 127, 255, 255, 255])
    np.testing.assert_array_equal(Stretch(0, 1).apply(np.array([np.nan, -np.inf, np.inf, 0.5])), [0, 0, 255, 128])


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.nan), (-np.inf, 0)])
def test_an_impossible_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="a lower and a higher value"):
        Stretch(low, high)


@pytest.mark.parametrize(("dtype", "factor"), [("uint16", 40), ("float32", 1 / 300)])
def test_percentiles_are_found_among_the_valid_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, factor: float
) -> None:
    monkeypatch.setattr("salakseg.mapping.raster._PART", 32)  # several parts, the last ones smaller
    values = (np.random.default_rng(7).gamma(3, 20, (3, 70, 90)) * factor).astype(dtype) + np.ones(1, dtype)
    values[:, :30, :40] = 0
    path = write_raster(tmp_path / "o.tif", values, nodata=0)
    with Orthomosaic(path, SourceOptions(stretch="percentile")) as orthomosaic:
        orthomosaic.settle_stretch()
        found = orthomosaic.options.stretch
    assert isinstance(found, Stretch)
    valid = values[:, (values != 0).any(axis=0)]
    expected = np.percentile(valid, [2, 98], method="inverted_cdf")
    bin_width = 1 if dtype == "uint16" else float(np.ptp(valid)) / 65535
    assert [found.low, found.high] == pytest.approx(expected, abs=0 if dtype == "uint16" else 2 * bin_width)


def test_percentiles_of_reflectances_are_not_those_of_their_glints(tmp_path: Path) -> None:
    values = np.random.default_rng(7).uniform(0.02, 0.5, (3, 70, 90)).astype(np.float32)
    values[:, 0, :5] = 15  # the sun on water
    path = write_raster(tmp_path / "o.tif", values)
    with Orthomosaic(path, SourceOptions(stretch="percentile")) as orthomosaic:
        orthomosaic.settle_stretch()
        found = orthomosaic.options.stretch
    assert isinstance(found, Stretch)
    assert [found.low, found.high] == pytest.approx(np.percentile(values, [2, 98]), abs=0.002)


@pytest.mark.parametrize(("value", "words"), [(0, "no valid pixel"), (700, "all its values are 700")])
def test_percentiles_of_nothing_are_refused(tmp_path: Path, value: int, words: str) -> None:
    path = write_raster(tmp_path / "o.tif", np.full((3, 40, 60), value, np.uint16), nodata=0)
    with (
        Orthomosaic(path, SourceOptions(stretch="percentile")) as orthomosaic,
        pytest.raises(RasterError, match=rf"o\.tif gives no range for --scale percentile: .*{words}"),
    ):
        orthomosaic.settle_stretch()


def test_what_is_not_a_number_is_not_valid(tmp_path: Path) -> None:
    values = np.random.default_rng(8).random((3, 40, 60), np.float32)
    values[0, 3, 4], values[1, 5, 6], values[2, 7, 8] = np.nan, np.inf, -np.inf
    path = write_raster(tmp_path / "o.tif", values)
    with Orthomosaic(path, SourceOptions(stretch=Stretch(0, 1))) as orthomosaic:
        valid_HW = orthomosaic.read(0, 0, 40, 60)[1]
    expected = np.ones((40, 60), np.bool_)
    expected[[3, 5, 7], [4, 6, 8]] = False
    np.testing.assert_array_equal(valid_HW, expected)


# --- refusals -----------------------------------------------------------------------------------------------------


def refused(path: Path, *words: str, options: SourceOptions | None = None) -> None:
    with pytest.raises(RasterError) as caught:
        Orthomosaic(path, options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_a_missing_file_a_folder_and_a_text_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.tif", "does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "text.tif").write_text("no picture")
    refused(tmp_path / "text.tif", "not a raster", "export")
    (tmp_path / "empty.tif").touch()
    refused(tmp_path / "empty.tif", "not a raster")


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_bands_are_refused(tmp_path: Path, rgb: NDArray[np.uint8], count: int) -> None:
    refused(write_raster(tmp_path / "o.tif", rgb[:count]), f"{count} colour band", "red, green and blue")


def test_two_colours_and_alpha_are_no_rgb(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    meanings = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    refused(write_raster(tmp_path / "o.tif", rgb, colorinterp=meanings), "2 colour bands")


def test_a_palette_picture_is_told_to_expand(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = tmp_path / "o.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=40, width=60, dtype="uint8") as dataset:
        dataset.write(rgb[0] % 3, 1)
        dataset.write_colormap(1, {0: (255, 0, 0, 255), 1: (0, 255, 0, 255)})
    refused(path, "gdal_translate -expand rgb")


@pytest.mark.parametrize(("dtype", "brightest"), [("uint16", "4095"), ("float32", "1"), ("int16", "4095")])
def test_other_depths_are_told_the_range_to_give(
    tmp_path: Path, rgb: NDArray[np.uint8], dtype: str, brightest: str
) -> None:
    path = write_raster(tmp_path / "o.tif", rgb.astype(dtype))
    refused(path, dtype, f"--scale 0,{brightest}", "--scale percentile")


def test_complex_numbers_are_refused_whatever_the_range(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = write_raster(tmp_path / "o.tif", rgb.astype("complex64"))
    refused(path, "complex", options=SourceOptions(stretch=Stretch(0, 1)))


def test_control_points_only_are_told_to_rectify(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    points = [GroundControlPoint(0, 0, 1, 1), GroundControlPoint(0, 60, 4, 1), GroundControlPoint(40, 0, 1, -1)]
    path = write_raster(tmp_path / "o.tif", rgb, gcps=points, transform=Affine.identity())
    refused(path, "control points", "gdalwarp")
    refused(path, "control points", "gdalwarp", options=SourceOptions(allow_no_crs=True))


def test_no_crs_is_refused_unless_allowed(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = write_raster(tmp_path / "o.tif", rgb, crs=None)
    refused(path, "gdal_edit.py -a_srs", "--allow-no-crs")
    with Orthomosaic(path, SourceOptions(allow_no_crs=True)) as orthomosaic:
        assert orthomosaic.crs is None
        assert orthomosaic.gsd_m is None
        assert orthomosaic.transform == UTM


def test_a_crs_without_a_place_is_refused_unless_allowed(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = write_raster(tmp_path / "o.tif", rgb, transform=Affine.identity())
    refused(path, "where its pixels lie", "--allow-no-crs")
    Orthomosaic(path, SourceOptions(allow_no_crs=True)).close()


def test_a_photo_is_refused_without_a_bare_warning(
    tmp_path: Path, rgb: NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    path = write_raster(tmp_path / "o.png", rgb, driver="PNG", crs=None, transform=Affine.identity())
    recwarn.clear()
    refused(path, "no coordinate reference system")
    assert not [warning for warning in recwarn if issubclass(warning.category, NotGeoreferencedWarning)]


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_truncated_file_is_refused_where_it_ends(tmp_path: Path, share: float) -> None:
    bands = np.random.default_rng(3).integers(0, 256, (3, 500, 500), dtype=np.uint8)
    whole = write_raster(tmp_path / "whole.tif", bands, tiled=True, blockxsize=128, blockysize=128).read_bytes()
    path = tmp_path / "half.tif"
    path.write_bytes(whole[: int(share * len(whole))])
    with Orthomosaic(path) as orthomosaic:
        orthomosaic.read(0, 0, 64, 64)
        with pytest.raises(RasterError, match=r"half\.tif cannot be read at row 400, column 384; the file is damaged"):
            orthomosaic.read(400, 384, 64, 64)


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, NDArray[np.uint8], tuple[slice, slice]]:
    """A file of 128-pixel blocks of which one cannot be read, its pixels, and where that block lies."""
    bands = np.random.default_rng(3).integers(1, 256, (3, 300, 400), dtype=np.uint8)
    path = write_raster(
        tmp_path / "o.tif", bands, tiled=True, blockxsize=128, blockysize=128, compress="deflate", interleave="pixel"
    )
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_3_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 2000] = b"\xff" * 2000
    path.write_bytes(bytes(content))
    return path, bands, (slice(128, 256), slice(384, 400))


def test_blocks_that_cannot_be_read_are_refused_or_skipped(
    damaged: tuple[Path, NDArray[np.uint8], tuple[slice, slice]],
) -> None:
    path, bands, bad = damaged
    with Orthomosaic(path) as orthomosaic, pytest.raises(RasterError, match="--skip-bad-blocks"):
        orthomosaic.read(100, 300, 120, 100)
    expected = np.ones((300, 400), np.bool_)
    expected[bad] = False
    with Orthomosaic(path, SourceOptions(skip_bad_blocks=True)) as orthomosaic:
        orthomosaic.read(0, 0, 128, 128)
        assert orthomosaic.bad_blocks == set()
        for row, col, height, width in ((100, 300, 120, 100), (0, 0, 300, 400), (200, 390, 200, 30)):
            image_CHW, valid_HW = orthomosaic.read(row, col, height, width)
            inside = (slice(row, min(row + height, 300)), slice(col, min(col + width, 400)))
            part_HW = expected[inside]
            here = (slice(0, part_HW.shape[0]), slice(0, part_HW.shape[1]))
            np.testing.assert_array_equal(valid_HW[here], part_HW)
            np.testing.assert_array_equal(image_CHW[:, *here][:, part_HW], bands[:, *inside][:, part_HW])
            assert valid_HW.sum() == part_HW.sum()
        assert orthomosaic.bad_blocks == {(128, 384, 128, 16)}


def test_a_reduced_picture_goes_around_bad_blocks(
    damaged: tuple[Path, NDArray[np.uint8], tuple[slice, slice]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salakseg.mapping.raster._PART", 128)
    path, bands, bad = damaged
    with Orthomosaic(path) as orthomosaic, pytest.raises(RasterError, match="--skip-bad-blocks"):
        orthomosaic.read_small(30, 40)
    expected = np.ones((300, 400), np.bool_)
    expected[bad] = False
    with Orthomosaic(path, SourceOptions(skip_bad_blocks=True)) as orthomosaic:
        image_CHW, valid_HW = orthomosaic.read_small(30, 40)
    np.testing.assert_array_equal(valid_HW, expected[5::10, 5::10])
    np.testing.assert_array_equal(image_CHW[:, valid_HW], bands[:, 5::10, 5::10][:, valid_HW])


def test_holes_are_filled_from_valid_pixels_only(rgb: NDArray[np.uint8]) -> None:
    valid_HW = np.random.default_rng(4).random((40, 60)) < 0.6
    valid_HW[20:, 30:] = False
    black, white = (np.where(valid_HW, rgb, color).astype(np.uint8) for color in (0, 255))
    fill_invalid(black, valid_HW)
    fill_invalid(white, valid_HW)
    np.testing.assert_array_equal(black, white)
    np.testing.assert_array_equal(black[:, valid_HW], rgb[:, valid_HW])


def test_beyond_a_straight_border_the_filling_is_a_mirror_image(rgb: NDArray[np.uint8]) -> None:
    valid_HW = np.zeros((40, 60), np.bool_)
    valid_HW[:, :45] = True
    filled = np.where(valid_HW, rgb, 0).astype(np.uint8)
    fill_invalid(filled, valid_HW)
    np.testing.assert_array_equal(filled, np.pad(rgb[:, :, :45], ((0, 0), (0, 0), (0, 15)), mode="reflect"))


def test_a_single_valid_pixel_fills_all(rgb: NDArray[np.uint8]) -> None:
    valid_HW = np.zeros((40, 60), np.bool_)
    valid_HW[7, 9] = True
    filled = rgb.copy()
    fill_invalid(filled, valid_HW)
    assert (filled == rgb[:, 7:8, 9:10]).all()
