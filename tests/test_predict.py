"""Mapping orthomosaics from end to end: geometry, validity, seams, what lies beside a map, sizes on the ground.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import UTM_SOUTH, read_map, write_raster
from small_engines import (
    BrightnessEngine,
    SmoothEngine,
    blotches,
    brightness_class,
    content,
    random_rgb,
    refused,
    round_alpha,
)

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping import predict
from salakseg.mapping.finish import Outputs
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import describe_plan, predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.stretch import Stretch
from salakseg.mapping.summary import MapSummary, Progress

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NO_CRS = MapSettings(source=SourceOptions(allow_no_crs=True))


# --- the map equals what the model says ---------------------------------------------------------------------------


@given(st.integers(1, 130), st.integers(1, 130), st.integers(8, 40), st.data())
@settings(max_examples=25, deadline=None)
def test_a_tiled_map_equals_the_whole_image(height: int, width: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1 if tile < 12 else tile // 2))
    batch_size = data.draw(st.integers(1, 5))
    image_CHW = random_rgb(height, width)
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "o.tif", Path(name) / "map.tif"
        write_raster(source, image_CHW)
        engine = BrightnessEngine(tile)
        summary = predict_map(source, out, engine, MapSettings(overlap=overlap), batch_size=batch_size)
        np.testing.assert_array_equal(read_map(out), brightness_class(image_CHW))
    assert len(set(engine.shapes)) == 1  # the last batch is filled up
    assert summary.class_counts.sum() == height * width


def test_a_model_with_a_neighbourhood_shows_no_seam(tmp_path: Path) -> None:
    height, width, tile, overlap, reach = 150, 170, 48, 24, SmoothEngine.reach
    image_CHW = blotches(height, width)
    engine = SmoothEngine(tile)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    predict_map(source, tmp_path / "map.tif", engine, MapSettings(overlap=overlap))
    label_HW = read_map(tmp_path / "map.tif")

    # Mirrored at the border, as the pixels beyond it are.
    padded = np.pad(image_CHW, ((0, 0), (0, tile), (0, tile)), mode="reflect")
    bright_HW = engine.bright(padded[None])[0, :height, :width]
    from_edge = [np.arange(size) % (tile - overlap) for size in (height, width)]
    inner = [(at >= reach) & (at < tile - overlap - reach) for at in from_edge]
    for at in inner:
        at[-reach:] = False  # mirrored twice
    # Away from all tile edges by more than the model's reach, the map is that of the whole image to the pixel.
    interior = inner[0][:, None] & inner[1][None, :]
    assert interior.mean() > 0.3
    np.testing.assert_array_equal(label_HW[interior], (bright_HW > 0.5)[interior])
    # Near a tile's edge its weight is small: only pixels on the brink may fall to the other side.
    inside = (slice(reach, height - reach), slice(reach, width - reach))
    different = (label_HW != (bright_HW > 0.5))[inside]
    assert different.mean() < 0.01
    assert np.abs(bright_HW - 0.5)[inside][different].max(initial=0) < 0.02


@pytest.mark.parametrize("panel_width", [32, 33, 100])
def test_panels_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, panel_width: int) -> None:
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(70, 150), round_alpha(70, 150)]))
    whole = predict_map(source, tmp_path / "whole.tif", SmoothEngine(16), MapSettings(overlap=9))
    monkeypatch.setattr(predict, "PANEL_WIDTH", panel_width)
    split = predict_map(source, tmp_path / "split.tif", SmoothEngine(16), MapSettings(overlap=9))
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "split.tif").read_bytes()
    np.testing.assert_array_equal(whole.class_counts, split.class_counts)
    assert split.tiles_run > whole.tiles_run  # those on the border were computed twice


def test_memory_that_is_allowed_makes_panels_and_too_little_is_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(70, 3000), round_alpha(70, 3000)]))
    whole = predict_map(source, tmp_path / "whole.tif", SmoothEngine(), batch_size=2)
    refused(source, tmp_path / "map.tif", "--max-memory 100 is too little for brightness", "MB", max_memory_mb=100)
    with pytest.raises(RasterError) as caught:
        predict_map(source, tmp_path / "map.tif", SmoothEngine(), batch_size=2, max_memory_mb=1)
    least = int(str(caught.value).split(" MB or more")[0].split()[-1])
    with pytest.raises(RasterError, match="too little"):
        predict_map(source, tmp_path / "map.tif", SmoothEngine(), batch_size=2, max_memory_mb=least - 1)
    split = predict_map(source, tmp_path / "split.tif", SmoothEngine(), batch_size=2, max_memory_mb=least)
    assert split.tiles_run > whole.tiles_run
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "split.tif").read_bytes()


def test_windows_are_told_apart(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", blotches(150, 170))
    maps = {}
    for window in ("hann", "triangle", "flat"):
        out = tmp_path / f"{window}.tif"
        predict_map(source, out, SmoothEngine(), MapSettings(overlap=20, window=window))
        maps[window] = read_map(out)
        with rasterio.open(out) as dataset:
            assert dataset.tags()["window"] == window
    # Tiles see nothing beyond their edge, so what their edges count shows.
    assert (maps["hann"] != maps["flat"]).any()
    assert (maps["hann"] != maps["triangle"]).any()


# --- georeference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(0.02, 0, 638838.7014794865, 0, -0.02, 5802604.930682349)),
        ("EPSG:32749", UTM_SOUTH),
        ("EPSG:4326", Affine(2.5e-7, 0, 110.123456789, 0, -2.5e-7, -7.654321)),
        ("EPSG:3857", Affine(0.298582, 0, 11241103.776606278, 0, -0.298582, 529736.075573313)),
        ("EPSG:32749", Affine(0.04, 0.03, 431000.123, 0.03, -0.04, 9154000.456)),
        ("EPSG:32749", Affine(0.05, 0, 431000.0, 0, 0.05, 9154000.0)),
    ],
    ids=["UTM north", "UTM south", "degrees", "web Mercator", "rotated", "south up"],
)
def test_the_map_lies_where_the_orthomosaic_lies(tmp_path: Path, crs: str, transform: Affine) -> None:
    image_CHW = np.full((3, 90, 110), 10, np.uint8)
    image_CHW[:, 41:57, 63:64] = 250  # one pixel wide: a shift of half a pixel would move or smear it
    image_CHW[:, 41:42, 63:80] = 250
    source = write_raster(tmp_path / "o.tif", image_CHW, crs=crs, transform=transform)
    predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    with rasterio.open(source) as given, rasterio.open(tmp_path / "map.tif") as made:
        assert made.crs == given.crs
        assert made.transform == given.transform == transform
        assert made.shape == given.shape
        x, y = given.xy(41, 63)  # the marker's corner in coordinates is the same place in the map
        assert next(made.sample([(x, y)]))[0] == 6
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), np.where(image_CHW[0] == 250, 6, 0))


def test_without_a_crs_a_picture_can_be_mapped_when_allowed(tmp_path: Path) -> None:
    image_CHW = random_rgb(50, 60)
    source = write_raster(tmp_path / "photo.png", image_CHW, driver="PNG", crs=None, transform=Affine.identity())
    said: list[str] = []
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(gsd_m=0.1), NO_CRS, say=said.append)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.crs is None
        assert made.transform.is_identity
    assert summary.warnings == ()
    assert said == []
    assert all(area.hectares is None for area in summary.areas)


# --- valid pixels -------------------------------------------------------------------------------------------------


def _with_alpha(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    alpha = np.where(valid_HW, 255, 0).astype(np.uint8)[None]
    return write_raster(folder / "o.tif", np.concatenate([image_CHW, alpha]))


def _with_nodata(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    return write_raster(folder / "o.tif", np.where(valid_HW, np.maximum(image_CHW, 1), 0).astype(np.uint8), nodata=0)


def _with_mask(folder: Path, image_CHW: NDArray[np.uint8], valid_HW: NDArray[np.bool_]) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        return write_raster(folder / "o.tif", image_CHW, mask=valid_HW)


@pytest.mark.parametrize("mark", [_with_alpha, _with_nodata, _with_mask])
def test_what_is_not_valid_is_255(tmp_path: Path, mark: Callable[..., Path]) -> None:
    image_CHW = random_rgb(90, 110)
    valid_HW = np.random.default_rng(5).random((90, 110)) < 0.7
    valid_HW[:40, :35] = False
    summary = predict_map(mark(tmp_path, image_CHW, valid_HW), tmp_path / "map.tif", BrightnessEngine())
    expected = np.where(valid_HW, brightness_class(np.maximum(image_CHW, 1)), 255)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), expected)
    assert summary.valid_share == pytest.approx(valid_HW.mean())
    np.testing.assert_array_equal(summary.class_counts, np.bincount(expected[valid_HW], minlength=7))


def test_colours_beneath_transparent_pixels_change_nothing(tmp_path: Path) -> None:
    image_CHW, alpha = blotches(90, 110), round_alpha(90, 110)
    garbage = {
        "white": np.full_like(image_CHW, 255),
        "black": np.zeros_like(image_CHW),
        "random": random_rgb(90, 110, 9),
    }
    maps = {}
    for name, beneath in garbage.items():
        bands = np.concatenate([np.where(alpha > 0, image_CHW, beneath), alpha])
        folder = tmp_path / name  # a map tells the name of its orthomosaic
        folder.mkdir()
        predict_map(write_raster(folder / "o.tif", bands), folder / "map.tif", SmoothEngine())
        maps[name] = (folder / "map.tif").read_bytes()
    assert maps["white"] == maps["black"] == maps["random"]


def test_empty_tiles_are_skipped(tmp_path: Path) -> None:
    alpha = np.zeros((1, 128, 160), np.uint8)
    alpha[0, 70:75, 70:75] = 255
    source = write_raster(tmp_path / "o.tif", np.concatenate([random_rgb(128, 160), alpha]))
    engine = BrightnessEngine(tile=32)
    calls: list[Progress] = []
    summary = predict_map(
        source, tmp_path / "map.tif", engine, MapSettings(overlap=0), batch_size=1, progress=calls.append
    )
    assert (summary.tiles_run, summary.tiles_skipped) == (1, 19)
    assert engine.shapes == [(1, 3, 32, 32)]
    assert [(call.done, call.total) for call in calls] == [(128 * 160 * n // 20, 128 * 160) for n in range(1, 21)]
    assert [call.tiles_run + call.tiles_skipped for call in calls] == list(range(1, 21))
    assert (calls[-1].tiles_run, calls[-1].tiles_skipped) == (1, 19)
    assert (read_map(tmp_path / "map.tif") != 255).sum() == 25


def test_an_orthomosaic_without_a_valid_pixel_gives_an_empty_map_and_a_warning(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", np.zeros((3, 50, 60), np.uint8), nodata=0)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    assert (read_map(tmp_path / "map.tif") == 255).all()
    assert summary.tiles_run == 0
    assert [area.share for area in summary.areas] == [0.0] * 7
    assert summary.valid_share == 0.0
    assert "no valid pixel" in summary.warnings[0]


# --- the summary --------------------------------------------------------------------------------------------------


def test_the_summary_says_what_was_done(tmp_path: Path) -> None:
    image_CHW = random_rgb(90, 110)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(), MapSettings(overlap=8), batch_size=4)
    assert isinstance(summary, MapSummary)
    assert (summary.out, summary.width, summary.height) == (tmp_path / "map.tif", 110, 90)
    assert summary.tiles_run == 4 * 5
    counts = np.bincount(brightness_class(image_CHW).ravel(), minlength=7)
    np.testing.assert_array_equal(summary.class_counts, counts)
    assert [area.class_name for area in summary.areas] == list(SALAK.names)
    assert [area.hectares for area in summary.areas] == pytest.approx((counts * 0.05**2 / 1e4).tolist())
    assert [area.share for area in summary.areas] == pytest.approx((counts / counts.sum()).tolist())
    assert (summary.resumed, summary.bad_blocks, summary.warnings) == (0, (), ())
    assert summary.seconds > 0
    assert summary.megapixels_per_second == pytest.approx(90 * 110 / 1e6 / summary.seconds)
    if sys.platform != "win32":
        assert summary.peak_memory_mb is not None
        assert 10 < summary.peak_memory_mb < 100_000


def test_beside_a_map_lie_its_names_and_its_style_and_nothing_else(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(90, 110))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    assert sorted(content(tmp_path)) == ["map.qml", "map.tif", "map.tif.aux.xml", "o.tif"]
    names = (tmp_path / "map.tif.aux.xml").read_text(encoding="utf-8")
    style = (tmp_path / "map.qml").read_text(encoding="utf-8")
    assert all(name in names and name in style for name in SALAK.names)
    assert "Area_ha" in names


def test_a_map_tells_how_it_was_made(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine(), MapSettings(overlap=5))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        tags = dataset.tags()
    assert tags["model"] == "brightness"
    assert (tags["orthomosaic"], tags["bands"], tags["scale"]) == ("o.tif", "1,2,3", "none")
    assert (tags["tile"], tags["overlap"], tags["window"]) == ("32", "5", "hann")
    assert tags["TIFFTAG_SOFTWARE"].startswith("salakseg")
    assert ClassMap.from_records(json.loads(tags["classes"])).same_as(SALAK)


def test_confidence_and_probabilities_lie_where_the_map_lies(tmp_path: Path) -> None:
    image_CHW, alpha = random_rgb(90, 110), round_alpha(90, 110)
    source = write_raster(tmp_path / "o.tif", np.concatenate([image_CHW, alpha]))
    outputs = Outputs(tmp_path / "map.tif", tmp_path / "confidence.tif", tmp_path / "probabilities.tif")
    predict_map(source, outputs, BrightnessEngine())
    label_HW, valid_HW = brightness_class(image_CHW), alpha[0] > 0
    np.testing.assert_array_equal(read_map(outputs.classes), np.where(valid_HW, label_HW, 255))
    with rasterio.open(tmp_path / "confidence.tif") as dataset:
        assert (dataset.crs.to_epsg(), dataset.transform, dataset.nodata) == (32749, UTM_SOUTH, 255)
        np.testing.assert_array_equal(dataset.read(1), np.where(valid_HW, 94, 255))
    with rasterio.open(tmp_path / "probabilities.tif") as dataset:
        assert (dataset.count, dataset.transform) == (7, UTM_SOUTH)
        expected = np.where(np.arange(7)[:, None, None] == label_HW, 94, 1)
        np.testing.assert_array_equal(dataset.read(), np.where(valid_HW, expected, 255))
    predict_map(source, outputs, BrightnessEngine(), MapSettings(probability_type="float16"), overwrite=True)
    with rasterio.open(tmp_path / "probabilities.tif") as dataset:
        found = dataset.read()
    np.testing.assert_allclose(found[:, valid_HW], expected[:, valid_HW] / 100, rtol=1e-3)
    assert np.isnan(found[:, ~valid_HW]).all()


def test_files_whose_names_differ_in_their_ends_only_do_not_mix(tmp_path: Path) -> None:
    image_CHW = random_rgb(90, 110)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    outputs = Outputs(tmp_path / "map.tif", confidence=tmp_path / "map.tiff")
    predict_map(source, outputs, BrightnessEngine())
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))
    assert (read_map(tmp_path / "map.tiff") == 94).all()


# --- other values, bands and damage -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_depths_are_mapped_by_their_range(tmp_path: Path, dtype: str) -> None:
    """Values of which each is the middle of a grey level: no rounding is in doubt."""
    image_CHW = random_rgb(50, 60)
    values = image_CHW.astype(dtype) * 16
    source = write_raster(tmp_path / "o.tif", values, dtype=dtype)
    refused(source, tmp_path / "map.tif", str(source), dtype, "--scale")
    options = SourceOptions(stretch=Stretch(0, 255 * 16))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine(), MapSettings(source=options))
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))
    found = predict_map(
        source,
        tmp_path / "found.tif",
        BrightnessEngine(),
        MapSettings(source=SourceOptions(stretch="percentile")),
    )
    low, high = np.percentile(values, [2, 98], method="inverted_cdf")
    stretched_CHW = np.rint((values.astype(np.float64) - low).clip(0, high - low) / (high - low) * 255)
    agree = read_map(tmp_path / "found.tif") == brightness_class(stretched_CHW.astype(np.uint8))
    assert agree.mean() > 0.98  # the others lie on the brink of two classes
    assert found.valid_share == 1.0
    with rasterio.open(tmp_path / "found.tif") as dataset:
        assert [float(part) for part in dataset.tags()["scale"].split(",")] == pytest.approx([low, high], abs=0.2)


def test_bands_that_are_named_are_shown_to_the_model(tmp_path: Path) -> None:
    image_CHW = random_rgb(50, 60)
    source = write_raster(tmp_path / "o.tif", np.concatenate([image_CHW, image_CHW[:1] // 3]))
    settings = MapSettings(source=SourceOptions(bands=(2, 2, 3)))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine(), settings)
    valid_HW = image_CHW[0] // 3 > 0  # the fourth band is alpha still
    expected = np.where(valid_HW, brightness_class(image_CHW[[1, 1, 2]]), 255)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), expected)


def test_blocks_that_cannot_be_read_are_mapped_around_when_asked(tmp_path: Path) -> None:
    image_CHW = random_rgb(400, 400)
    source = write_raster(tmp_path / "o.tif", image_CHW, tiled=True, blockxsize=128, blockysize=128)
    source.write_bytes(source.read_bytes()[:-450_000])
    settings = MapSettings(source=SourceOptions(skip_bad_blocks=True))
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(), settings)
    bad_HW = np.zeros((400, 400), np.bool_)
    for row, col, height, width in summary.bad_blocks:
        assert row % 128 == col % 128 == 0
        assert (height, width) == (min(128, 400 - row), min(128, 400 - col))
        bad_HW[row : row + height, col : col + width] = True
    assert 0.1 < bad_HW.mean() < 0.9
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), np.where(bad_HW, 255, brightness_class(image_CHW)))
    assert f"{len(summary.bad_blocks)} blocks of {source} could not be read" in summary.warnings[0]


# --- the ground sampling distance ---------------------------------------------------------------------------------


class WatchingEngine(BrightnessEngine):
    """Keeps what it is shown."""

    def __init__(self, tile: int, gsd_m: float | None) -> None:
        super().__init__(tile, gsd_m)
        self.seen: list[NDArray[np.uint8]] = []

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += [image_CHW.copy() for image_CHW in image_BCHW]
        return super().predict(image_BCHW)


@pytest.mark.parametrize(
    ("gsd_m", "words"),
    [
        (None, None),
        (0.05, "o.tif: 0.05 m a pixel, as the model knows it"),
        (0.054, "o.tif: 0.05 m a pixel, as the model knows it"),
        (0.046, "o.tif: 0.05 m a pixel, as the model knows it"),
        (0.1, "o.tif: 0.05 m a pixel; the model sees it at 0.1 m"),
        (0.04, "o.tif: 0.05 m a pixel; the model sees it at 0.04 m"),
        (0.02, "o.tif: 0.05 m a pixel; the model sees it at 0.02 m; finer things than its pixels will be missed"),
    ],
)
def test_another_ground_sampling_distance_is_resampled_and_said(
    tmp_path: Path, gsd_m: float | None, words: str | None
) -> None:
    image_CHW = random_rgb(30, 30)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    said: list[str] = []
    engine = WatchingEngine(32, gsd_m)
    summary = predict_map(source, tmp_path / "map.tif", engine, MapSettings(overlap=0), say=said.append)
    assert said == ([] if words is None else [words])
    assert summary.warnings == ()
    resampled = words is not None and "sees" in words
    assert (engine.seen[0][:, :30, :30] == image_CHW).all() == (not resampled)
    with rasterio.open(tmp_path / "map.tif") as made:
        assert (made.shape, made.transform) == ((30, 30), UTM_SOUTH)
    # As it is, whatever the model says of itself
    said.clear()
    other = WatchingEngine(32, gsd_m)
    predict_map(source, tmp_path / "off.tif", other, MapSettings(overlap=0, gsd="off"), say=said.append)
    assert said == []
    np.testing.assert_array_equal(other.seen[0][:, :30, :30], image_CHW)
    np.testing.assert_array_equal(read_map(tmp_path / "off.tif"), brightness_class(image_CHW))


# --- what would be done -------------------------------------------------------------------------------------------


def test_a_plan_is_described_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(90, 110))
    outputs = Outputs(tmp_path / "map.tif", confidence=tmp_path / "confidence.tif")
    engine = BrightnessEngine(gsd_m=0.1)
    text = describe_plan(source, outputs, engine, MapSettings(overlap=8, out_gsd=0.5))
    assert "the model sees it at 0.1 m" in text
    assert f"{tmp_path / 'map.tif'}: classes, 11 x 9 pixels" in text
    assert f"{tmp_path / 'confidence.tif'}: confidence, 11 x 9 pixels" in text
    assert "4 tiles of 32 pixels that share 8, in 1 panels of 2 stripes" in text
    assert engine.shapes == []
    assert content(tmp_path).keys() == {"o.tif"}
