"""Mapping orthomosaics whose pixels are not those of the model: what the model sees, and where the map lies.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasters import UTM_SOUTH, read_map, write_raster
from scipy import ndimage

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import RasterError
from salakseg.mapping import predict
from salakseg.mapping.plan import Section
from salakseg.mapping.predict import predict_map
from salakseg.mapping.runner import Here
from salakseg.mapping.settings import MapSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
DARK, BRIGHT = 20, 220


class ThresholdEngine:
    """Class 1 where a pixel is brighter than halfway between dark and bright, class 0 elsewhere; keeps what it got."""

    class_map: ClassMap = SALAK
    name = "threshold"
    runs_on = "numpy on the CPU"

    def __init__(self, gsd_m: float | None, tile: int = 64) -> None:
        self.gsd_m = gsd_m
        self.tile = tile
        self.identity = {"model": "threshold"}
        self.seen: list[NDArray[np.uint8]] = []

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += list(image_BCHW.copy())
        share_BHW = self.bright_share(image_BCHW)
        prob_BKHW = np.zeros((len(image_BCHW), len(SALAK), self.tile, self.tile), np.float32)
        prob_BKHW[:, 0], prob_BKHW[:, 1] = 1 - share_BHW, share_BHW
        return prob_BKHW

    def bright_share(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float64]:
        grey_BHW = image_BCHW.mean(axis=1, dtype=np.float64)
        share_BHW: NDArray[np.float64] = ((grey_BHW - DARK) / (BRIGHT - DARK)).clip(0, 1)
        return share_BHW


class NeighbourhoodEngine(ThresholdEngine):
    """Each pixel depends on those around it."""

    def bright_share(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float64]:
        share_BHW: NDArray[np.float64] = ndimage.uniform_filter(
            super().bright_share(image_BCHW), (1, 7, 7), mode="nearest"
        )
        return share_BHW


def disc(height: int, width: int, row: float, col: float, radii: tuple[float, float]) -> NDArray[np.bool_]:
    y, x = np.mgrid[:height, :width] + 0.5
    inside: NDArray[np.bool_] = ((y - row) / radii[0]) ** 2 + ((x - col) / radii[1]) ** 2 < 1
    return inside


def picture(truth_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.repeat(np.where(truth_HW, BRIGHT, DARK).astype(np.uint8)[None], 3, axis=0)


def scene(height: int = 150, width: int = 180) -> NDArray[np.bool_]:
    """A disc apart from everything, big rectangles at odd places, one of them at the corner."""
    truth_HW = disc(height, width, 60.3, 61.7, (31.4, 31.4))
    truth_HW[101:133, 97:151] = True
    truth_HW[-13:, :29] = True
    truth_HW[20:90, 131:] = True
    return truth_HW


def middle(label_HW: NDArray[Any]) -> NDArray[np.float64]:
    """Centre of mass of the scene's disc, row and column."""
    return np.array(ndimage.center_of_mass(label_HW[25:97, 25:97] == 1)) + 25.5


