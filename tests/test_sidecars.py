import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from exports import TILE, run_without, settings, write_described, write_tile
from helpers import command, write_tiny_onnx
from rasters import read_map
from reports import measured_report
from stac_model.schema import MLModelProperties

from salakseg.errors import ExportError
from salakseg.export.card import model_card
from salakseg.export.onnx import export_onnx
from salakseg.export.onnx_file import read_onnx
from salakseg.export.sidecars import SidecarNames, check_sidecars, data_text, find_report, write_sidecars
from salakseg.export.stac import stac_item
from salakseg.network.checkpoint import Checkpoint, load_checkpoint

BLOCKED = ("salakseg", "torch", "onnx", "scipy", "segmentation_models_pytorch", "shapely", "pydantic", "PIL")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    """Not to be changed."""
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real export and what lies beside it; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    model = export_onnx(tiny_checkpoint, folder / "model.onnx", settings(), quick=True).path
    write_sidecars(model, checkpoint, notes=["A made-up plantation: stand-in data."])
    return model


def card_of(model: Path, **changes: Any) -> str:
    return model_card(read_onnx(model).metadata, "model", **changes)


@pytest.mark.slow
def test_the_script_makes_the_map_that_predict_makes(exported: Path, tmp_path: Path) -> None:
    """With nothing but onnxruntime, numpy and rasterio, in a process that cannot import us."""
    write_tile(tmp_path / "tile.tif")
    command("predict", tmp_path / "tile.tif", "--model", exported, "--out", tmp_path / "map.tif", "--device", "cpu")
    script = exported.with_name("model.inference.py")
    done = run_without(script, tmp_path / "tile.tif", tmp_path / "script.tif", blocked=BLOCKED)
    assert done.returncode == 0, done.stderr
    expected = read_map(tmp_path / "map.tif")
    assert len(np.unique(expected)) > 1, "a map of one class proves nothing"
    np.testing.assert_array_equal(read_map(tmp_path / "script.tif"), expected)


