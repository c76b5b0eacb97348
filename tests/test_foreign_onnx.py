"""``salakseg predict`` with models of others: what it has to be told, and what it says if it is told wrong."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
from exports import TILE, edit
from helpers import command, write_scene, write_tiny_onnx
from rasters import read_map

from salakseg.classes import SALAK
from salakseg.errors import EngineError
from salakseg.export.bundle import class_mapping_csv
from salakseg.network.metadata import Told
from salakseg.network.onnx_engine import OnnxEngine

NUMBERS = ["--input-scale", 255, "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
TOLD = Told(SALAK, 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An orthomosaic, a model of ours, the same of others, and its classes; not to be changed."""
    folder = tmp_path_factory.mktemp("field")
    write_scene(folder / "field.tif", 100, 150)
    write_tiny_onnx(folder / "own.onnx", TILE)
    edit(folder / "own.onnx", folder / "foreign.onnx", metadata={})
    edit(folder / "foreign.onnx", folder / "logits.onnx", softmax=False)
    (folder / "classes.csv").write_text(class_mapping_csv(SALAK), encoding="utf-8")
    command(
        "predict", folder / "field.tif", "--model", folder / "own.onnx", "--out", folder / "own.tif", "--device", "cpu"
    )
    return folder


def predict(field: Path, out: Path, model: Path, *flags: object, status: int = 0) -> str:
    arguments = (field / "field.tif", "--model", model, "--out", out, "--device", "cpu", *flags)
    return " ".join(str(command("predict", *arguments, status=status).output).split())


def flags_of(field: Path) -> list[object]:
    return ["--classes", field / "classes.csv", *NUMBERS]


def test_a_model_that_is_told_of_makes_the_same_map(field: Path, tmp_path: Path) -> None:
    told = predict(field, tmp_path / "map.tif", field / "foreign.onnx", *flags_of(field))
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), read_map(field / "own.tif"))
    assert "nobody says at how many metres a pixel foreign.onnx was trained" in told and "--gsd M tells it" in told
    with rasterio.open(tmp_path / "map.tif") as dataset:
        tags = dataset.tags()
    assert tags["model_input"] == "scale,mean,std 255,0.5,0.5,0.5,0.25,0.25,0.25"
    assert tags["model_output"] == "prob"


def test_a_model_that_takes_0_to_255(field: Path, tmp_path: Path) -> None:
    flags = ["--input-scale", 1, "--mean", "127.5,127.5,127.5", "--std", "63.75,63.75,63.75", "--gsd", "0.05"]
    told = predict(field, tmp_path / "map.tif", field / "foreign.onnx", "--classes", field / "classes.csv", *flags)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), read_map(field / "own.tif"))
    assert "attention" not in told


def test_logits(field: Path, tmp_path: Path) -> None:
    told = predict(field, tmp_path / "map.tif", field / "logits.onnx", *flags_of(field), status=1)
    assert "logits.onnx gives values that are no probabilities" in told
    assert "if they are logits, add --logits" in told
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tif"]
    predict(field, tmp_path / "map.tif", field / "logits.onnx", *flags_of(field), "--logits", "--overwrite")
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), read_map(field / "own.tif"))
    told = predict(field, tmp_path / "no.tif", field / "foreign.onnx", *flags_of(field), "--logits", status=1)
    assert "foreign.onnx gives probabilities already; leave --logits out" in told


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ([], "--classes class_mapping.csv, --input-scale 255 (or 1), --mean R,G,B, --std R,G,B"),
        (["--mean", "0,0,0"], "--classes class_mapping.csv, --input-scale 255 (or 1), --std R,G,B"),
        (NUMBERS, "--classes class_mapping.csv"),
        (["--logits", *NUMBERS[2:]], "--classes class_mapping.csv, --input-scale 255 (or 1)"),
    ],
)
def test_what_is_missing_is_listed(field: Path, tmp_path: Path, flags: list[object], missing: str) -> None:
    told = predict(field, tmp_path / "map.tif", field / "foreign.onnx", *flags, status=1)
    also = "also tell" if flags else "tell"
    assert f"{also} {missing}, or export it with `salakseg export`." in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "value"), [("--mean", "1,2"), ("--std", "0,1,1"), ("--std", "a,b,c"), ("--input-scale", 0)]
)
def test_numbers_that_cannot_be_are_wrong_usage(field: Path, tmp_path: Path, flag: str, value: object) -> None:
    assert flag in predict(field, tmp_path / "map.tif", field / "foreign.onnx", flag, value, status=2)