def from_border(truth_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pixels from each pixel's centre to the nearest border between the classes."""
    inside, outside = (ndimage.distance_transform_edt(side_HW) for side_HW in (truth_HW, ~truth_HW))
    distance_HW: NDArray[np.float64] = np.maximum(inside, outside) - 0.5
    return distance_HW


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(30, 200, (3, height, width), dtype=np.uint8)


def spotted(height: int, width: int) -> NDArray[np.bool_]:
    """Valid pixels: an ellipse with holes."""
    valid_HW = disc(height, width, height / 2, width / 2, (0.45 * height, 0.45 * width))
    valid_HW[::13, ::7] = False
    valid_HW[40:52, 45:60] = False
    return valid_HW


# --- the map lies where the orthomosaic lies, whatever the model sees ---------------------------------------------

LATITUDE = -7.654321
PLACES = {
    "UTM north": ("EPSG:32633", Affine(0.02, 0, 638838.7014794865, 0, -0.02, 5802604.930682349), 0.02),
    "UTM south": ("EPSG:32749", UTM_SOUTH, 0.05),
    "degrees": ("EPSG:4326", Affine(2.5e-7, 0, 110.123456789, 0, -2.5e-7, LATITUDE), 0.02762),
    "rotated": ("EPSG:32749", Affine(0.04, 0.03, 431000.123, 0.03, -0.04, 9154000.456), 0.05),
    "south up": ("EPSG:32749", Affine(0.05, 0, 431000.0, 0, 0.05, 9154000.0), 0.05),
    "web Mercator": ("EPSG:3857", Affine(0.298582, 0, 11241103.776606, 0, -0.298582, 529736.075573), 0.29756),
    "feet": ("EPSG:2264", Affine(0.25, 0, 1500000.0, 0, -0.25, 600000.0), 0.0762),
}


@pytest.mark.parametrize("coarseness", [0.5, 2.0, 3.3])
@pytest.mark.parametrize("place", PLACES)
def test_borders_and_middles_are_right(tmp_path: Path, place: str, coarseness: float) -> None:
    crs, transform, pixel_m = PLACES[place]
    truth_HW = scene()
    source = write_raster(tmp_path / "o.tif", picture(truth_HW), crs=crs, transform=transform)
    engine = ThresholdEngine(pixel_m / coarseness)
    said: list[str] = []
    summary = predict_map(source, tmp_path / "map.tif", engine, say=said.append)
    label_HW = read_map(tmp_path / "map.tif")
    with rasterio.open(source) as given, rasterio.open(tmp_path / "map.tif") as made:
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        assert made.transform == transform
        x, y = given.xy(60, 61)  # the same place in both
        assert next(made.sample([(x, y)]))[0] == 1
    assert (summary.height, summary.width) == truth_HW.shape
    # The model has seen pixels of the size that it knows: so many tiles, and no more.
    per_axis = [math.ceil((size * coarseness - 64) / 52 - 1e-9) + 1 for size in truth_HW.shape]
    nominal = per_axis[0] * per_axis[1]
    assert summary.tiles_run == pytest.approx(nominal, rel=0.1, abs=1)  # degrees are not quite square
    assert "model sees it at" in said[0] and f"{engine.gsd_m:.3g} m" in said[0]
    assert ("missed" in said[0]) == (coarseness > 1.5)

    wrong_HW = (label_HW == 1) != truth_HW
    assert (label_HW < 2).all()
    assert from_border(truth_HW)[wrong_HW].max(initial=0) <= max(1.0, 1 / coarseness)
    np.testing.assert_allclose(middle(label_HW), middle(truth_HW), atol=0.1)
    # Thresholds move no border to one side: as many pixels are lost as won.
    assert abs(int((label_HW == 1).sum()) - int(truth_HW.sum())) < 0.01 * truth_HW.sum()


@pytest.mark.parametrize("coarseness", [0.5, 2.0])
def test_even_pixels_are_mapped_exactly(tmp_path: Path, coarseness: float) -> None:
    truth_HW = np.kron(np.random.default_rng(1).random((30, 35)) < 0.5, np.ones((4, 4))) > 0
    predict_map(
        write_raster(tmp_path / "o.tif", picture(truth_HW)), tmp_path / "map.tif", ThresholdEngine(0.05 / coarseness)
    )
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), truth_HW)


def test_the_model_sees_the_means_of_blocks(tmp_path: Path) -> None:
    image_CHW = noise(96, 128)
    engine = ThresholdEngine(0.1, tile=64)
    predict_map(write_raster(tmp_path / "o.tif", image_CHW), tmp_path / "map.tif", engine, MapSettings(overlap=0))
    means = image_CHW.reshape(3, 48, 2, 64, 2).mean(axis=(2, 4))
    (seen_CHW,) = engine.seen
    assert np.abs(seen_CHW[:, :48] - means).max() <= 0.5001
    np.testing.assert_array_equal(seen_CHW[:, 48:], seen_CHW[:, 31:47][:, ::-1])  # beyond the file: its mirror image


