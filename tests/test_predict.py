"""Mapping orthomosaics from end to end with small real models in numpy: geometry, validity, seams, sizes on the ground,
refusals, failures and going on after them.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from scipy import ndimage

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import EngineError, RasterError
from salakseg.mapping import finish, predict
from salakseg.mapping.files import move_whole
from salakseg.mapping.finish import Outputs
from salakseg.mapping.layers import ProbabilityType
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import describe_plan, predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.stretch import Stretch
from salakseg.mapping.summary import MapSummary, Progress
from salakseg.mapping.workplace import workplace_path

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SHARED = Path(__file__).parents[1].parent / "shared/data"
NO_CRS = MapSettings(source=SourceOptions(allow_no_crs=True))
UTM_SOUTH = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]


class BrightnessEngine:
    """Classifies each pixel by its own brightness: the plainest model that a map can be checked against exactly."""

    def __init__(self, tile: int = 32, gsd_m: float | None = None) -> None:
        self.tile = tile
        self.gsd_m = gsd_m
        self.class_map: ClassMap = SALAK
        self.name = "brightness"
        self.identity = {"model": "brightness"}
        self.runs_on = "numpy on the CPU"
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(image_BCHW.shape)
        label_BHW = brightness_class(image_BCHW)
        return np.moveaxis(np.eye(7, dtype=np.float32)[label_BHW] * 0.93 + 0.01, -1, 1).astype(np.float32)


class SmoothEngine(BrightnessEngine):
    """Looks at the neighbourhood: a box filter of `reach` pixels to each side, bright or dark against mid-grey."""

    reach = 4

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(image_BCHW.shape)
        prob_BKHW = np.zeros((len(image_BCHW), 7, self.tile, self.tile), np.float32)
        prob_BKHW[:, 1] = self.bright(image_BCHW)
        prob_BKHW[:, 0] = 1 - prob_BKHW[:, 1]
        return prob_BKHW

    def bright(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float64]:
        side = 2 * self.reach + 1
        mean: NDArray[np.float64] = ndimage.uniform_filter(
            image_BCHW.mean(axis=1, dtype=np.float64), (1, side, side), mode="constant"
        )
        return mean / 255


class FailingEngine(BrightnessEngine):
    """Works for some batches; the usual two are less than a row of tiles."""

    def __init__(self, failure: BaseException, batches: int = 2) -> None:
        super().__init__()
        self.failure = failure
        self.batches = batches

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(self.shapes) == self.batches:
            raise self.failure
        return super().predict(image_BCHW)


def brightness_class(image: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Class 0 to 6 of pictures [..., 3, H, W]."""
    label: NDArray[np.intp] = image.sum(axis=-3, dtype=np.intp) // 3 // 37
    return label


