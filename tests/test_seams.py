"""Seams: none where tiles overlap as they do by default; the windows behind it; engines made of engines.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import read_map
from scipy import ndimage, special

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import EngineError
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings, default_overlap
from salakseg.mapping.tiling import WINDOWS, TileAxis, TileGrid, WindowName
from salakseg.network.combine import MeanEngine, TurnedEngine

TILE = 48
HEIGHT, WIDTH = 400, 430


class ConvolutionEngine:
    """A small network: each class is a blurred mixture of the colours, with zeros beyond the tile as networks have.

    Not the same in all directions: the neighbourhood of each class lies to another side.
    """

    runs_on = "numpy on the CPU"

    def __init__(
        self,
        tile: int = TILE,
        gsd_m: float | None = None,
        seed: int = 0,
        class_map: ClassMap = SALAK,
        name: str = "convolution",
    ) -> None:
        generator = np.random.default_rng(seed)
        self.tile, self.gsd_m, self.class_map, self.name = tile, gsd_m, class_map, name
        self.identity = {"model": name, "seed": str(seed)}
        self._mix_KC = generator.normal(size=(len(class_map), 3))
        self._shifts = generator.integers(-2, 3, (len(class_map), 2))

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        centred = image_BCHW.astype(np.float64) / 64 - 2
        logits_BKHW = np.einsum("kc,bchw->bkhw", self._mix_KC, centred)
        for k, shift in enumerate(self._shifts):
            moved = ndimage.shift(logits_BKHW[:, k], (0, *shift), order=0, mode="constant")
            logits_BKHW[:, k] = ndimage.uniform_filter(moved, (1, 7, 7), mode="constant")
        prob_BKHW: NDArray[np.float32] = special.softmax(4 * logits_BKHW, axis=1).astype(np.float32)
        return prob_BKHW


def write_scene(path: Path, seed: int) -> Path:
    """Soft blotches without any line in them."""
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, HEIGHT, WIDTH)), (0, 5, 5))
    image_CHW = np.asarray(127.5 + 45 * soft / soft.std()).clip(0, 255).astype(np.uint8)
    transform = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32749", "transform": transform}
    with rasterio.open(path, "w", count=3, height=HEIGHT, width=WIDTH, **profile) as dataset:
        dataset.write(image_CHW)
    return path


def changes(label_HW: NDArray[np.uint8], overlap: int) -> tuple[list[float], list[float]]:
    """Share of pixels whose class is not that of the pixel before: on lines where a tile begins or ends, elsewhere.

    Columns and rows together; lines near the raster's own border are left out.
    """
    on: list[float] = []
    off: list[float] = []
    for axis, size in enumerate(label_HW.shape):
        rate = (np.diff(label_HW.astype(int), axis=axis) != 0).mean(axis=1 - axis)
        starts = np.arange(0, size, TILE - overlap)
        borders = set(starts) | set(starts + TILE)
        for line in range(10, size - 10):
            (on if line in borders else off).append(float(rate[line - 1]))
    return on, off


def excess(labels: list[NDArray[np.uint8]], overlap: int) -> tuple[float, float]:
    """By how much classes change more often on the lines than elsewhere, as a share; and its standard error."""
    pairs = [changes(label_HW, overlap) for label_HW in labels]
    on, off = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    error = np.hypot(on.std(ddof=1) / np.sqrt(len(on)), off.std(ddof=1) / np.sqrt(len(off)))
    return float(on.mean() / off.mean() - 1), float(error / off.mean())


def test_the_default_overlap_shows_no_seam_where_none_shows_many(tmp_path: Path) -> None:
    maps: dict[int, list[NDArray[np.uint8]]] = {0: [], default_overlap(TILE): []}
    for seed in range(3):
        source = write_scene(tmp_path / "o.tif", seed)
        for overlap, labels in maps.items():
            engine = ConvolutionEngine(seed=seed)
            # The default itself, not its number.
            predict_map(source, tmp_path / "map.tif", engine, MapSettings(0 if overlap == 0 else None), overwrite=True)
            labels.append(read_map(tmp_path / "map.tif"))
    found, error = excess(maps[0], 0)
    assert found > 0.5 and found > 5 * error  # the detector works
    overlap = default_overlap(TILE)
    assert 0 < overlap < TILE
    found, error = excess(maps[overlap], overlap)
    assert error < 0.1
    assert found < 2.5 * error
    # Nor on lines where there are no tiles' borders: the detector sees nothing in a map without seams.
    found, error = excess([np.roll(label_HW, 5, (0, 1)) for label_HW in maps[overlap]], overlap)
    assert abs(found) < 3 * error


@pytest.mark.parametrize("window", WINDOWS)
def test_the_window_of_the_settings_is_that_of_the_map(tmp_path: Path, window: WindowName) -> None:
    source = write_scene(tmp_path / "o.tif", 4)
    engine, overlap = ConvolutionEngine(), 20
    predict_map(source, tmp_path / "map.tif", engine, MapSettings(overlap, window))
    with rasterio.open(source) as dataset:
        image_CHW = dataset.read()
    # The plainest blend: a sum over whole tiles, each by its own window, divided by the sum of the windows.
    at = (np.arange(TILE) + 0.5) / TILE
    shape = {"hann": np.sin(np.pi * at) ** 2, "triangle": np.minimum(at, 1 - at), "flat": np.ones(TILE)}[window]
    tops, lefts = (range(0, size - TILE + TILE - overlap, TILE - overlap) for size in (HEIGHT, WIDTH))
    size = (max(tops) + TILE, max(lefts) + TILE)
    padded_CHW = np.pad(image_CHW, ((0, 0), (0, size[0] - HEIGHT), (0, size[1] - WIDTH)), mode="reflect")
    total_KHW, weight_HW = np.zeros((len(SALAK), *size)), np.zeros(size)
    for top in tops:
        for left in lefts:
            here = slice(top, top + TILE), slice(left, left + TILE)
            total_KHW[:, *here] += engine.predict(padded_CHW[None, :, *here])[0] * np.outer(shape, shape)
            weight_HW[here] += np.outer(shape, shape)
    prob_KHW = (total_KHW / weight_HW)[:, :HEIGHT, :WIDTH]
    best = np.sort(prob_KHW, axis=0)
    clear_HW = best[-1] - best[-2] > 1e-5  # sums of float32 are not told apart closer than that
    assert clear_HW.mean() > 0.999
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif")[clear_HW], prob_KHW.argmax(axis=0)[clear_HW])


# --- windows ------------------------------------------------------------------------------------------------------


@given(st.sampled_from(WINDOWS), st.integers(1, 300), st.integers(1, 64), st.data())
@settings(max_examples=100, deadline=None)
def test_weights_of_every_window_sum_to_one(window: WindowName, size: int, tile: int, data: st.DataObject) -> None:
    axis = TileAxis(size, tile, data.draw(st.integers(0, tile - 1)), window)
    total = np.zeros(axis.start(axis.count - 1) + tile)
    for index in range(axis.count):
        weights = axis.weights(index)
        assert weights.min() > 0
        total[axis.start(index) : axis.start(index) + tile] += weights
    np.testing.assert_allclose(total, 1.0, atol=1e-12)
    assert TileGrid.over(size, size, tile, axis.overlap, window).rows == axis


def test_windows_are_what_they_are_called() -> None:
    hann, triangle, flat = (TileAxis(400, 40, 20, window).weights(3) for window in ("hann", "triangle", "flat"))
    np.testing.assert_allclose(flat, 0.5)
    at = (np.arange(20) + 0.5) / 20  # through the half that two tiles share
    np.testing.assert_allclose(triangle, [*at, *at[::-1]])
    np.testing.assert_allclose(hann[:20], np.sin(np.pi * at / 2) ** 2)
    np.testing.assert_allclose(hann, hann[::-1])
    for window in WINDOWS:  # the first tile has nobody to share its first half with
        np.testing.assert_allclose(TileAxis(400, 40, 20, window).weights(0)[:20], 1.0)


# --- engines made of engines --------------------------------------------------------------------------------------


def batch(seed: int = 0, size: int = 3, tile: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, 3, tile, tile), dtype=np.uint8)


def turned(values: NDArray[Any], turns: int, mirrored: bool) -> NDArray[Any]:
    """One of the eight: turned to the left so many times, then mirrored from left to right."""
    for _ in range(turns):
        values = np.swapaxes(values, 2, 3)[:, :, ::-1]  # transposed and upside down is a quarter to the left
    return np.ascontiguousarray(values[..., ::-1] if mirrored else values)


def turned_back(values: NDArray[Any], turns: int, mirrored: bool) -> NDArray[Any]:
    return turned(values[..., ::-1] if mirrored else values, (4 - turns) % 4, False)


EIGHT = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]


def test_the_engine_of_these_tests_is_not_the_same_in_all_directions() -> None:
    engine, image_BCHW = ConvolutionEngine(tile=20), batch()
    answers = [turned_back(engine.predict(turned(image_BCHW, *way)), *way) for way in EIGHT]
    for first in range(8):
        for second in range(first):
            assert np.abs(answers[first] - answers[second]).max() > 0.1
    for way in EIGHT:
        np.testing.assert_array_equal(turned_back(turned(image_BCHW, *way), *way), image_BCHW)


def test_a_turned_engine_is_the_mean_over_eight_turns_and_flips() -> None:
    engine, image_BCHW = ConvolutionEngine(tile=20, gsd_m=0.05), batch()
    expected = np.mean(
        [turned_back(engine.predict(turned(image_BCHW, *way)), *way).astype(np.float64) for way in EIGHT], axis=0
    )
    before = image_BCHW.copy()
    tta = TurnedEngine(engine)
    prob_BKHW = tta.predict(image_BCHW)
    assert prob_BKHW.dtype == np.float32
    np.testing.assert_allclose(prob_BKHW, expected, atol=1e-6)
    np.testing.assert_allclose(prob_BKHW.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(image_BCHW, before)
    assert (tta.class_map, tta.tile, tta.gsd_m, tta.name, tta.runs_on) == (
        engine.class_map, engine.tile, engine.gsd_m, engine.name, engine.runs_on
    )  # fmt: skip
    assert tta.identity.items() > engine.identity.items()  # a map made with it is another map


@pytest.mark.parametrize("way", EIGHT)
def test_turning_the_input_turns_the_output(way: tuple[int, bool]) -> None:
    tta, image_BCHW = TurnedEngine(ConvolutionEngine(tile=20)), batch(1)
    there = tta.predict(turned(image_BCHW, *way))
    np.testing.assert_allclose(there, turned(tta.predict(image_BCHW), *way), atol=1e-6)


class KeepingEngine(ConvolutionEngine):
    """Gives out the same array each time, as a runtime with a bound output does."""

    kept: NDArray[np.float32]

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not hasattr(self, "kept"):
            self.kept = super().predict(image_BCHW)
        return self.kept


def test_a_mean_engine_gives_the_mean() -> None:
    engines = [ConvolutionEngine(tile=20, seed=seed, name=f"model {seed}") for seed in range(3)]
    image_BCHW = batch()
    for count in (1, 2, 3):
        mean = MeanEngine(engines[:count])
        expected = np.mean([engine.predict(image_BCHW) for engine in engines[:count]], axis=0, dtype=np.float64)
        prob_BKHW = mean.predict(image_BCHW)
        assert prob_BKHW.dtype == np.float32
        np.testing.assert_allclose(prob_BKHW, expected, atol=1e-6)
    assert mean.tile == 20
    assert mean.class_map == SALAK
    assert mean.name == "model 0 + model 1 + model 2"
    assert mean.runs_on == "numpy on the CPU"
    assert mean.identity == {"model": "model 0 + model 1 + model 2", "seed": "0 + 1 + 2"}
    assert mean.identity != MeanEngine(engines[::-1]).identity


@pytest.mark.parametrize("kind", [MeanEngine, TurnedEngine])
def test_answers_of_the_engines_are_not_changed(kind: Any) -> None:
    engine = KeepingEngine(tile=20)
    image_BCHW = batch()
    before = engine.predict(image_BCHW).copy()
    kind([engine, ConvolutionEngine(tile=20, seed=2)] if kind is MeanEngine else engine).predict(image_BCHW)
    np.testing.assert_array_equal(engine.kept, before)


def other_classes(change: str) -> ClassMap:
    first, second, *rest = SALAK.classes
    changed = {
        "fewer": SALAK.classes[:5],
        "order": (dataclasses.replace(second, id=0), dataclasses.replace(first, id=1), *rest),
        "name": (first, dataclasses.replace(second, name="Sawah"), *rest),
    }[change]
    return ClassMap(tuple(changed))


@pytest.mark.parametrize("change", ["fewer", "order", "name"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_models_of_other_classes_are_not_averaged(change: str, place: int) -> None:
    engines = [ConvolutionEngine(name=name) for name in ("left.onnx", "right.onnx")]
    engines.insert(place, ConvolutionEngine(name="odd.onnx", class_map=other_classes(change)))
    with pytest.raises(EngineError, match=r"odd\.onnx.*classes|\.onnx and odd\.onnx.*classes"):
        MeanEngine(engines)


def test_the_same_classes_from_two_files_are_the_same_classes() -> None:
    """An ONNX model's class map names the file that it comes from."""
    engines = [
        ConvolutionEngine(seed=seed, class_map=ClassMap.from_records(SALAK.to_records(), f"model-{seed}.onnx"))
        for seed in range(2)
    ]
    assert MeanEngine(engines).class_map.names == SALAK.names


