import json
from pathlib import Path

import pytest
from exports import TILE, edit, write_described
from helpers import command, write_tiny_onnx

from salakseg.classes import SALAK
from salakseg.network.checkpoint import load_checkpoint


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return write_described(tmp_path / "model.onnx", load_checkpoint(tiny_checkpoint))


def shown(*arguments: object, status: int = 0) -> str:
    return str(command("info", *arguments, status=status).output)


def test_an_exported_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(model)
    for words in ("ONNX opset 18, IR 9, 3 nodes", "probabilities: float32 [any, 7, 64, 64]", "0.05 m on the ground",
                  "recipe phase2, iteration 8", "mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225", "mIoU",
                  "licence        unspecified", "5 Snake Fruit, IoU"):  # fmt: skip
        assert words in text, words
    head, *rest = text.splitlines()
    assert head.startswith(str(model))
    assert max(len(line) for line in rest) <= 80


def test_as_json(model: Path) -> None:
    about = json.loads(command("info", model, "--json").stdout)
    assert about["inputs"] == [{"name": "image", "dtype": "float32", "shape": [None, 3, TILE, TILE]}]
    assert about["salakseg"]["classes"] == SALAK.to_records()
    assert about["other_metadata"]["tile_size"] == TILE
    assert "predict_needs" not in about


def test_a_checkpoint(tiny_checkpoint: Path) -> None:
    about = json.loads(command("info", tiny_checkpoint, "--json").stdout)
    checkpoint = load_checkpoint(tiny_checkpoint)
    network = checkpoint.build()
    assert about["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert about["salakseg"]["default_tile"] == checkpoint.default_tile
    assert not {"tile", "size_multiple", "precision", "outputs", "licence"} & about["salakseg"].keys()
    assert "iteration 8" in shown(tiny_checkpoint)


def test_a_model_of_others(tmp_path: Path) -> None:
    write_tiny_onnx(tmp_path / "own.onnx", TILE)
    path = edit(tmp_path / "own.onnx", tmp_path / "foreign.onnx", metadata={"author": "nobody"})
    text = " ".join(shown(path).split())
    assert "predict has to be told: --classes class_mapping.csv, --input-scale 255 (or 1), --mean R,G,B, --std" in text
    assert "other keys author" in text
    free = edit(path, tmp_path / "free.onnx", sizes={2: "h", 3: "w"})
    assert json.loads(command("info", free, "--json").stdout)["predict_needs"][-1] == "--tile PIXELS"


def test_names_are_no_markup(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.classes[1]["name"] = "[red]water[/red]"
    path = write_described(tmp_path / "[bold]model.onnx", checkpoint, licence="[link]none[/link]")
    text = shown(path)
    assert "[red]water[/red]" in text
    assert "[link]none[/link]" in text
    assert "[bold]model.onnx" in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.onnx", None, "does not exist"),
        ("text.onnx", b"no model", "is no ONNX model"),
        ("empty.onnx", b"", "is no ONNX model"),
        ("map.tif", b"", "is neither a checkpoint"),
        ("text.pt", b"no checkpoint", "is no checkpoint of salakseg"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    text = " ".join(shown(tmp_path / name, status=1).split())
    assert words in text
    assert name in text