def write_raster(path: Path, bands: NDArray[np.uint8], **profile: Any) -> Path:
    count, height, width = bands.shape
    defaults = {"driver": "GTiff", "crs": "EPSG:32749", "transform": UTM_SOUTH, "dtype": "uint8"}
    meanings = profile.pop("colorinterp", RGBA[:count])
    mask = profile.pop("mask", None)
    with rasterio.open(path, "w", count=count, height=height, width=width, **(defaults | profile)) as dataset:
        dataset.colorinterp = meanings
        dataset.write(bands)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def read_map(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        label_HW: NDArray[np.uint8] = dataset.read(1)
    return label_HW


def random_rgb(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def blotches(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of soft light and dark blotches around mid-grey."""
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, height, width)), (0, 6, 6))
    return np.asarray(127.5 + 60 * soft / soft.std()).clip(0, 255).astype(np.uint8)


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
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(70, 150), _round_alpha(70, 150)]))
    whole = predict_map(source, tmp_path / "whole.tif", SmoothEngine(16), MapSettings(overlap=9))
    monkeypatch.setattr(predict, "PANEL_WIDTH", panel_width)
    split = predict_map(source, tmp_path / "split.tif", SmoothEngine(16), MapSettings(overlap=9))
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "split.tif").read_bytes()
    np.testing.assert_array_equal(whole.class_counts, split.class_counts)
    assert split.tiles_run > whole.tiles_run  # those on the border were computed twice


def test_memory_that_is_allowed_makes_panels_and_too_little_is_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(70, 3000), _round_alpha(70, 3000)]))
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


def _round_alpha(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (height / 2)) ** 2 + ((x - width / 2) / (width / 2)) ** 2 < 0.8
    return np.where(inside, 255, 0).astype(np.uint8)[None]


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
    image_CHW, alpha = blotches(90, 110), _round_alpha(90, 110)
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
    assert sorted(_content(tmp_path)) == ["map.qml", "map.tif", "map.tif.aux.xml", "o.tif"]
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
    image_CHW, alpha = random_rgb(90, 110), _round_alpha(90, 110)
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
    assert _content(tmp_path).keys() == {"o.tif"}


# --- refusals leave nothing behind --------------------------------------------------------------------------------


def refused(source: Path, out: Path, *words: str, settings: MapSettings | None = None, **arguments: Any) -> None:
    before = _content(out.parent)
    with pytest.raises(RasterError) as caught:
        predict_map(source, out, BrightnessEngine(), settings, **arguments)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _content(out.parent) == before


def _content(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too; an empty folder is worth an entry."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


@pytest.mark.parametrize("overlap", [-1, 32, 40])
def test_an_impossible_overlap_is_refused(tmp_path: Path, overlap: int) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    refused(
        source,
        tmp_path / "map.tif",
        str(source),
        f"overlap of {overlap}",
        "0 to 31",
        settings=MapSettings(overlap=overlap),
    )


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    refused(source, tmp_path / "none" / "map.tif", str(tmp_path / "none" / "map.tif"), "does not exist")
    refused(source, tmp_path, str(tmp_path), "is a folder")
    refused(source, source, str(source), "the orthomosaic itself", overwrite=True)
    (tmp_path / "link.tif").hardlink_to(source)
    refused(source, tmp_path / "link.tif", "the orthomosaic itself", overwrite=True)
    (tmp_path / "map.tif").write_bytes(b"precious")
    refused(source, tmp_path / "map.tif", str(tmp_path / "map.tif"), "--overwrite")


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no picture")
    grey = write_raster(tmp_path / "grey.tif", random_rgb(50, 60)[:1], colorinterp=[ColorInterp.gray])
    nowhere = write_raster(tmp_path / "nowhere.tif", random_rgb(50, 60), crs=None)
    for source in (tmp_path / "missing.tif", tmp_path / "text.tif", grey, nowhere):
        refused(source, tmp_path / "map.tif", str(source))


# --- failures leave finished stripes, or nothing ------------------------------------------------------------------


def kept(folder: Path, *others: str) -> list[str]:
    """The names of finished stripes beside files of which no other may be there."""
    found = _content(folder)
    inside = [name for name in found if Path(name).parts[0] == ".map.tif.unfinished"]
    assert sorted(found.keys() - inside) == sorted(others)
    assert workplace_path(folder / "map.tif") == folder / ".map.tif.unfinished"
    return sorted(Path(name).name for name in inside if Path(name).name.startswith("stripe-"))


def test_a_file_that_breaks_off_midway_leaves_no_map(tmp_path: Path) -> None:
    whole = write_raster(tmp_path / "o.tif", random_rgb(400, 400), tiled=True, blockxsize=128, blockysize=128)
    whole.write_bytes(whole.read_bytes()[:250_000])
    with pytest.raises(RasterError) as caught:
        predict_map(whole, tmp_path / "map.tif", BrightnessEngine())
    assert str(whole) in str(caught.value)
    assert "damaged or incomplete" in str(caught.value)
    assert kept(tmp_path, "o.tif")
    # What is finished serves the remedy that the message names.
    settings = MapSettings(source=SourceOptions(skip_bad_blocks=True))
    summary = predict_map(whole, tmp_path / "map.tif", BrightnessEngine(), settings, resume=True)
    assert summary.resumed > 0
    predict_map(whole, tmp_path / "unbroken.tif", BrightnessEngine(), settings)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "unbroken.tif").read_bytes()


FAILURES = [RuntimeError("out of memory"), KeyboardInterrupt(), RasterError("late")]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_before_the_first_stripe_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    with pytest.raises(type(failure)):
        predict_map(source, tmp_path / "map.tif", FailingEngine(failure), batch_size=2)
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_midway_leaves_no_map(tmp_path: Path, failure: BaseException) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    outputs = Outputs(tmp_path / "map.tif", tmp_path / "confidence.tif", tmp_path / "probabilities.tif")
    with pytest.raises(type(failure)):
        predict_map(source, outputs, FailingEngine(failure, batches=20), batch_size=2)
    # 40 of 8 x 8 tiles: five rows are through, the fifth only when the sixth begins
    assert kept(tmp_path, "o.tif") == [f"stripe-0000-{stripe:06d}.json" for stripe in range(4)]


def test_an_interruption_between_tiles_leaves_no_map(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))

    def interrupt(progress: Progress) -> None:
        if progress.done > progress.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(), progress=interrupt)
    assert kept(tmp_path, "o.tif")


def test_overwriting_replaces_the_map_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    first = write_raster(tmp_path / "first.tif", random_rgb(200, 200, 1))
    second_CHW = random_rgb(200, 200, 2)
    second = write_raster(tmp_path / "second.tif", second_CHW)
    out = tmp_path / "map.tif"
    predict_map(first, out, BrightnessEngine())
    before = _content(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        predict_map(second, out, FailingEngine(KeyboardInterrupt()), overwrite=True)
    assert _content(tmp_path) == before
    with pytest.raises(KeyboardInterrupt):
        predict_map(second, out, FailingEngine(KeyboardInterrupt(), batches=40), overwrite=True)
    assert kept(tmp_path, *before)
    assert {name: _content(tmp_path)[name] for name in before} == before
    predict_map(second, out, BrightnessEngine(), overwrite=True)
    np.testing.assert_array_equal(read_map(out), brightness_class(second_CHW))
    files = ["first.tif", "map.qml", "map.tif", "map.tif.aux.xml", "second.tif"]
    assert sorted(_content(tmp_path)) == files


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond some bytes."""
    import resource  # POSIX only

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
@pytest.mark.parametrize("size", [3_000, 9_000, 300_000], ids=["a stripe", "the end of a stripe", "the map"])
def test_a_full_disk_leaves_no_map_and_with_space_it_goes_on(tmp_path: Path, size: int) -> None:
    image_CHW = random_rgb(1100, 1200)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    with full_disk(size), pytest.raises(RasterError) as caught:
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(256))
    for words in (str(tmp_path / "map.tif"), "written", "is the disk full?"):
        assert words in str(caught.value)
    stripes = kept(tmp_path, "o.tif")
    assert len(stripes) == (6 if size == 300_000 else 0)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(256), resume=True)
    assert summary.resumed == len(stripes)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
@pytest.mark.parametrize("size", [100, 5_000, 9_292, 13_188], ids=["no stripe", "pixels", "directory", "last stripe"])
def test_a_stripe_that_did_not_fit_on_the_disk_is_never_taken_for_done(tmp_path: Path, size: int) -> None:
    """GDAL keeps small files in memory until it closes them, and is silent if they do not fit then."""
    image_CHW = random_rgb(300, 600)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    with full_disk(size), pytest.raises(RasterError, match=r"map\.tif cannot be written"):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(64))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine(64), resume=True)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


