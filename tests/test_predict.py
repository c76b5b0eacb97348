"""Mapping orthomosaics from end to end with small real models in numpy: geometry, validity, seams, refusals, failures.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import sys
import tempfile
from collections.abc import Callable
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
from salakseg.mapping import predict
from salakseg.mapping.predict import MapSummary, predict_map

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SHARED = Path(__file__).parents[1].parent / "shared/data"
UTM_SOUTH = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]


class BrightnessEngine:
    """Classifies each pixel by its own brightness: the plainest model that a map can be checked against exactly."""

    def __init__(self, tile: int = 32, gsd_m: float | None = None) -> None:
        self.tile = tile
        self.gsd_m = gsd_m
        self.class_map: ClassMap = SALAK
        self.name = "brightness"
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
    """Works until its third batch."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__()
        self.failure = failure

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(self.shapes) == 2:
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
        summary = predict_map(source, out, engine, overlap=overlap, batch_size=batch_size)
        np.testing.assert_array_equal(read_map(out), brightness_class(image_CHW))
    assert len(set(engine.shapes)) == 1  # the last batch is filled up
    assert summary.class_counts.sum() == height * width


def test_a_model_with_a_neighbourhood_shows_no_seam(tmp_path: Path) -> None:
    height, width, tile, overlap, reach = 150, 170, 48, 24, SmoothEngine.reach
    image_CHW = blotches(height, width)
    engine = SmoothEngine(tile)
    predict_map(write_raster(tmp_path / "o.tif", image_CHW), tmp_path / "map.tif", engine, overlap=overlap)
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


@pytest.mark.parametrize("panel_width", [16, 33, 100])
def test_panels_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, panel_width: int) -> None:
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(70, 150), _round_alpha(70, 150)]))
    whole = predict_map(source, tmp_path / "whole.tif", SmoothEngine(), overlap=9)
    monkeypatch.setattr(predict, "PANEL_WIDTH", panel_width)
    split = predict_map(source, tmp_path / "split.tif", SmoothEngine(), overlap=9)
    np.testing.assert_array_equal(read_map(tmp_path / "whole.tif"), read_map(tmp_path / "split.tif"))
    np.testing.assert_array_equal(whole.class_counts, split.class_counts)
    assert split.tiles_run > whole.tiles_run  # those on the border were computed twice


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
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(gsd_m=0.1), allow_no_crs=True)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.crs is None
        assert made.transform.is_identity
    assert summary.warnings == ()


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
        out = tmp_path / name / "map.tif"
        out.parent.mkdir()
        predict_map(write_raster(tmp_path / f"{name}.tif", bands), out, SmoothEngine())
        maps[name] = out.read_bytes()
    assert maps["white"] == maps["black"] == maps["random"]


def test_empty_tiles_are_skipped(tmp_path: Path) -> None:
    alpha = np.zeros((1, 128, 160), np.uint8)
    alpha[0, 70:75, 70:75] = 255
    source = write_raster(tmp_path / "o.tif", np.concatenate([random_rgb(128, 160), alpha]))
    engine = BrightnessEngine(tile=32)
    calls: list[tuple[int, int]] = []
    summary = predict_map(
        source, tmp_path / "map.tif", engine, overlap=0, batch_size=1, progress=lambda *call: calls.append(call)
    )
    assert (summary.tiles_run, summary.tiles_skipped) == (1, 19)
    assert engine.shapes == [(1, 3, 32, 32)]
    assert calls == [(done, 20) for done in range(1, 21)]
    assert (read_map(tmp_path / "map.tif") != 255).sum() == 25


def test_an_orthomosaic_without_a_valid_pixel_gives_an_empty_map_and_a_warning(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", np.zeros((3, 50, 60), np.uint8), nodata=0)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    assert (read_map(tmp_path / "map.tif") == 255).all()
    assert summary.tiles_run == 0
    assert summary.class_shares.tolist() == [0.0] * 7
    assert "no valid pixel" in summary.warnings[0]


# --- the summary --------------------------------------------------------------------------------------------------


def test_the_summary_says_what_was_done(tmp_path: Path) -> None:
    image_CHW = random_rgb(90, 110)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(), overlap=8, batch_size=4)
    assert isinstance(summary, MapSummary)
    assert (summary.out, summary.width, summary.height) == (tmp_path / "map.tif", 110, 90)
    assert summary.tiles_run == 4 * 5
    assert summary.class_shares.sum() == pytest.approx(1.0)
    assert summary.seconds > 0
    assert summary.megapixels_per_second == pytest.approx(90 * 110 / 1e6 / summary.seconds)
    assert summary.runs_on == "numpy on the CPU"
    if sys.platform != "win32":
        assert summary.peak_memory_mb is not None
        assert 10 < summary.peak_memory_mb < 100_000


@pytest.mark.parametrize(
    ("gsd_m", "words"), [(0.05, ""), (0.054, ""), (0.02, "2.5 times too small"), (0.1, "2.0 times")]
)
def test_another_ground_sampling_distance_is_warned_of(tmp_path: Path, gsd_m: float, words: str) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(30, 30))
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(gsd_m=gsd_m))
    assert len(summary.warnings) == bool(words)
    assert words in "".join(summary.warnings)


# --- refusals and failures leave nothing behind -------------------------------------------------------------------


def refused(source: Path, out: Path, *words: str, **arguments: Any) -> None:
    before = _content(out.parent)
    with pytest.raises(RasterError) as caught:
        predict_map(source, out, BrightnessEngine(), **arguments)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _content(out.parent) == before


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}


@pytest.mark.parametrize("overlap", [-1, 32, 40])
def test_an_impossible_overlap_is_refused(tmp_path: Path, overlap: int) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    refused(source, tmp_path / "map.tif", str(source), f"overlap of {overlap}", "0 to 31", overlap=overlap)


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


def test_a_file_that_breaks_off_midway_leaves_no_map(tmp_path: Path) -> None:
    whole = write_raster(tmp_path / "o.tif", random_rgb(400, 400), tiled=True, blockxsize=128, blockysize=128)
    whole.write_bytes(whole.read_bytes()[:250_000])
    refused(whole, tmp_path / "map.tif", str(whole), "damaged or incomplete")


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), KeyboardInterrupt(), RasterError("late")])
def test_a_failure_midway_leaves_no_map(tmp_path: Path, failure: BaseException) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    with pytest.raises(type(failure)):
        predict_map(source, tmp_path / "map.tif", FailingEngine(failure), batch_size=2)
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


def test_an_interruption_between_tiles_leaves_no_map(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(), progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


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
    predict_map(second, out, BrightnessEngine(), overwrite=True)
    np.testing.assert_array_equal(read_map(out), brightness_class(second_CHW))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.tif", "map.tif", "map.tif.aux.xml", "second.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
def test_a_full_disk_leaves_no_map(tmp_path: Path) -> None:
    import resource  # POSIX only

    source = write_raster(tmp_path / "o.tif", random_rgb(1100, 1200))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))  # less than the map takes, stripes or COG
    try:
        refused(source, tmp_path / "map.tif", "map.tif", "written", "is the disk full?")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
        refused(source, tmp_path / "map.tif", str(source), dtype, "gdal_translate -ot Byte -scale")
        return
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(tile=512))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.crs == crs
        assert made.transform == transform
        np.testing.assert_array_equal(made.read(1), np.where(valid_HW, brightness_class(image_CHW), 255))
    assert summary.valid_share == pytest.approx(valid_HW.mean())