def test_the_model_sees_pixels_interpolated_between_centres(tmp_path: Path) -> None:
    y, x = np.mgrid[:40, :50]
    image_CHW = np.stack([4 * x, 5 * y, 2 * x + 2 * y]).astype(np.uint8)
    engine = ThresholdEngine(0.025, tile=100)
    predict_map(write_raster(tmp_path / "o.tif", image_CHW), tmp_path / "map.tif", engine, MapSettings(overlap=0))
    v, u = (np.mgrid[:80, :100] + 0.5) / 2 - 0.5
    expected = np.stack([4 * u, 5 * v, 2 * u + 2 * v])
    (seen_CHW,) = engine.seen
    inner = (slice(None), slice(1, 79), slice(1, 99))
    assert np.abs(seen_CHW[:, :80][inner] - expected[inner]).max() <= 0.5001


def test_the_model_sees_square_pixels_where_those_of_the_file_are_oblong(tmp_path: Path) -> None:
    step_deg, latitude = 2.5e-7, 60.0
    north_m = math.radians(step_deg) * 6_367_382.0 * (1 + 0.005_052 * (math.sin(math.radians(latitude)) ** 2 - 0.5))
    transform = Affine(step_deg, 0, 10.0, 0, -step_deg, latitude)
    truth_HW = disc(90, 180, 44.8, 90.9, (30.0, 60.0))  # on the ground it is round, as cos(60 degrees) is a half
    engine = ThresholdEngine(north_m, tile=128)
    source = write_raster(tmp_path / "o.tif", picture(truth_HW), crs="EPSG:4326", transform=transform)
    predict_map(source, tmp_path / "map.tif", engine, MapSettings(overlap=0))
    (seen_CHW,) = engine.seen
    seen_HW = seen_CHW[0, :90, :91].astype(float)  # what is beyond mirrors what is before
    weight_HW = (seen_HW - DARK) / (BRIGHT - DARK)
    rows, cols = weight_HW.sum(axis=1), weight_HW.sum(axis=0)
    spread = [math.sqrt(np.average((np.arange(len(s)) - np.average(np.arange(len(s)), weights=s)) ** 2, weights=s))
              for s in (rows, cols)]  # fmt: skip
    assert spread[0] == pytest.approx(spread[1], rel=0.01)
    assert spread[0] == pytest.approx(15.0, rel=0.01)  # half the radius
    label_HW = read_map(tmp_path / "map.tif")
    wrong_HW = (label_HW == 1) != truth_HW
    assert from_border(truth_HW)[wrong_HW].max(initial=0) <= 2.0
    np.testing.assert_allclose(ndimage.center_of_mass(label_HW == 1), ndimage.center_of_mass(truth_HW), atol=0.1)


