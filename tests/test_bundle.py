import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exports import TILE, edit, settings
from helpers import command, write_scene
from rasters import read_map

import salakseg.export.bundle as bundle_module
from salakseg.classes import SALAK, ClassMap
from salakseg.errors import CheckpointError, EngineError, ExportError
from salakseg.export.bundle import write_bundle
from salakseg.export.onnx import export_onnx
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.digest import sha256_of
from salakseg.network.variant import Variant


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real export; not to be changed."""
    return export_onnx(tiny_checkpoint, tmp_path_factory.mktemp("model") / "any.onnx", settings(), quick=True).path


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_bundle(tiny_checkpoint, model, tmp_path_factory.mktemp("releases") / "salak-1")


def test_what_is_in_it(bundle: Path) -> None:
    assert [path.name for path in bundle.parent.iterdir()] == ["salak-1"]
    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md", "class_mapping.csv", "config.json", "inference.py", "model.onnx", "model.stac.json",
        "weights.safetensors",
    ]  # fmt: skip
    assert len({path.stat().st_mode for path in bundle.iterdir()}) == 1, "all may be read by the same people"
    assert ClassMap.from_csv(bundle / "class_mapping.csv").classes == SALAK.classes
    assert (bundle / "README.md").read_text(encoding="utf-8").startswith("# salak-1\n")
    assert not [path for path in bundle.iterdir() if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04")]


def test_the_checkpoint_comes_back(bundle: Path, tiny_checkpoint: Path) -> None:
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(bundle)
    for name in ("student", "ema"):
        one, other = getattr(before, name), getattr(after, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one)
    for name in ("network", "classes", "mean", "std", "patch_size", "recipe_name", "gsd_m", "split", "iteration",
                 "evaluation", "variant", "versions", "created"):  # fmt: skip
        assert getattr(after, name) == getattr(before, name), name
    assert json.dumps(after.recipe) == json.dumps(before.recipe)
    assert (after.training, after.data_root) == ({}, "")
    assert before.data_root not in (bundle / "config.json").read_text(encoding="utf-8").split('"recipe"')[0]
    image = torch.rand(1, 3, TILE, TILE)
    with torch.inference_mode():
        assert torch.equal(before.build()(image).mean_BKHW, after.build()(image).mean_BKHW)


def test_a_lean_one_holds_the_average_in_half_precision(
    bundle: Path, tiny_checkpoint: Path, model: Path, tmp_path: Path
) -> None:
    lean = write_bundle(tiny_checkpoint, model, tmp_path / "lean", lean=True)
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (lean, bundle)]
    assert sizes[0] < 0.3 * sizes[1]
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(lean)
    assert after.ema.keys() == before.ema.keys()
    for key, value in before.ema.items():
        assert after.ema[key].dtype == value.dtype
        torch.testing.assert_close(after.ema[key], value, rtol=1e-3, atol=1e-4)
    assert not after.student
    with pytest.raises(EngineError, match="holds the moving average alone; leave --weights student out"):
        after.choose("student")
    write_scene(tmp_path / "field.tif", 60, 60)
    asked = ["--model", lean, "--weights", "student", "--device", "cpu"]
    done = command("predict", tmp_path / "field.tif", "--out", tmp_path / "map.tif", *asked, status=1)
    assert "moving average alone" in " ".join(done.output.split())


def test_a_report_on_a_lean_one_has_the_average_s_rows_alone(
    tiny_checkpoint: Path, model: Path, plantation: Path, tmp_path: Path
) -> None:
    lean = write_bundle(tiny_checkpoint, model, tmp_path / "lean", lean=True)
    command("report", lean, "--data-root", plantation, "--out", tmp_path / "report", "--tta")
    record = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert {variant["variant"]["weights"] for variant in record["findings"]["variants"]} == {"ema"}
    assert len(record["findings"]["variants"]) == 14


def test_what_would_not_open_is_not_bundled(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for flags, words in (
        (["--outputs", "argmax"], "--outputs argmax is for --out"),
        (["--lean", "--weights", "student"], "--lean keeps the moving average alone"),
    ):
        done = command("export", tiny_checkpoint, "--bundle", tmp_path / "release", *flags, status=2)
        assert words in " ".join(done.output.replace("│", " ").split())
    student = export_onnx(tiny_checkpoint, tmp_path / "student.onnx", settings(variant=Variant("student")), quick=True)
    with pytest.raises(ExportError, match="A lean bundle holds the moving average alone"):
        write_bundle(tiny_checkpoint, student.path, tmp_path / "release", lean=True)
    assert not (tmp_path / "release").exists()


def test_predict_and_info_take_the_folder(bundle: Path, model: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "field.tif", 90, 120)
    for name, path in (("file", model), ("folder", bundle)):
        flags = ["--model", path, "--out", tmp_path / f"{name}.tif", "--device", "cpu"]
        told = command("predict", tmp_path / "field.tif", *flags).output
    assert "salak-1/model.onnx" in told
    np.testing.assert_array_equal(read_map(tmp_path / "folder.tif"), read_map(tmp_path / "file.tif"))
    about = json.loads(command("info", bundle, "--json").stdout)
    assert about["kind"] == "bundle"
    assert "weights.safetensors" in about["files"]
    assert about["salakseg"]["tile"] == TILE


def test_other_weights_and_heads_come_from_the_folder(bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "field.tif", 90, 120)
    for name, path in (("file", tiny_checkpoint), ("folder", bundle)):
        flags = ["--weights", "student", "--heads", "2", "--tile", TILE, "--device", "cpu"]
        command("predict", tmp_path / "field.tif", "--model", path, "--out", tmp_path / f"{name}.tif", *flags)
    np.testing.assert_array_equal(read_map(tmp_path / "folder.tif"), read_map(tmp_path / "file.tif"))
    assert not {path.name for path in bundle.iterdir()} - bundle_module._NAMES, "the release stays as it is"


@pytest.mark.slow
def test_a_bundle_is_exported_and_reported_on(
    bundle: Path, tiny_checkpoint: Path, plantation: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "salak-1"
    shutil.copytree(bundle, copy)
    command("export", copy, "--out", tmp_path / "again.onnx", "--size", TILE, "--no-sidecars")
    told = json.loads(command("info", tmp_path / "again.onnx", "--json").stdout)["salakseg"]
    assert told["source_sha256"] == sha256_of(tiny_checkpoint)
    command("report", copy, "--data-root", plantation, "--split", "val", "--device", "cpu")
    report = json.loads((copy / "report-val" / "report.json").read_text(encoding="utf-8"))
    assert report["data"] == plantation.name
    message = command("report", copy, "--data-root", plantation, "--write-default", status=1).output
    assert "is a bundle, which stays as it was released" in " ".join(message.split())
    again = write_bundle(copy, tmp_path / "again.onnx", tmp_path / "salak-2")
    assert (again / "weights.safetensors").read_bytes() == (copy / "weights.safetensors").read_bytes()


def test_nothing_tells_where_it_was_made(tiny_checkpoint: Path, plantation: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    where = "/home/rani/salak secrets/lite0.pth"
    checkpoint.network = checkpoint.network.model_copy(update={"encoder_weights": where})
    checkpoint.recipe["network"] = {**checkpoint.recipe["network"], "encoder_weights": where}
    save_checkpoint(checkpoint, tmp_path / "own.pt")
    command("report", tmp_path / "own.pt", "--split", "val", "--device", "cpu")
    command("export", tmp_path / "own.pt", "--bundle", tmp_path / "release")
    told = json.loads(command("info", tmp_path / "release", "--json").stdout)
    assert told["salakseg"]["tile"] == checkpoint.default_tile, "a bundle maps as its checkpoint does"
    files = [path for path in (tmp_path / "release").rglob("*") if path.is_file()]
    assert {"report.html", "report.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert b"salak secrets" not in content, path
        assert str(tmp_path).encode() not in content, path
        assert str(plantation).encode() not in content, path
    assert b"lite0.pth" in (tmp_path / "release" / "config.json").read_bytes()
    assert load_checkpoint(tmp_path / "release").network.encoder_weights == "lite0.pth"


@pytest.mark.slow
def test_the_command(tiny_checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    flags = ["--size", TILE, "--licence", "CC-BY-4.0", "--note", "A made-up plantation."]
    command("export", tiny_checkpoint, "--bundle", tmp_path / "release", *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == sorted(p.name for p in bundle.iterdir())
    card = (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert "> **A made-up plantation.**" in card
    assert "| licence | CC-BY-4.0 |" in card


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told = command("predict", "field.tif", "--model", tmp_path / "empty", "--out", tmp_path / "m.tif", status=1).output
    assert "does not exist" in told or "is no bundle" in told
    assert "is no bundle, nor the folder of a run" in " ".join(
        command("info", tmp_path / "empty", status=1).output.split()
    )


def test_it_comes_with_the_report(tiny_checkpoint: Path, model: Path, tmp_path: Path) -> None:
    from reports import measured_report

    checkpoint = load_checkpoint(tiny_checkpoint)
    (tmp_path / "report").mkdir()
    report = measured_report().to_dict() | {
        "recipe": checkpoint.recipe_name, "classes": checkpoint.classes, "iteration": checkpoint.iteration,
        "validation": checkpoint.evaluation,
    }  # fmt: skip
    (tmp_path / "report" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (tmp_path / "report" / "report.html").write_text("<p>report</p>", encoding="utf-8")
    (tmp_path / "report" / "diary.txt").write_text("mine", encoding="utf-8")
    folder = write_bundle(tiny_checkpoint, model, tmp_path / "bundle", report=tmp_path / "report" / "report.json")
    assert sorted(path.name for path in (folder / "report").iterdir()) == ["report.html", "report.json"]
    assert "95 % interval" in (folder / "README.md").read_text(encoding="utf-8")


def test_only_a_bundle_is_replaced(tiny_checkpoint: Path, model: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exists; add --overwrite"):
        write_bundle(tiny_checkpoint, model, bundle)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ExportError, match="exists and is no bundle; name another folder"):
        write_bundle(tiny_checkpoint, model, mine, overwrite=True)
    (mine / "config.json").write_text('{"schema": "other"}', encoding="utf-8")
    with pytest.raises(ExportError, match="is no bundle"):
        write_bundle(tiny_checkpoint, model, mine, overwrite=True)
    assert sorted(path.name for path in mine.iterdir()) == ["config.json", "thesis.txt"]
    with pytest.raises(ExportError, match="does not exist; make it first"):
        write_bundle(tiny_checkpoint, model, tmp_path / "gone" / "bundle")


def test_places_that_cannot_be_one(
    tiny_checkpoint: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", ".."):
        with pytest.raises(ExportError, match="is the folder that you are in, or above it"):
            write_bundle(tiny_checkpoint, model, Path(name))
    with pytest.raises(ExportError, match="would lie in another bundle"):
        write_bundle(tiny_checkpoint, model, write_bundle(tiny_checkpoint, model, tmp_path / "one") / "inside")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ExportError, match="cannot be written to; name one elsewhere"):
        write_bundle(tiny_checkpoint, model, tmp_path / "release")


def test_nothing_is_left_half_written(
    tiny_checkpoint: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tiny_checkpoint, model, tmp_path / "bundle")
    (folder / "README.md").write_text("the older one", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle_module, "_write_checkpoint", full)
        with pytest.raises(ExportError, match=r"bundle could not be written .*make room on the disk"):
            write_bundle(tiny_checkpoint, model, folder, overwrite=True)
    real, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) > 3 and Path(target) == folder and Path(source).name == "bundle":
            raise OSError(5, "Input/output error")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        calls[:] = [Path()] * 9
        with pytest.raises(ExportError, match="could not be written"):
            write_bundle(tiny_checkpoint, model, folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (folder / "README.md").read_text(encoding="utf-8") == "the older one"
    write_bundle(tiny_checkpoint, model, folder, overwrite=True)
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# bundle")


def test_a_model_of_another_checkpoint_is_refused(tiny_checkpoint: Path, model: Path, tmp_path: Path) -> None:
    metadata = {p.key: json.loads(p.value) for p in onnx.load(model).metadata_props}
    other = edit(model, tmp_path / "other.onnx", metadata=metadata | {"salakseg.source_sha256": "0"})
    with pytest.raises(ExportError, match=r"other\.onnx was not exported from .*best\.pt as it is now"):
        write_bundle(tiny_checkpoint, other, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("weights.safetensors", b"short", "is an incomplete bundle"),
        ("config.json", b"{", "is no bundle"),
        ("config.json", b'{"schema": "salakseg.bundle", "schema_version": 9}', "has bundle schema 9.*update salakseg"),
        ("config.json", b'{"schema": "salakseg.bundle", "schema_version": 1}', "has bundle schema 1.*export it anew"),
        ("config.json", b'{"schema": "salakseg.bundle", "schema_version": 2}', "is an incomplete bundle"),
    ],
)
def test_damaged_bundles_are_told(bundle: Path, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(copy)


def test_what_is_not_the_bundle_s_is_not_deleted(
    tiny_checkpoint: Path, model: Path, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    shutil.copytree(bundle, folder)
    (folder / "LICENSE").write_text("mine")
    with pytest.raises(ExportError, match=r"holds more than a bundle \(LICENSE\)"):
        write_bundle(tiny_checkpoint, model, folder, overwrite=True)
    assert (folder / "LICENSE").read_text() == "mine"
    (folder / "LICENSE").unlink()
    write_bundle(tiny_checkpoint, model, folder, overwrite=True)