@pytest.mark.parametrize("place", [0, 1, 2])
def test_models_of_other_tiles_are_not_averaged(place: int) -> None:
    engines = [ConvolutionEngine(name=name) for name in ("left.onnx", "right.onnx")]
    engines.insert(place, ConvolutionEngine(tile=64, name="odd.onnx"))
    with pytest.raises(EngineError, match=r"odd\.onnx") as caught:
        MeanEngine(engines)
    for word in ("48", "64", "--size"):
        assert word in str(caught.value)


@pytest.mark.parametrize("sizes", [(0.05, 0.1), (0.1, 0.05), (0.05, 0.05, 0.1), (None, 0.05, 0.1), (0.05, None, 0.1)])
def test_models_of_other_ground_sampling_distances_are_not_averaged(sizes: tuple[float | None, ...]) -> None:
    with pytest.raises(EngineError, match=r"0\.05 m.*0\.1 m|0\.1 m.*0\.05 m"):
        MeanEngine([ConvolutionEngine(gsd_m=gsd_m) for gsd_m in sizes])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((None, None), None), ((None, 0.05), 0.05), ((0.05, None), 0.05), ((0.05, 0.052), 0.05), ((0.052, 0.05), 0.052)],
)
def test_models_of_about_the_same_ground_sampling_distance_are_averaged(
    sizes: tuple[float | None, ...], expected: float | None
) -> None:
    assert MeanEngine([ConvolutionEngine(gsd_m=gsd_m) for gsd_m in sizes]).gsd_m == expected