# --- when nothing is resampled ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gsd_m", "settings"),
    [
        (None, MapSettings(overlap=0)),
        (0.05, MapSettings(overlap=0)),
        (0.0548, MapSettings(overlap=0)),
        (0.0459, MapSettings(overlap=0)),
        (0.2, MapSettings(overlap=0, gsd="off")),
        (0.001, MapSettings(overlap=0, gsd="off")),
        (0.2, MapSettings(overlap=0, gsd=0.052)),
    ],
)
def test_pixels_of_about_the_models_size_stay_as_they_are(
    tmp_path: Path, gsd_m: float | None, settings: MapSettings
) -> None:
    image_CHW = noise(64, 96)
    engine = ThresholdEngine(gsd_m, tile=32)
    predict_map(write_raster(tmp_path / "o.tif", image_CHW), tmp_path / "map.tif", engine, settings)
    assert len(engine.seen) == 6
    for index, seen_CHW in enumerate(engine.seen):
        row, col = 32 * (index // 3), 32 * (index % 3)
        np.testing.assert_array_equal(seen_CHW, image_CHW[:, row : row + 32, col : col + 32])


@pytest.mark.parametrize("gsd_m", [0.0565, 0.0445])
def test_more_than_a_tenth_is_resampled(tmp_path: Path, gsd_m: float) -> None:
    engine = ThresholdEngine(gsd_m, tile=128)
    image_CHW = np.broadcast_to(np.linspace(0, 255, 96, dtype=np.uint8), (3, 64, 96))
    predict_map(write_raster(tmp_path / "o.tif", image_CHW), tmp_path / "map.tif", engine, MapSettings(overlap=0))
    (seen_CHW,) = engine.seen
    width = math.ceil(96 * 0.05 / gsd_m)
    assert (np.diff(seen_CHW[0, 0, :width].astype(int)) >= 0).all()
    assert seen_CHW[0, 0, width - 1] >= 252  # the file's right edge
    assert (np.diff(seen_CHW[0, 0, width - 1 :].astype(int)) <= 0).all()  # and its mirror image


@pytest.mark.parametrize(("gsd_m", "wanted"), [(None, 0.1), (0.05, 0.1), (0.7, 0.1)])
def test_a_number_overrides_what_the_model_says(tmp_path: Path, gsd_m: float | None, wanted: float) -> None:
    image_CHW = noise(64, 64)
    engine = ThresholdEngine(gsd_m, tile=32)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    predict_map(source, tmp_path / "map.tif", engine, MapSettings(overlap=0, gsd=wanted))
    (seen_CHW,) = engine.seen
    assert np.abs(seen_CHW - image_CHW.reshape(3, 32, 2, 32, 2).mean(axis=(2, 4))).max() <= 0.5001


@pytest.mark.parametrize("place", [{"crs": None}, {"transform": Affine.identity()}], ids=["no system", "no transform"])
def test_an_unknown_place_is_not_resampled(tmp_path: Path, place: dict[str, Any]) -> None:
    from salakseg.mapping.opening import SourceOptions

    image_CHW = noise(32, 32)
    source = write_raster(tmp_path / "o.tif", image_CHW, **place)
    settings = MapSettings(overlap=0, source=SourceOptions(allow_no_crs=True))
    engine = ThresholdEngine(0.5, tile=32)
    predict_map(source, tmp_path / "map.tif", engine, settings)
    np.testing.assert_array_equal(engine.seen[0], image_CHW)
    with pytest.raises(RasterError, match="--out-gsd"):
        predict_map(
            source, tmp_path / "b.tif", engine, MapSettings(out_gsd=0.1, source=SourceOptions(allow_no_crs=True))
        )


@pytest.mark.parametrize(
    ("gsd_m", "words"), [(0.0049, ["10 times as coarse", "0.0049 m"]), (60.0, ["1,200 times as fine", "60 m"])]
)
def test_what_is_too_far_from_the_model_is_refused(tmp_path: Path, gsd_m: float, words: list[str]) -> None:
    source = write_raster(tmp_path / "o.tif", noise(32, 32))
    with pytest.raises(RasterError) as caught:
        predict_map(source, tmp_path / "map.tif", ThresholdEngine(gsd_m))
    message = str(caught.value)
    for word in [str(source), "0.05 m a pixel", "--gsd off", *words]:
        assert word in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]
    predict_map(source, tmp_path / "map.tif", ThresholdEngine(gsd_m), MapSettings(gsd="off"))  # the remedy works


def test_ten_times_as_coarse_is_not_refused(tmp_path: Path) -> None:
    truth_HW = np.zeros((30, 30), np.bool_)
    truth_HW[10:20, 5:15] = True
    predict_map(write_raster(tmp_path / "o.tif", picture(truth_HW)), tmp_path / "map.tif", ThresholdEngine(0.00501))
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), truth_HW)


# --- a map of another ground sampling distance --------------------------------------------------------------------