# --- going on after a failure -------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, Path]:
    """An orthomosaic and a map of it that was stopped midway."""
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(200, 200), _round_alpha(200, 200)]))
    stop(source, tmp_path / "map.tif")
    return source, tmp_path / "map.tif"


def stop(source: Path, outputs: Path | Outputs, settings: MapSettings | None = None, batches: int = 30) -> None:
    class Stopped(SmoothEngine):
        def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            if len(self.shapes) == batches:
                raise KeyboardInterrupt
            return super().predict(image_BCHW)

    with pytest.raises(KeyboardInterrupt):
        predict_map(source, outputs, Stopped(), settings)
    out = outputs.classes if isinstance(outputs, Outputs) else outputs
    assert list(workplace_path(out).glob("stripe-*.json"))


def test_a_stopped_map_is_gone_on_with_only_when_asked(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    folder = str(workplace_path(out))
    refused(source, out, folder, "go on with --resume", "begin anew with --overwrite")


def test_a_resumed_map_is_that_of_an_unbroken_run(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    unbroken = predict_map(source, out.with_name("unbroken.tif"), SmoothEngine())
    calls: list[Progress] = []
    resumed = predict_map(source, out, SmoothEngine(), resume=True, progress=calls.append)
    assert resumed.resumed > 0
    assert resumed.tiles_run < unbroken.tiles_run
    assert out.read_bytes() == out.with_name("unbroken.tif").read_bytes()
    np.testing.assert_array_equal(resumed.class_counts, unbroken.class_counts)
    assert resumed.areas == unbroken.areas
    assert calls[0].done > 40_000 // 8  # what was there already counts
    assert calls[-1].done == calls[-1].total == 40_000
    assert all(before.done <= after.done for before, after in pairwise(calls))
    names = {"map", "unbroken"}
    assert _content(out.parent).keys() == {
        "o.tif",
        *(f"{name}{end}" for name in names for end in (".qml", ".tif", ".tif.aux.xml")),
    }


@pytest.mark.parametrize(
    ("gsd_m", "out_gsd", "panel_width", "batches", "kind"),
    [
        (None, None, 80, 20, "uint8"),
        (None, None, 80, 70, "float16"),
        (0.08, None, 80, 15, "uint8"),
        (0.04, 0.11, 90, 60, "float16"),
        (None, 0.3, 8192, 30, "uint8"),
    ],
)
def test_a_map_on_any_grid_is_resumed_to_the_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gsd_m: float | None,
    out_gsd: float | None,
    panel_width: int,
    batches: int,
    kind: ProbabilityType,
) -> None:
    """Stopped in several places, with all that can be written."""
    monkeypatch.setattr(predict, "PANEL_WIDTH", panel_width)
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(200, 200), _round_alpha(200, 200)]))
    settings = MapSettings(gsd="off" if gsd_m is None else gsd_m, out_gsd=out_gsd, probability_type=kind)
    whole, broken = (
        Outputs(*(tmp_path / name / f"{layer}.tif" for layer in ("map", "confidence", "probabilities")))
        for name in ("whole", "broken")
    )
    whole.classes.parent.mkdir()
    broken.classes.parent.mkdir()
    predict_map(source, whole, SmoothEngine(), settings)
    stop(source, broken, settings, batches)
    summary = predict_map(source, broken, SmoothEngine(), settings, resume=True)
    assert summary.resumed > 0
    found, expected = _content(broken.classes.parent), _content(whole.classes.parent)
    if kind == "float16":
        # What sticks out of the raster in the last blocks GDAL fills with what is in memory: the pixels are the same.
        del found["probabilities.tif"], expected["probabilities.tif"]
        with (
            rasterio.open(broken.classes.with_name("probabilities.tif")) as one,
            rasterio.open(whole.classes.with_name("probabilities.tif")) as other,
        ):
            assert one.tags() == other.tags()
            np.testing.assert_array_equal(one.read(), other.read())
    assert found == expected