def test_flags_are_not_for_a_model_that_says_it_itself(field: Path, tmp_path: Path) -> None:
    told = predict(field, tmp_path / "map.tif", field / "own.onnx", *NUMBERS, status=1)
    assert "own.onnx says itself how it is used; leave --classes, --input-scale, --mean, --std and --logits out" in told
    both = predict(field, tmp_path / "map.tif", field / "own.onnx", "--model", field / "foreign.onnx", *flags_of(field))
    assert "own.onnx + foreign.onnx" in both
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), read_map(field / "own.tif"))


def test_other_classes_than_the_output_has(field: Path, tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("class_name\nground\ntree\n", encoding="utf-8")
    flags = ["--classes", tmp_path / "two.csv", *NUMBERS]
    told = predict(field, tmp_path / "map.tif", field / "foreign.onnx", *flags, status=1)
    assert "gives an output of shape" in told
    assert "for its 2 classes; name the class mapping that it was trained with" in told


def test_a_file_without_a_size_needs_a_tile(field: Path, tmp_path: Path) -> None:
    free = edit(field / "foreign.onnx", tmp_path / "free.onnx", sizes={2: "height", 3: "width"})
    with pytest.raises(EngineError, match="takes tiles of any size and names none; tell --tile"):
        OnnxEngine(free, told=TOLD)
    assert OnnxEngine(free, told=TOLD, tile=40).predict(np.zeros((1, 3, 40, 40), np.uint8)).shape == (1, 7, 40, 40)


@pytest.mark.parametrize("fixed", [1, 2])
def test_a_file_with_a_fixed_batch(field: Path, tmp_path: Path, fixed: int) -> None:
    path = edit(field / "foreign.onnx", tmp_path / "fixed.onnx", sizes={0: fixed})
    image = np.random.default_rng(1).integers(0, 256, (3, 3, TILE, TILE), dtype=np.uint8)
    expected = OnnxEngine(field / "own.onnx").predict(image)
    np.testing.assert_array_equal(OnnxEngine(path, told=TOLD).predict(image), expected)


@pytest.mark.parametrize(
    ("sizes", "words"), [({3: 32}, "expected one of"), ({1: 4}, "expected one of"), ({}, "does not exist")]
)
def test_files_that_cannot_be_used(field: Path, tmp_path: Path, sizes: dict[int, int], words: str) -> None:
    path = tmp_path / "other.onnx"
    if sizes:
        edit(field / "foreign.onnx", path, sizes=sizes)
    with pytest.raises(EngineError, match=words) as error:
        OnnxEngine(path, told=TOLD)
    assert "other.onnx" in str(error.value)


def halve_and_double(path: Path, out: Path) -> Path:
    """The model with its first map added to itself at half the size and back, which an odd side does not survive."""
    model = onnx.load(edit(path, out, sizes={2: "height", 3: "width"}))
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    model.graph.initializer.append(scales)
    node = onnx.helper.make_node
    model.graph.node[1].input[0] = "sum"
    for place, one in enumerate(
        (
            node("AveragePool", ["brightness"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Resize", ["half", "", "scales"], ["double"]),
            node("Add", ["brightness", "double"], ["sum"]),
        ),
        start=1,
    ):
        model.graph.node.insert(place, one)
    onnx.save(model, out)
    return out


def test_a_model_that_fails_on_its_tiles_is_told(field: Path, tmp_path: Path) -> None:
    path = halve_and_double(field / "foreign.onnx", tmp_path / "halving.onnx")
    assert OnnxEngine(path, told=TOLD, tile=40).predict(np.zeros((1, 3, 40, 40), np.uint8)).shape == (1, 7, 40, 40)
    told = predict(field, tmp_path / "map.tif", path, *flags_of(field), "--tile", 41, status=1)
    assert "halving.onnx fails on 1 tiles of 41 pixels (" in told
    assert "try another --tile" in told
    assert not (tmp_path / "map.tif").exists()