def test_the_script_is_short_and_imports_little(exported: Path) -> None:
    text = exported.with_name("model.inference.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert max(map(len, text.splitlines())) <= 120
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported == {"json", "sys", "pathlib", "numpy", "onnxruntime", "rasterio"}


@pytest.mark.parametrize("changes", [{"size": None}, {"normalisation": "baked"}])
def test_the_script_serves_other_kinds_of_files(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = write_described(tmp_path / 'a "b".onnx', checkpoint, **changes)
    write_sidecars(model, checkpoint)
    write_tile(tmp_path / "wide.tif", 200)  # larger than a tile, and no multiple of it
    script = tmp_path / 'a "b".inference.py'
    done = run_without(script, tmp_path / "wide.tif", tmp_path / "map.tif", blocked=BLOCKED)
    assert done.returncode == 0, done.stderr
    assert read_map(tmp_path / "map.tif").shape == (200, 200)
    assert read_map(tmp_path / "map.tif").max() < 7


def test_the_stac_item_is_valid(exported: Path, checkpoint: Checkpoint) -> None:
    record = json.loads(exported.with_name("model.stac.json").read_text(encoding="utf-8"))
    item = pystac.Item.from_dict(record)
    assert item.datetime == datetime.fromisoformat(checkpoint.created)
    pystac.Item.from_dict(record | {"stac_extensions": []}, migrate=False).validate()  # the core alone, offline
    properties = MLModelProperties(**record["properties"])
    (image,), (output,) = properties.input, properties.output
    assert image.input.shape == [-1, 3, TILE, TILE]
    assert [(scaling.mean, scaling.stddev) for scaling in image.value_scaling or ()] == [
        (123.675, 58.395), (116.28, 57.12), (103.53, 57.375),
    ]  # fmt: skip
    assert output.result.shape == [-1, 7, TILE, TILE]
    classes = [(one.value, one.name, one.color_hint) for one in output.classes or ()]
    assert classes[1] == (1, "Badan-Air", "FF3232")
    assert [one.description for one in output.classes or ()] == list(checkpoint.class_map.names)
    # Bands that an input names: the extension's schema wants them among the properties, or an extension of their own
    named = [band["name"] for band in record["properties"]["bands"]]
    assert named == list(image.bands) == [band["name"] for band in record["assets"]["model"]["bands"]]
    assert len(classes) == 7
    assert properties.file_size == exported.stat().st_size
    assert properties.pretrained is False
    assert record["assets"]["model"]["href"] == "./model.onnx"
    assert "mlm:model" in record["assets"]["model"]["roles"]
    assert "license" not in record["properties"], "nobody has named one"


@pytest.mark.parametrize(
    ("licence", "expected"), [("CC-BY-4.0", "CC-BY-4.0"), ("ask the farmers' cooperative", "other")]
)
def test_the_licence_in_the_stac_item(checkpoint: Checkpoint, tmp_path: Path, licence: str, expected: str) -> None:
    model = write_described(tmp_path / "9 model.onnx", checkpoint, licence=licence, normalisation="baked", size=None)
    record = stac_item(read_onnx(model), "9 model")
    assert record["properties"]["license"] == expected
    assert record["properties"]["mlm:name"] == "salakseg-9-model"
    assert record["properties"]["mlm:input"][0]["value_scaling"] is None
    assert record["properties"]["mlm:input"][0]["input"]["shape"] == [-1, 3, -1, -1]
    MLModelProperties(**record["properties"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Hutan (muda)", "hutan muda", "Jalan"], ["Hutan-muda-1", "hutan-muda-2", "Jalan-3"]),
        (["\u68ee\u6797", "Jalan Raya", "Air"], ["class-1", "Jalan-Raya-2", "Air-3"]),
        (["Hutan (muda)", "Jalan Raya", "Air"], ["Hutan-muda", "Jalan-Raya", "Air"]),
    ],
)
def test_no_two_classes_of_the_stac_item_are_named_alike(
    checkpoint: Checkpoint, tmp_path: Path, names: list[str], expected: list[str]
) -> None:
    renamed = [
        checkpoint.classes[0],
        *({**one, "name": name} for one, name in zip(checkpoint.classes[1:4], names, strict=True)),
    ]
    model = write_described(tmp_path / "model.onnx", replace(checkpoint, classes=renamed), outputs="prob+confidence")
    probabilities, *others = stac_item(read_onnx(model), "model")["properties"]["mlm:output"]
    assert [one["name"] for one in probabilities["classification:classes"]][1:] == expected
    assert [other["classification:classes"] for other in others] == [[]] * len(others)


def test_the_card_without_a_report(exported: Path) -> None:
    card = exported.with_name("model.README.md").read_text(encoding="utf-8")
    assert "> **A made-up plantation: stand-in data.**" in card
    assert "figures were stored at training time and carry no intervals" in card
    assert "| Badan Air | " in card
    assert "95 % interval" not in card
    assert "random weights" in card
    assert "| licence | unspecified |" in card
    assert "Data of `patches`: photos of 2 folders" in card
    assert "\n## Intended use and limits\n" in card


def test_the_card_with_a_report(exported: Path) -> None:
    report = measured_report().to_dict()
    card = card_of(exported, report=report)
    assert "| class | IoU | 95 % interval |" in card
    low, high = (report["findings"]["resampling"]["intervals"]["iou"][end][2] for end in ("low", "high"))
    assert f"| {report['metrics']['iou'][2]:.3f} | {low:.3f} to {high:.3f} |" in card
    assert report["metrics"]["iou"][1] is None, "a class that is nowhere"
    assert " | - | unknown |" in card
    assert "/data/patches" not in card
    assert "> **These are stand-in data.**" in card
    assert "stored at training time and carry" not in card


def test_a_card_without_any_accuracy_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = write_described(tmp_path / "model.onnx", checkpoint)
    about = read_onnx(model).metadata | {"salakseg.validation": None}
    assert "never validated" in model_card(about, "model")


def test_figures_of_another_variant_are_named_as_such(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from salakseg.network.variant import Variant

    model = write_described(tmp_path / "model.onnx", checkpoint, variant=Variant("student", "vote"))
    assert "The figures are those of: EMA, mean of the logits" in card_of(model)


def test_names_of_users_do_not_break_the_card(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = write_described(tmp_path / "model.onnx", checkpoint)
    about = read_onnx(model).metadata
    about["salakseg.classes"][1]["name"] = "a | b <script>\n# c"
    card = model_card(about, "model")
    assert r"| a \| b \<script\> # c | " in card
    noted = model_card(about, "model", notes=["first\n# second", "**third**"])
    assert "> **first # second**\n" in noted
    assert r"> **\*\*third\*\***" in noted


def test_only_a_report_on_this_checkpoint_is_taken(
    exported: Path, checkpoint: Checkpoint, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "report").mkdir()
    copy = run / "checkpoints" / "best.pt"
    copy.write_bytes(tiny_checkpoint.read_bytes())
    assert find_report(copy, checkpoint) is None
    path = run / "report" / "report.json"
    report = measured_report().to_dict() | {
        "recipe": checkpoint.recipe_name, "classes": checkpoint.classes, "validation": checkpoint.evaluation,
    }  # fmt: skip
    path.write_text(json.dumps(report | {"iteration": checkpoint.iteration + 1}), encoding="utf-8")
    assert find_report(copy, checkpoint) is None
    with pytest.raises(ExportError, match=r"is on another checkpoint than model\.onnx was made from"):
        write_sidecars(exported, checkpoint, path, names=SidecarNames("a", "b", "c"))
    path.write_text(json.dumps(report | {"iteration": checkpoint.iteration}), encoding="utf-8")
    assert find_report(copy, checkpoint) == path
    other_seed = replace(checkpoint, evaluation=checkpoint.evaluation | {"matrix": [[1] * 7] * 7})
    assert find_report(copy, other_seed) is None
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ExportError, match=r"report\.json is no report of salakseg"):
        write_sidecars(exported, checkpoint, path, names=SidecarNames("a", "b", "c"))
    assert sorted(file.name for file in exported.parent.iterdir()) == sorted(
        ["model.onnx", *SidecarNames.beside(exported).all]
    )


@pytest.mark.parametrize("root", ["/home/rani/patches", "C:\\Users\\rani\\patches", "C:\\Users\\rani\\patches\\"])
def test_of_a_place_only_the_last_folder_is_told(checkpoint: Checkpoint, root: str) -> None:
    told = data_text(replace(checkpoint, data_root=root))
    assert told.startswith("Data of `patches`: photos of ")
    assert "rani" not in told


def test_files_that_are_there_are_refused_first(exported: Path) -> None:
    with pytest.raises(ExportError, match=r"model\.stac\.json exists; add --overwrite"):
        check_sidecars(exported, overwrite=False)
    check_sidecars(exported, overwrite=True)


def test_a_model_of_others_gets_none(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = write_tiny_onnx(tmp_path / "model.onnx", TILE)
    with pytest.raises(ExportError, match="says nothing of itself"):
        write_sidecars(model, checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