def test_resuming_what_was_never_begun_is_a_beginning(tmp_path: Path) -> None:
    image_CHW = random_rgb(50, 60)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(), resume=True)
    assert summary.resumed == 0
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (MapSettings(overlap=9), "overlap was 6, is 9"),
        (MapSettings(window="flat"), "window was hann, is flat"),
        (MapSettings(gsd=0.1), "model_pixel was 1 x 1 pixels of the orthomosaic, is 2 x 2"),
        (MapSettings(out_gsd=0.1), "map_pixel was 1 x 1 pixels of the orthomosaic, is 2 x 2"),
        (MapSettings(source=SourceOptions(bands=(3, 2, 1))), "bands was 1,2,3, is 3,2,1"),
        (MapSettings(source=SourceOptions(stretch=Stretch(0, 200))), "scale was none, is 0,200"),
    ],
)
def test_a_map_is_resumed_with_its_own_settings_only(
    stopped: tuple[Path, Path], settings: MapSettings, words: str
) -> None:
    source, out = stopped
    refused(source, out, str(out), words, "begin anew with --overwrite", settings=settings, resume=True)
    resumed = predict_map(source, out, SmoothEngine(), resume=True)
    assert resumed.resumed > 0


def test_a_map_is_resumed_with_its_own_model_and_files_only(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    engine = SmoothEngine()
    engine.identity = {"model": "brightness", "model_sha256": "other"}
    before = _content(out.parent)
    with pytest.raises(RasterError, match="model_sha256 was None, is other"):
        predict_map(source, out, engine, resume=True)
    with pytest.raises(RasterError, match="layers was "):
        predict_map(source, Outputs(out, out.with_name("confidence.tif")), SmoothEngine(), resume=True)
    assert _content(out.parent) == before
    write_raster(source, np.concatenate([blotches(200, 200, 1), _round_alpha(200, 200)]))
    with pytest.raises(RasterError, match=r"\.tif was .* bytes, changed"):
        predict_map(source, out, SmoothEngine(), resume=True)


def test_overwriting_begins_a_stopped_map_anew(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    settings = MapSettings(overlap=3)
    unbroken = predict_map(source, out.with_name("unbroken.tif"), SmoothEngine(), settings)
    summary = predict_map(source, out, SmoothEngine(), settings, overwrite=True)
    assert (summary.resumed, summary.tiles_run) == (0, unbroken.tiles_run)
    assert out.read_bytes() == out.with_name("unbroken.tif").read_bytes()
    assert not workplace_path(out).exists()


def test_a_failure_at_the_very_end_costs_no_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finish, "areas_of", fail)
        predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    assert len(kept(tmp_path, "o.tif")) == 8
    engine = BrightnessEngine()
    summary = predict_map(source, tmp_path / "map.tif", engine, resume=True)
    assert (summary.resumed, summary.tiles_run, engine.shapes) == (8, 0, [])
    predict_map(source, tmp_path / "unbroken.tif", BrightnessEngine())
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "unbroken.tif").read_bytes()


