"""``salakseg predict`` as users type it: several orthomosaics, all outputs, models and heads, refusals."""

import csv
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import rasterio
from affine import Affine
from helpers import command, write_scene, write_tiny_onnx
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasters import write_raster

from salakseg.mapping.finish import Outputs
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.network.torch_engine import TorchEngine

TILE = 64


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two orthomosaics, one broken file and a model; not to be changed."""
    folder = tmp_path_factory.mktemp("field")
    (folder / "flights").mkdir()
    write_scene(folder / "flights" / "north.tif", 150, 170)
    write_scene(folder / "flights" / "south.tif", 90, 130)
    write_tiny_onnx(folder / "model.onnx", TILE, gsd_m=0.05)
    return folder


def read(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as dataset:
        values: NDArray[np.generic] = dataset.read()
    return values


def predict(field: Path, *arguments: object, status: int = 0, model: str = "model.onnx") -> str:
    done = command("predict", *arguments, "--model", field / model, "--device", "cpu", status=status)
    return str(done.output)


def test_all_outputs_of_one_orthomosaic(field: Path, tmp_path: Path) -> None:
    told = predict(
        field, field / "flights" / "north.tif", "--out", tmp_path / "map.tif", "--confidence", tmp_path / "conf.tif",
        "--probabilities", tmp_path / "prob.tif", "--probability-type", "float16", "--areas", tmp_path / "areas.csv",
        "--polygons", tmp_path / "map.gpkg", "--preview", tmp_path / "map.png",
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "areas.csv", "conf.tif", "map.gpkg", "map.png", "map.qml", "map.tif", "map.tif.aux.xml", "prob.tif",
    ]  # fmt: skip
    label_HW = read(tmp_path / "map.tif")[0]
    prob_KHW = read(tmp_path / "prob.tif").astype(np.float64)
    confidence_HW = read(tmp_path / "conf.tif")[0]
    valid_HW = label_HW != 255
    np.testing.assert_array_equal(np.isnan(prob_KHW).any(axis=0), ~valid_HW)
    np.testing.assert_allclose(prob_KHW[:, valid_HW].sum(axis=0), 1, atol=2e-3)
    best = prob_KHW[:, valid_HW].max(axis=0)
    assert (np.take_along_axis(prob_KHW[:, valid_HW], label_HW[valid_HW][None].astype(int), 0)[0] >= best - 1e-3).all()
    assert np.abs(confidence_HW[valid_HW] - 100 * best).max() < 0.6
    assert (confidence_HW[~valid_HW] == 255).all()
    with (tmp_path / "areas.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["pixels"]) for row in rows) == valid_HW.sum()
    assert sum(float(row["hectares"]) for row in rows) == pytest.approx(valid_HW.sum() * 0.05**2 / 1e4, abs=1e-5)
    assert "as the model knows it" in told
    with rasterio.open(tmp_path / "map.tif") as dataset:
        tags = dataset.tags()
    assert tags["model"] == "model.onnx"
    assert tags["overlap"] == "12"
    assert "CPUExecutionProvider" in tags["runtime"]


def test_a_folder_of_orthomosaics_goes_on_past_a_broken_one(field: Path, tmp_path: Path) -> None:
    flights = tmp_path / "flights"
    flights.mkdir()
    for name in ("north", "south"):
        (flights / f"{name}.tif").write_bytes((field / "flights" / f"{name}.tif").read_bytes())
    (flights / "broken.tif").write_bytes(b"no raster")
    maps = tmp_path / "maps"
    maps.mkdir()
    told = predict(field, flights, "--out-dir", maps, "--preview", "{name}.png", status=1)
    assert "broken.tif is not a raster" in told
    assert "1 of 3 orthomosaics were not mapped" in told
    names = ["north.png", "north_map.qml", "north_map.tif", "north_map.tif.aux.xml"]
    assert sorted(path.name for path in maps.iterdir()) == [*names, *(name.replace("north", "south") for name in names)]
    assert read(maps / "south_map.tif").shape == (1, 90, 130)

    (flights / "broken.tif").unlink()
    before = (maps / "north_map.tif").stat().st_mtime_ns
    (maps / "south.png").unlink()
    told = predict(field, flights, "--out-dir", maps, "--preview", "{name}.png", "--resume")
    assert "is there already" in told
    assert (maps / "north_map.tif").stat().st_mtime_ns == before
    assert (maps / "south.png").exists()


def test_a_dry_run_says_much_and_writes_nothing(field: Path, tmp_path: Path) -> None:
    told = predict(field, field / "flights" / "north.tif", "--out", tmp_path / "map.tif", "--dry-run")
    assert "170 x 150 pixels" in told
    assert "12 tiles of 64 pixels that share 12" in told
    assert not list(tmp_path.iterdir())


def test_several_models_are_averaged_and_turned(field: Path, tmp_path: Path) -> None:
    source = field / "flights" / "north.tif"
    predict(field, source, "--out", tmp_path / "one.tif", "--probabilities", tmp_path / "one_prob.tif")
    both = [
        "--out",
        tmp_path / "two.tif",
        "--probabilities",
        tmp_path / "two_prob.tif",
        "--model",
        field / "model.onnx",
    ]
    told = predict(field, source, *both, "--tta")
    assert "model.onnx + model.onnx" in told
    # The same model twice, and one that is the same in every direction but for the border of a tile
    near = np.abs(read(tmp_path / "one_prob.tif").astype(int) - read(tmp_path / "two_prob.tif").astype(int))
    assert np.percentile(near, 99) <= 1
    with rasterio.open(tmp_path / "two.tif") as dataset:
        assert dataset.tags()["tta"] == "eight flips and turns"


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "heads"), [("student", "1"), ("ema", "vote")])
def test_heads_and_weights_of_a_checkpoint(
    tiny_checkpoint: Path, field: Path, tmp_path: Path, weights: Literal["ema", "student"], heads: str
) -> None:
    copy = tmp_path / "best.pt"
    copy.write_bytes(tiny_checkpoint.read_bytes())
    source = field / "flights" / "south.tif"
    probabilities = {}
    for name, engine in {
        "torch": TorchEngine(copy, "cpu", TILE, weights, heads),
        "usual": TorchEngine(copy, "cpu", TILE),
    }.items():
        outputs = Outputs(tmp_path / f"{name}.tif", probabilities=tmp_path / f"{name}_prob.tif")
        predict_map(source, outputs, engine, MapSettings(gsd="off"))
        probabilities[name] = read(tmp_path / f"{name}_prob.tif").astype(int)
    flags = ["--heads", heads, "--weights", weights, "--tile", TILE, "--gsd", "off", "--device", "cpu"]
    out = tmp_path / "map.tif"
    command("predict", source, "--model", copy, "--out", out, "--probabilities", tmp_path / "prob.tif", *flags)
    found = read(tmp_path / "prob.tif").astype(int)
    assert (found == probabilities["torch"]).mean() > 0.99
    assert (found == probabilities["usual"]).mean() < 0.9
    with rasterio.open(out) as dataset:
        assert dataset.tags()["model"] == "best.pt"


@pytest.mark.parametrize("heads", ["0", "4", "median"])
def test_heads_that_a_checkpoint_does_not_have_are_refused(
    tiny_checkpoint: Path, field: Path, tmp_path: Path, heads: str
) -> None:
    flags = ["--out", tmp_path / "map.tif", "--model", tiny_checkpoint, "--heads", heads, "--device", "cpu"]
    told = command("predict", field / "flights" / "south.tif", *flags, status=1).output
    assert "nor one of the 3 heads, 1 to 3" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--heads", "vote"], "need the checkpoint"),
        (["--tile", 128], "export it with --size 128"),
        (["--overlap", 64], "choose 0 to 63"),
        (["--max-memory", 10], "is too little for model.onnx"),
    ],
)
def test_flags_that_do_not_fit_are_refused(field: Path, tmp_path: Path, flags: list[object], words: str) -> None:
    told = predict(field, field / "flights" / "north.tif", "--out", tmp_path / "map.tif", *flags, status=1)
    assert words in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "value"), [("--gsd", "wide"), ("--gsd", "0"), ("--bands", "1,2"), ("--scale", "9,3"), ("--scale", "dark")]
)
def test_values_that_cannot_be_read_are_wrong_usage(field: Path, tmp_path: Path, flag: str, value: str) -> None:
    told = predict(field, field / "flights" / "north.tif", "--out", tmp_path / "map.tif", flag, value, status=2)
    assert f"{flag} {value}" in " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [["train"], ["report", "ckpt.pt"]])
def test_only_maps_can_be_asked_of_tensorrt(arguments: list[str]) -> None:
    assert "tensorrt" in command(*arguments, "--device", "tensorrt", status=2).output


def test_names_that_clash_are_refused(field: Path, tmp_path: Path) -> None:
    source = field / "flights" / "north.tif"
    other = tmp_path / "north.tif"
    other.write_bytes(source.read_bytes())
    assert "written twice" in predict(field, source, other, "--out-dir", tmp_path, status=1)
    assert "written twice" in predict(
        field, source, "--out", tmp_path / "m.tif", "--confidence", tmp_path / "m.tif", status=1
    )
    told = predict(field, field / "flights", "--out-dir", tmp_path, "--areas", "areas.csv", status=1)
    assert "put {name} into it" in told
    assert "--out-dir" in predict(field, field / "flights", "--out", tmp_path / "m.tif", status=1)
    assert "--out map.tif" in predict(field, source, status=1)
    assert "must end in .gpkg" in predict(
        field, source, "--out", tmp_path / "m.tif", "--polygons", tmp_path / "m.shp", status=1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["north.tif"]


def test_a_gpu_that_cannot_be_used_is_told(field: Path, tmp_path: Path) -> None:
    from salakseg.network.opening import EngineSpec, ModelFile, open_engine, slower_than_wanted

    wanted = EngineSpec((ModelFile(field / "model.onnx", "model.onnx"),), device="cuda")
    engine = open_engine(EngineSpec(wanted.models, device="cpu"))
    told = slower_than_wanted(wanted, engine)
    assert told is not None
    assert "CPUExecutionProvider" in told
    assert "--device cpu" in told
    assert slower_than_wanted(EngineSpec(wanted.models, device="cpu"), engine) is None
    on_the_gpu = SimpleNamespace(runs_on="ONNX Runtime 1.22, CUDAExecutionProvider; torch 2.11, NVIDIA H200")
    assert slower_than_wanted(wanted, on_the_gpu) is None
    one_falls_back = SimpleNamespace(runs_on="torch 2.11, NVIDIA H200; ONNX Runtime 1.22, CPUExecutionProvider")
    assert slower_than_wanted(wanted, one_falls_back) is not None


def test_another_flight_of_the_same_name_is_not_taken_for_mapped(field: Path, tmp_path: Path) -> None:
    """Open Drone Map calls every result the same."""
    flight = tmp_path / "odm_orthophoto.tif"
    write_scene(flight, 150, 170)
    wanted = ("--out", tmp_path / "map.tif", "--probabilities", tmp_path / "prob.tif")
    predict(field, flight, *wanted)
    assert "is there already" in predict(field, flight, *wanted, "--resume")
    told = predict(field, flight, *wanted, "--resume", "--probability-type", "float16", status=1)
    assert "prob.tif exists and was made from something else (type of values)" in told
    write_scene(flight, 90, 130)
    told = predict(field, flight, *wanted, "--resume", "--areas", tmp_path / "areas.csv", status=1)
    assert "exists and was made from something else (size, orthomosaic changed since)" in told
    assert not (tmp_path / "areas.csv").exists()
    write_scene(flight, 150, 170)
    with rasterio.open(flight, "r+") as dataset:  # a mile off, on a grid of the same size
        dataset.transform = Affine.translation(1609, 0) @ dataset.transform
    os.utime(flight, ns=(0, 0))  # as if it had been copied with its time
    assert "made from something else (place)" in predict(field, flight, *wanted, "--resume", status=1)


def test_what_is_made_of_a_map_follows_its_settings_though_the_map_is_there(field: Path, tmp_path: Path) -> None:
    flight = tmp_path / "o.tif"
    write_scene(flight, 150, 170)
    wanted = ("--out", tmp_path / "map.tif", "--polygons", tmp_path / "map.gpkg")
    predict(field, flight, *wanted, "--min-area", 0)
    assert "polygons: " not in predict(field, flight, *wanted, "--min-area", 0, "--resume")
    assert "polygons: " in predict(field, flight, *wanted, "--min-area", 3, "--resume")
    told = predict(field, flight, *wanted, "--scale", "percentile", "--resume", status=1)
    assert "made from something else (scale_found_by)" in told


def test_a_guess_at_the_bands_is_told(field: Path, tmp_path: Path) -> None:
    rgb_CHW = np.random.default_rng(0).integers(0, 256, (5, 70, 70), dtype=np.uint8)
    source = write_raster(tmp_path / "o.tif", rgb_CHW, colorinterp=[ColorInterp.gray, *[ColorInterp.undefined] * 4])
    told = predict(field, source, "--out", tmp_path / "map.tif")
    assert "does not say which of its 5 bands are red, green and blue; bands 1,2,3 are taken" in told
    told = predict(field, source, "--out", tmp_path / "map.tif", "--overwrite", "--bands", "3,2,1")
    assert "does not say which" not in told
