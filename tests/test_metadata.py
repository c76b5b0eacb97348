import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exports import MULTIPLE, TILE, edit, metadata_of, settings, write_described

from salakseg.classes import SALAK
from salakseg.errors import EngineError
from salakseg.export.metadata import OVERLAP, TILE_OVERLAP_PERCENT, model_metadata
from salakseg.mapping.settings import default_overlap
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.metadata import Told, usage_of
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.variant import Variant

DEEPNESS = {
    "model_type", "class_names", "standardization_mean", "standardization_std", "resolution", "tile_size", "tiles_size",
    "tiles_overlap", "seg_thresh", "seg_small_segment",
}  # fmt: skip


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def test_the_keys_of_the_plugin(checkpoint: Checkpoint) -> None:
    found = metadata_of(checkpoint)
    assert {key: found[key] for key in DEEPNESS} == {
        "model_type": "Segmentor",
        "class_names": {str(c.id): c.name for c in SALAK.classes},
        "standardization_mean": [0.485, 0.456, 0.406],
        "standardization_std": [0.229, 0.224, 0.225],
        "resolution": 5.0,  # centimetres, of 0.05 m
        "tile_size": TILE,
        "tiles_size": TILE,
        "tiles_overlap": 19,
        "seg_thresh": 0,
        "seg_small_segment": 0,
    }
    assert all(key in DEEPNESS or key.startswith("salakseg.") for key in found)


def test_the_overlap_is_that_of_predict() -> None:
    for tile in (128, 256, 512):
        assert tile * OVERLAP == default_overlap(tile)
    assert abs(TILE_OVERLAP_PERCENT - 100 * OVERLAP) <= 0.5


def test_an_unknown_resolution_is_left_out(checkpoint: Checkpoint) -> None:
    checkpoint.gsd_m = None
    found = metadata_of(checkpoint)
    assert "resolution" not in found
    assert found["salakseg.gsd_m"] is None


@pytest.mark.parametrize(
    "changes", [{"size": None}, {"normalisation": "baked"}, {"outputs": "argmax"}, {"outputs": "prob+confidence"}]
)
def test_a_file_that_the_plugin_would_misread_has_none_of_its_keys(
    checkpoint: Checkpoint, changes: dict[str, Any]
) -> None:
    assert not DEEPNESS & metadata_of(checkpoint, **changes).keys()


def test_a_dynamic_file_states_its_multiple_and_a_tile_that_fits_it(checkpoint: Checkpoint) -> None:
    found = metadata_of(checkpoint, size=None)
    assert "salakseg.tile" not in found
    assert found["salakseg.size_multiple"] == MULTIPLE
    assert found["salakseg.default_tile"] == checkpoint.default_tile
    assert metadata_of(checkpoint)["salakseg.tile"] == TILE


def test_baked_normalisation_leaves_nothing_for_the_caller(checkpoint: Checkpoint) -> None:
    found = metadata_of(checkpoint, normalisation="baked")["salakseg.normalisation"]
    assert (found["scale"], found["mean"], found["std"]) == (1, [0, 0, 0], [1, 1, 1])
    assert found["baked"] == metadata_of(checkpoint)["salakseg.normalisation"]


def test_the_validation_is_that_of_the_stored_matrix(checkpoint: Checkpoint) -> None:
    matrix = np.zeros((7, 7), int)
    matrix[0, 0], matrix[1, 1], matrix[1, 2], matrix[2, 2] = 50, 30, 10, 20
    checkpoint.evaluation = {"part": "val", "patches": 4, "matrix": matrix.tolist()}
    found = metadata_of(checkpoint)["salakseg.validation"]
    assert found["iou"][:4] == [1.0, 0.75, pytest.approx(2 / 3), None]
    assert found["miou_without_background"] == {"value": pytest.approx((0.75 + 2 / 3) / 2), "classes": 2}
    assert found["miou_with_background"] == {"value": pytest.approx((1 + 0.75 + 2 / 3) / 3), "classes": 3}
    assert (found["part"], found["patches"], found["of"]) == ("val", 4, "EMA, mean of the logits")
    checkpoint.evaluation = {}
    assert metadata_of(checkpoint)["salakseg.validation"] is None