def test_a_map_that_was_stopped_while_its_files_got_their_names_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    outputs = Outputs(tmp_path / "map.tif", tmp_path / "confidence.tif")
    put = move_whole

    def put_confidence_only(whole: Path, out: Path) -> None:
        if out == outputs.classes:
            raise KeyboardInterrupt
        put(whole, out)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finish, "move_whole", put_confidence_only)
        predict_map(source, outputs, BrightnessEngine())
    assert kept(tmp_path, "o.tif", "confidence.tif")
    summary = predict_map(source, outputs, BrightnessEngine(), resume=True)
    assert (summary.resumed, summary.tiles_run) == (8, 0)


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_map_that_is_being_made_is_left_to_who_makes_it(tmp_path: Path, resume: bool, overwrite: bool) -> None:
    settings = MapSettings(overlap=3)
    image_CHW = random_rgb(200, 200)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    refusals: list[str] = []

    def intrude(progress: Progress) -> None:
        if not refusals and progress.done > progress.total // 2:
            with pytest.raises(RasterError) as caught:
                predict_map(
                    source, tmp_path / "map.tif", BrightnessEngine(), settings, resume=resume, overwrite=overwrite
                )
            refusals.append(str(caught.value))

    predict_map(source, tmp_path / "map.tif", BrightnessEngine(), progress=intrude)
    assert refusals == [
        f"{tmp_path / 'map.tif'} is being made by another process; wait for it, or choose another name."
    ]
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


def test_a_stopped_map_that_another_process_goes_on_with_is_refused(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    code = (
        "import filelock, sys\nlock = filelock.FileLock(sys.argv[1])\nlock.acquire()\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(workplace_path(out) / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused(source, out, str(out), "another process", resume=True)
        refused(source, out, str(out), "another process", overwrite=True)
        other.communicate()
    assert predict_map(source, out, SmoothEngine(), resume=True).resumed > 0


# --- models that misbehave ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    class Overflowing(BrightnessEngine):
        def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            prob_BKHW = super().predict(image_BCHW)
            prob_BKHW[-1, 3, 5, 5] = value
            return prob_BKHW

    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    with pytest.raises(EngineError, match=r"brightness gave probabilities that are not finite on .*o\.tif"):
        predict_map(source, tmp_path / "map.tif", Overflowing())
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


def test_a_model_with_other_classes_than_it_says_is_refused(tmp_path: Path) -> None:
    engine = BrightnessEngine()
    engine.class_map = ClassMap(SALAK.classes[:4])
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    with pytest.raises(EngineError, match="brightness gave probabilities of shape"):
        predict_map(source, tmp_path / "map.tif", engine)


def test_a_batch_needs_at_least_one_tile(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    with pytest.raises(ValueError, match="batch_size"):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(), batch_size=0)


# --- files as users have them -------------------------------------------------------------------------------------

REAL_FILES: list[Any] = sorted(
    path for folder in ("geotiff-kinds", "orthomosaics") for path in (SHARED / folder).glob("*.[tv][ir][ft]")
)
ABSENT = pytest.param(SHARED, marks=pytest.mark.skip(reason="the shared imagery is not beside this checkout"))


@pytest.mark.parametrize("source", REAL_FILES or [ABSENT], ids=lambda path: path.name)
def test_real_files_are_mapped_or_refused_clearly(tmp_path: Path, source: Path) -> None:
    with rasterio.open(source) as dataset:
        image_CHW, valid_HW = dataset.read([1, 2, 3]), dataset.dataset_mask() > 0
        crs, transform, dtype = dataset.crs, dataset.transform, dataset.dtypes[0]
    if dtype != "uint8":
        refused(source, tmp_path / "map.tif", str(source), dtype, "--scale")
        return
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(tile=512))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.crs == crs
        assert made.transform == transform
        np.testing.assert_array_equal(made.read(1), np.where(valid_HW, brightness_class(image_CHW), 255))
    assert summary.valid_share == pytest.approx(valid_HW.mean())
