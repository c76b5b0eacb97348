import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import command
from rasterio.transform import from_origin
from typer.testing import CliRunner

from salakseg.cli.main import app
from salakseg.errors import ProjectError
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.project import load_project

runner = CliRunner()


def modules_after(code: str, cwd: Path) -> set[str]:
    """Names of the modules that a fresh interpreter holds after some code."""
    script = f"import sys, json\n{code}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=cwd)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_names_every_command_without_loading_torch(tmp_path: Path) -> None:
    done = runner.invoke(app, ["--help"])
    assert done.exit_code == 0
    for name in ("prepare", "train", "recipes", "report", "sample", "accuracy", "export", "predict", "suggest", "demo"):
        assert name in done.output
    loaded = modules_after(
        "from typer.testing import CliRunner\nfrom salakseg.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        tmp_path,
    )
    assert not loaded & {"torch", "rasterio", "matplotlib", "onnxruntime", "numpy", "pydantic", "geopandas"}


def test_a_map_from_an_onnx_file_needs_no_torch(onnx_model: Path, small_orthomosaic: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(small_orthomosaic), "--out", str(tmp_path / "map.tif"), "--model", str(onnx_model)]
    loaded = modules_after(
        "from typer.testing import CliRunner\nfrom salakseg.cli.main import app\n"
        f"done = CliRunner().invoke(app, {arguments!r})\nassert done.exit_code == 0, done.output",
        tmp_path,
    )
    assert (tmp_path / "map.tif").is_file()
    assert "onnxruntime" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "timm", "kornia", "lightning_fabric")}


@pytest.fixture(scope="module")
def onnx_model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    done = runner.invoke(app, ["export", str(tiny_checkpoint), "--out", str(path), "--size", "64"])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def small_orthomosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imagery") / "orthomosaic.tif"
    pixels = np.random.default_rng(0).integers(1, 255, (3, 150, 170), dtype=np.uint8)
    profile = {"crs": "EPSG:32749", "transform": from_origin(430000, 9160000, 0.05, 0.05)}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=150, width=170, dtype="uint8", **profile) as file:
        file.write(pixels)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--phase", "9"],
        ["report", "--splitt", "val"],
        ["predict"],
        ["predict", "a.tif", "--out"],
        ["predict", "a.tif", "--out", "map.tif", "--windwo", "hann"],
        ["fly"],
        ["--tarin"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


def test_an_error_is_one_line_on_stderr_and_status_1(tmp_path: Path) -> None:
    done = runner.invoke(app, ["report", str(tmp_path / "gone.pt")])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "gone.pt does not exist" in done.stderr.replace("\n", " ").replace("  ", " ") or "gone.pt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", [0, 2])
def test_verbose_shows_the_traceback_wherever_it_stands(tmp_path: Path, place: int) -> None:
    arguments = ["report", str(tmp_path / "gone.pt")]
    arguments.insert(place, "--verbose")
    done = runner.invoke(app, arguments)
    assert done.exit_code == 1
    assert "Traceback" in done.stderr


def test_recipes_are_listed_and_shown() -> None:
    assert "phase1" in runner.invoke(app, ["recipes"]).stdout
    shown = runner.invoke(app, ["recipes", "show", "phase2"]).stdout
    assert "iterations = 75000" in shown
    assert runner.invoke(app, ["--version"]).stdout.startswith("salakseg ")


# ---- report