def test_where_the_file_comes_from(checkpoint: Checkpoint) -> None:
    variant = Variant("student", "vote", 1.0)
    found = metadata_of(checkpoint, variant=variant, precision="fp16", licence="CC-BY-4.0")
    assert found["salakseg.training"] == {"recipe": "phase2", "iteration": 8, "created": checkpoint.created}
    assert [found[f"salakseg.{key}"] for key in ("weights", "heads", "temperature")] == ["student", "vote", 1.0]
    assert (found["salakseg.precision"], found["salakseg.licence"]) == ("fp16", "CC-BY-4.0")
    assert found["salakseg.versions"]["trained"] == checkpoint.versions
    assert found["salakseg.versions"]["exported"]["onnx"] == onnx.__version__
    assert metadata_of(checkpoint)["salakseg.licence"] == "unspecified"


@pytest.mark.parametrize("changes", [{}, {"size": None}, {"normalisation": "baked"}])
def test_what_is_written_is_read_back(checkpoint: Checkpoint, changes: dict[str, Any]) -> None:
    usage = usage_of(model_metadata(checkpoint, settings(**changes), "digest", MULTIPLE), Told(), "model.onnx")
    assert usage.own
    assert usage.class_map.classes == checkpoint.class_map.classes
    assert (usage.gsd_m, usage.size_multiple) == (0.05, MULTIPLE)
    baked = "normalisation" in changes
    assert (usage.scale, usage.mean) == ((1, (0, 0, 0)) if baked else (255, checkpoint.mean))
    assert usage.default_tile == (checkpoint.default_tile if "size" in changes else None)


def test_class_ids_cannot_be_blended(checkpoint: Checkpoint) -> None:
    with pytest.raises(EngineError, match=r"gives class ids, and where tiles overlap .* --outputs prob"):
        usage_of(model_metadata(checkpoint, settings(outputs="argmax"), "digest", MULTIPLE), Told(), "model.onnx")


@pytest.mark.parametrize(
    ("key", "value"), [("salakseg.classes", [{"id": 0}]), ("salakseg.normalisation", {"mean": [1, 2]}),
                       ("salakseg.normalisation", 3), ("salakseg.gsd_m", "near")]
)  # fmt: skip
def test_damaged_metadata_are_told(checkpoint: Checkpoint, tmp_path: Path, key: str, value: object) -> None:
    path = write_described(tmp_path / "model.onnx", checkpoint)
    texts = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    edit(path, path, metadata=texts | {key: value})
    with pytest.raises(Exception, match=r"model\.onnx has") as error:
        OnnxEngine(path)
    assert type(error.value).__name__ in ("EngineError", "ClassMapError")


def test_a_dynamic_file_takes_the_tiles_that_it_says(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = write_described(tmp_path / "model.onnx", checkpoint, size=None)
    assert OnnxEngine(path).tile == checkpoint.default_tile
    for side in (16, 96):
        engine = OnnxEngine(path, tile=side)
        prob = engine.predict(np.zeros((2, 3, side, side), np.uint8))
        assert prob.shape == (2, 7, side, side)
    for side, words in ((100, "take 96 or 112"), (8, "take 16 or 32")):
        with pytest.raises(EngineError, match=f"a multiple of 16, not --tile {side}; {words}"):
            OnnxEngine(path, tile=side)


def test_a_static_file_takes_its_own_tile_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = write_described(tmp_path / "model.onnx", checkpoint)
    assert OnnxEngine(path, tile=TILE).tile == TILE
    with pytest.raises(EngineError, match="takes tiles of 64 pixels, not 128; export it with --size 128"):
        OnnxEngine(path, tile=128)