@pytest.mark.parametrize("gsd_m", [None, 0.025, 0.1, 0.165])
@pytest.mark.parametrize("out_gsd", [0.02, 0.025, 0.05, 0.1, 0.165])
def test_a_map_of_another_size_covers_the_same_ground(tmp_path: Path, gsd_m: float | None, out_gsd: float) -> None:
    truth_HW = scene()
    source = write_raster(tmp_path / "o.tif", picture(truth_HW))
    step = out_gsd / 0.05
    summary = predict_map(source, tmp_path / "map.tif", ThresholdEngine(gsd_m), MapSettings(out_gsd=out_gsd))
    with rasterio.open(source) as given, rasterio.open(tmp_path / "map.tif") as made:
        label_HW = made.read(1)
        assert made.crs == given.crs
        assert made.transform.almost_equals(UTM_SOUTH @ Affine.scale(step), 1e-9)
        assert made.shape == tuple(math.ceil(size / step - 1e-6) for size in given.shape)
        assert (made.bounds.left, made.bounds.top) == pytest.approx((given.bounds.left, given.bounds.top))
        for edge, sign in (("right", 1), ("bottom", -1)):  # to the last pixel, and no pixel further
            beyond = sign * (getattr(made.bounds, edge) - getattr(given.bounds, edge))
            assert -1e-6 < beyond < out_gsd
    assert (summary.height, summary.width) == label_HW.shape
    # The last row and column count where at least half of a pixel has ground beneath it.
    covered = [
        np.minimum(1, (size - np.arange(count) * step) / step)
        for size, count in zip(truth_HW.shape, label_HW.shape, strict=True)
    ]
    known_HW = np.outer(*covered) >= 0.5
    np.testing.assert_array_equal(label_HW != 255, known_HW)
    assert summary.valid_share == pytest.approx(known_HW.mean())
    # Nothing is shifted: the disc lies where it lay, in pixels of the orthomosaic.
    there = tuple(slice(round(25 / step), round(97 / step)) for _ in range(2))
    corner = there[0].start
    place = (np.array(ndimage.center_of_mass(label_HW[there] == 1)) + corner + 0.5) * step
    np.testing.assert_allclose(place, middle(truth_HW), atol=max(0.1, 0.06 * step, 1.2 * (gsd_m or 0)))
    # Each pixel of the map that lies a pixel away from all borders has the class of the ground beneath it.
    rows, cols = (((np.arange(size) + 0.5) * step).astype(int) for size in label_HW.shape)
    rows, cols = rows.clip(0, truth_HW.shape[0] - 1), cols.clip(0, truth_HW.shape[1] - 1)
    picked = np.ix_(rows, cols)
    clear_HW = known_HW & (from_border(truth_HW)[picked] > max(step, (gsd_m or 0.05) / 0.05, 1.0) + 0.5)
    assert clear_HW.mean() > 0.7
    np.testing.assert_array_equal((label_HW == 1)[clear_HW], truth_HW[picked][clear_HW])


@pytest.mark.parametrize("gsd_m", [None, 0.1])
def test_a_coarser_map_is_valid_where_half_of_a_pixel_is(tmp_path: Path, gsd_m: float | None) -> None:
    valid_HW = np.random.default_rng(4).random((120, 152)) < 0.5
    valid_HW[:48, :40] = False
    bands = np.concatenate([noise(120, 152), np.where(valid_HW, 255, 0).astype(np.uint8)[None]])
    source = write_raster(tmp_path / "o.tif", bands)
    predict_map(source, tmp_path / "map.tif", ThresholdEngine(gsd_m, tile=32), MapSettings(out_gsd=0.1))
    share_HW = valid_HW.reshape(60, 2, 76, 2).mean(axis=(1, 3))
    assert (share_HW == 0.5).sum() > 100
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif") != 255, share_HW >= 0.5)