def test_report_measures_and_writes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = runner.invoke(app, ["report", str(tiny_checkpoint), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    for word in ("Badan Air", "Snake Fruit", "mIoU without background", "mIoU with background", "test split", "est."):
        assert word in done.stdout, word
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert record["split"] == "test"
    assert record["stored"] is False
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names >= {"report.json", "report.png", "confusion.csv", "per_class.csv"}


def test_the_measured_validation_is_the_stored_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = runner.invoke(app, ["report", str(tiny_checkpoint), "--out", str(out), "--split", "val"])
    assert done.exit_code == 0, done.output
    record = json.loads((out / "report.json").read_text())
    assert record["split"] == "val"
    stored = load_checkpoint(tiny_checkpoint)
    assert record["confusion"] == stored.evaluation["matrix"]
    assert record["patches"] == stored.evaluation["patches"]


def test_without_the_data_the_stored_figures_are_shown_and_said_to_be(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.data_root = str(tmp_path / "moved away")
    path = tmp_path / "ckpt.pt"
    save_checkpoint(checkpoint, path)
    done = runner.invoke(app, ["report", str(path)])
    assert done.exit_code == 0, done.output
    assert "stored at training time" in " ".join(done.stdout.split())
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert record["stored"] is True
    assert record["confusion"] == checkpoint.evaluation["matrix"]
    refused = runner.invoke(app, ["report", str(path), "--split", "test"])
    assert refused.exit_code == 1
    assert "--data-root" in refused.stderr


def test_a_report_with_other_classes_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("name\nwater\nland\n")
    done = runner.invoke(app, ["report", str(tiny_checkpoint), "--class-mapping", str(tmp_path / "other.csv")])
    assert done.exit_code == 1
    assert "class mapping that it was trained with" in " ".join(done.stderr.split())


# ---- predict


def test_predict_takes_the_newest_best_and_says_which(tiny_run: Path, small_orthomosaic: Path, tmp_path: Path) -> None:
    (tmp_path / "salakseg.toml").write_text('runs = "runs"\n')
    for name, age in (("old", 1000), ("new", 0)):
        best = tmp_path / "runs" / name / "checkpoints" / "best.pt"
        best.parent.mkdir(parents=True)
        best.write_bytes((tiny_run / "checkpoints" / "best.pt").read_bytes())
        os.utime(best, (best.stat().st_mtime - age,) * 2)
    done = command("predict", small_orthomosaic, "--out", "map.tif", "--preview", "map.png", cwd=tmp_path)
    said = done.stderr.replace("\n", "")
    assert str(Path("runs/new/checkpoints/best.pt")) in said
    with rasterio.open(small_orthomosaic) as source, rasterio.open(tmp_path / "map.tif") as land_cover:
        assert (land_cover.crs, land_cover.transform, land_cover.shape) == (source.crs, source.transform, source.shape)
        assert land_cover.nodata == 255
        assert set(np.unique(land_cover.read(1))) <= set(range(7))
    assert (tmp_path / "map.png").stat().st_size > 1000
    refused = command("predict", small_orthomosaic, "--out", "map.tif", cwd=tmp_path, status=1)
    assert "map.tif" in refused.stderr


def test_the_map_is_what_the_network_says(tiny_checkpoint: Path, onnx_model: Path, tmp_path: Path) -> None:
    """A raster of one tile: the command's map against torch on the same pixels, without any of our tiling."""
    import torch

    from salakseg.network.model import normalise

    pixels = np.random.default_rng(1).integers(1, 255, (3, 64, 64), dtype=np.uint8)
    path = tmp_path / "one_tile.tif"
    profile = {"crs": "EPSG:32749", "transform": from_origin(430000, 9160000, 0.05, 0.05)}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8", **profile) as file:
        file.write(pixels)
    done = runner.invoke(app, ["predict", str(path), "--out", str(tmp_path / "m.tif"), "--model", str(onnx_model)])
    assert done.exit_code == 0, done.output
    with torch.inference_mode():
        scaled = normalise(torch.from_numpy(pixels[None]).float() / 255)
        expected = load_checkpoint(tiny_checkpoint).build()(scaled).mean_BKHW.argmax(1)[0].numpy()
    with rasterio.open(tmp_path / "m.tif") as land_cover:
        assert (land_cover.read(1) == expected).mean() > 0.999


def test_what_is_wrong_with_the_files_is_told_before_a_model_is_loaded(small_orthomosaic: Path, tmp_path: Path) -> None:
    for name in ("there.tif", "there.png"):
        (tmp_path / name).write_text("mine")
    for arguments, message in (
        (["gone.tif", "--out", "map.tif"], "gone.tif does not exist"),
        ([small_orthomosaic], "map goes with --out map.tif"),
        ([small_orthomosaic, "--out", "map.png"], "must end in .tif"),
        ([small_orthomosaic, "--out", "no/map.tif"], "no/map.tif cannot be written: the folder no does not exist"),
        (
            [small_orthomosaic, "--out", "map.tif", "--preview", "no/map.png"],
            "no/map.png cannot be written: the folder no does not exist",
        ),
        ([small_orthomosaic, "--out", small_orthomosaic], "is the orthomosaic itself"),
        ([small_orthomosaic, "--out", small_orthomosaic, "--overwrite"], "is the orthomosaic itself"),
        ([small_orthomosaic, "--out", "there.tif"], "there.tif exists; name another file or replace it with --over"),
        ([small_orthomosaic, "--out", "map.tif", "--preview", "there.png"], "there.png exists"),
    ):
        done = command("predict", *arguments, "--model", "never_opened.onnx", cwd=tmp_path, status=1)
        assert message in " ".join(done.stderr.replace("\n", " ").split())


def test_a_model_of_another_kind_is_refused(small_orthomosaic: Path, tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_text("")
    for model, message in (("model.h5", "neither a checkpoint"), ("gone.onnx", "does not exist")):
        command = [
            "predict",
            str(small_orthomosaic),
            "--out",
            str(tmp_path / "m.tif"),
            "--model",
            str(tmp_path / model),
        ]
        done = runner.invoke(app, command)
        assert done.exit_code == 1
        assert message in " ".join(done.stderr.split())


# ---- the project file


def test_the_project_file_is_found_from_below_and_its_paths_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "salakseg.toml").write_text('data_root = "patches"\nclass_mapping = "c.csv"\n[recipe]\nseed = 3\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    project = load_project(below)
    assert project.folder == tmp_path
    assert project.data_root == tmp_path / "patches"
    assert project.class_mapping == tmp_path / "c.csv"
    assert project.runs_folder == tmp_path / "runs"
    assert project.recipe == {"seed": 3}


@pytest.mark.parametrize(("text", "message"), [("data-root = 1", "data-root"), ("data_root = ", "no valid TOML")])
def test_a_bad_project_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "salakseg.toml").write_text(text)
    with pytest.raises(ProjectError, match=message) as error:
        load_project(tmp_path)
    assert "salakseg.toml" in str(error.value)


def test_without_runs_or_patches_the_commands_say_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, ["report"])
    assert done.exit_code == 1
    assert "train first" in done.stderr
    done = runner.invoke(app, ["train"])
    assert done.exit_code == 1
    assert "--data-root" in done.stderr


def test_flags_beat_environment_beats_file(plantation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source names a folder that is not there; the message tells which one was looked at."""
    (tmp_path / "salakseg.toml").write_text('data_root = "from_file"\n')
    monkeypatch.chdir(tmp_path)

    def complained_about(*arguments: str) -> str:
        return " ".join(runner.invoke(app, ["train", *arguments]).stderr.replace("\n", "").split())

    assert "from_file is no folder" in complained_about()
    monkeypatch.setenv("SALAKSEG_DATA_ROOT", "from_environment")
    assert "from_environment is no folder" in complained_about()
    assert "from_flag is no folder" in complained_about("--data-root", "from_flag")
