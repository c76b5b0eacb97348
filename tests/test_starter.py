"""The model that comes with the package."""

from pathlib import Path

import onnx
import pytest
import torch
from helpers import TINY, command, write_scene

from salakseg.network.checkpoint import load_checkpoint
from salakseg.starter import NAME, is_starter, starter_model


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_it_is_small_and_says_what_it_is_not_for() -> None:
    files = {path.name: path for path in starter_model().iterdir()}
    assert {"model.onnx", "weights.safetensors", "config.json", "class_mapping.csv", "README.md"} == files.keys()
    assert files["model.onnx"].stat().st_size <= 9_000_000
    assert files["weights.safetensors"].stat().st_size <= 9_000_000
    card = one_line(files["README.md"].read_text(encoding="utf-8"))
    assert "never seen a salak palm" in card
    assert "CC0" in card
    assert load_checkpoint(starter_model()).class_map.names[1:] == ("Water", "Building", "Road", "Vegetation", "Land")
    onnx.checker.check_model(onnx.load(files["model.onnx"]))


def test_a_map_before_anybody_has_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SALAKSEG_RUNS", raising=False)
    write_scene(tmp_path / "farm.tif", 120, 150)
    told = one_line(command("predict", "farm.tif", "--out", "map.tif", "--device", "cpu", cwd=tmp_path).output)
    assert "no run yet, so this is the starter model" in told
    assert "no salak palm" in told
    assert "starter/model.onnx" in told
    assert (tmp_path / "map.tif").is_file()


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_starter(Path(NAME))
    Path(NAME).mkdir()
    assert not is_starter(Path(NAME))


def test_training_starts_from_it(plantation: Path, tmp_path: Path) -> None:
    flags = TINY[4:]  # without the settings of the network
    assert not any(flag.startswith("network.") for flag in flags)
    run = tmp_path / "run"
    words = ["--phase", 1, "--data-root", plantation, "--checkpoint-dir", run, "--device", "cpu", "--num-steps", 4]
    told = one_line(command("train", "--init", NAME, *words, *flags).output)
    assert "does not know __background__, Badan Air, Bangunan" in told
    trained, starter = load_checkpoint(run / "checkpoints" / "last.pt"), load_checkpoint(starter_model())
    assert trained.network.encoder == starter.network.encoder == "timm-tf_efficientnet_lite0"
    name = next(key for key in starter.ema if key.endswith("conv_stem.weight"))
    # Four steps at the rate of a warm-up move it by next to nothing
    torch.testing.assert_close(trained.ema[name], starter.ema[name], atol=5e-3, rtol=0)