def test_a_finer_map_is_valid_where_its_ground_is(tmp_path: Path) -> None:
    valid_HW = np.random.default_rng(4).random((40, 50)) < 0.5
    bands = np.concatenate([noise(40, 50), np.where(valid_HW, 255, 0).astype(np.uint8)[None]])
    source = write_raster(tmp_path / "o.tif", bands)
    predict_map(source, tmp_path / "map.tif", ThresholdEngine(None, tile=32), MapSettings(out_gsd=0.025))
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif") != 255, np.kron(valid_HW, np.ones((2, 2), np.bool_)))


@pytest.mark.parametrize("gsd_m", [0.025, 0.1, 0.165])
def test_validity_on_the_files_own_grid_is_the_files_own(tmp_path: Path, gsd_m: float) -> None:
    valid_HW = np.random.default_rng(4).random((90, 110)) < 0.6
    valid_HW[:40, :35] = False
    bands = np.concatenate([noise(90, 110), np.where(valid_HW, 255, 0).astype(np.uint8)[None]])
    summary = predict_map(
        write_raster(tmp_path / "o.tif", bands), tmp_path / "map.tif", ThresholdEngine(gsd_m, tile=32)
    )
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif") != 255, valid_HW)
    assert summary.valid_share == pytest.approx(valid_HW.mean())


# --- what is not valid bleeds into nothing ------------------------------------------------------------------------


def _beneath(kind: str, image_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if kind == "random":
        return np.random.default_rng(9).integers(0, 256, image_CHW.shape, dtype=np.uint8)
    return np.full_like(image_CHW, {"white": 255, "black": 0, "grey": 7}[kind])


@pytest.mark.parametrize(
    ("gsd_m", "settings"),
    [
        (0.1, MapSettings()),
        (0.165, MapSettings(out_gsd=0.12)),
        (0.03, MapSettings()),
        (0.028, MapSettings(out_gsd=0.1)),
    ],
)
def test_colours_beneath_transparent_pixels_change_nothing(tmp_path: Path, gsd_m: float, settings: MapSettings) -> None:
    image_CHW, valid_HW = noise(100, 120), spotted(100, 120)
    alpha = np.where(valid_HW, 255, 0).astype(np.uint8)[None]
    engines, maps = [], {}
    for mark in ("alpha", "mask", "nodata"):
        for kind in ("white", "black", "grey") + (("random",) if mark != "nodata" else ()):
            beneath_CHW = _beneath(kind, image_CHW)
            bands = np.where(valid_HW, image_CHW, beneath_CHW).astype(np.uint8)
            profile: dict[str, Any] = {}
            if mark == "alpha":
                bands = np.concatenate([bands, alpha])
            elif mark == "mask":
                profile["mask"] = valid_HW
            else:
                profile["nodata"] = int(beneath_CHW[0, 0, 0])
            source = write_raster(tmp_path / f"{mark} {kind}" / "o.tif", bands, **profile)
            engine = NeighbourhoodEngine(gsd_m)
            predict_map(source, source.with_name("map.tif"), engine, settings)
            engines.append(engine)
            maps[mark, kind] = source.with_name("map.tif").read_bytes()
    assert len(set(maps.values())) == 1, sorted(maps)
    for engine in engines[1:]:
        np.testing.assert_array_equal(np.stack(engine.seen), np.stack(engines[0].seen))


@pytest.mark.parametrize("gsd_m", [0.1, 0.165, 0.025])
def test_a_flat_colour_stays_itself_up_to_the_border(tmp_path: Path, gsd_m: float) -> None:
    valid_HW = spotted(100, 120)
    bands = np.where(valid_HW, np.array([50, 100, 150, 255])[:, None, None], 0).astype(np.uint8)
    engine = ThresholdEngine(gsd_m)
    predict_map(write_raster(tmp_path / "o.tif", bands), tmp_path / "map.tif", engine)
    for seen_CHW in engine.seen:
        np.testing.assert_array_equal(seen_CHW.reshape(3, -1).T, np.broadcast_to([50, 100, 150], (64 * 64, 3)))


# --- how the work is cut makes no difference ----------------------------------------------------------------------

CUTS: list[tuple[float, float | None]] = [(0.1, None), (0.033, None), (0.05, 0.13), (0.08, 0.03)]


def _source(folder: Path) -> Path:
    soft = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(3, 80, 400)), (0, 5, 5))
    image_CHW = np.asarray(115 + 60 * soft / soft.std()).clip(0, 255).astype(np.uint8)
    alpha = np.where(spotted(80, 400), 255, 0).astype(np.uint8)[None]
    return write_raster(folder / "o.tif", np.concatenate([image_CHW, alpha]))


def _map(
    source: Path,
    out: Path,
    gsd_m: float,
    out_gsd: float | None,
    change: Callable[[ThresholdEngine], None] = lambda engine: None,
    **arguments: Any,
) -> bytes:
    engine = NeighbourhoodEngine(gsd_m, tile=32)
    change(engine)
    predict_map(source, out, engine, MapSettings(overlap=9, out_gsd=out_gsd), **arguments)
    return out.read_bytes()


@pytest.mark.parametrize(("gsd_m", "out_gsd"), CUTS)
def test_panels_and_batches_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gsd_m: float, out_gsd: float | None
) -> None:
    source = _source(tmp_path)
    whole = _map(source, tmp_path / "map.tif", gsd_m, out_gsd)
    assert _map(source, tmp_path / "map.tif", gsd_m, out_gsd, batch_size=5, overwrite=True) == whole
    for memory in (135, 2000):  # the least that works: some hundred columns
        assert _map(source, tmp_path / "map.tif", gsd_m, out_gsd, max_memory_mb=memory, overwrite=True) == whole
    for panel_width in (64, 71):
        monkeypatch.setattr(predict, "PANEL_WIDTH", panel_width)
        assert _map(source, tmp_path / "map.tif", gsd_m, out_gsd, overwrite=True) == whole


@pytest.mark.parametrize(("gsd_m", "out_gsd"), CUTS)
def test_going_on_after_a_failure_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gsd_m: float, out_gsd: float | None
) -> None:
    source, out = _source(tmp_path), tmp_path / "map.tif"
    whole = _map(source, out, gsd_m, out_gsd)
    out.unlink()
    monkeypatch.setattr(predict, "PANEL_WIDTH", 64)
    answer = NeighbourhoodEngine.predict

    def fail_after(tiles: int) -> Callable[[ThresholdEngine], None]:
        def change(engine: ThresholdEngine) -> None:
            def predict_some(image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
                if len(engine.seen) == tiles:
                    raise RuntimeError("out of memory")
                return answer(engine, image_BCHW)

            monkeypatch.setattr(engine, "predict", predict_some)

        return change

    for _ in range(2):  # the second one goes on where the first one failed
        with pytest.raises(RuntimeError):
            _map(source, out, gsd_m, out_gsd, fail_after(9), resume=True)
        assert not out.exists()
    engine = NeighbourhoodEngine(gsd_m, tile=32)
    summary = predict_map(source, out, engine, MapSettings(overlap=9, out_gsd=out_gsd), resume=True)
    assert out.read_bytes() == whole
    assert summary.resumed > 0


def test_a_map_so_coarse_that_no_row_ends_in_a_piece_of_work(tmp_path: Path) -> None:
    """As a cluster cuts the work, into few stripes each."""

    class Pieces(Here):
        def cut(self, sections: list[Section]) -> list[Section]:
            return [replace(s, start=n, stop=n + 1) for s in sections for n in range(s.start, s.stop)]

    source = write_raster(tmp_path / "o.tif", noise(300, 200))
    settings = MapSettings(overlap=8, out_gsd=5.0)  # some four rows of tiles a row of the map
    maps = []
    for name, runner in (("plain", None), ("pieces", Pieces(ThresholdEngine(None, tile=32)))):
        predict_map(source, tmp_path / f"{name}.tif", ThresholdEngine(None, tile=32), settings, runner=runner)
        maps.append((tmp_path / f"{name}.tif").read_bytes())
    assert maps[0] == maps[1]
