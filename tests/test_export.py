import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from helpers import command

import salakseg.export.onnx as export_module
from salakseg.classes import SALAK
from salakseg.errors import EngineError, ExportError
from salakseg.export.cache import cached_onnx
from salakseg.export.onnx import Exported, export_onnx
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.model import normalise
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.torch_engine import TorchEngine

TILE = 64


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_onnx(tiny_checkpoint, tmp_path_factory.mktemp("export") / "model.onnx", tile=TILE)


def tiles(count: int, seed: int = 5) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, TILE, TILE), dtype=np.uint8)


def test_the_file_is_what_deepness_can_open(exported: Exported) -> None:
    model = onnx.load(exported.path)
    assert model.ir_version == 9
    assert [(o.domain, o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")] == [("", 18)]
    assert not [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert [p.name for p in exported.path.parent.iterdir()] == ["model.onnx"]
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (image,), (prob,) = session.get_inputs(), session.get_outputs()
    assert image.type == prob.type == "tensor(float)"
    assert image.shape[1:] == [3, TILE, TILE]
    assert prob.shape[1:] == [7, TILE, TILE]
    assert isinstance(image.shape[0], str)


def test_it_computes_what_torch_computes(exported: Exported, tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    engine = OnnxEngine(exported.path)
    for count in (1, 3):
        image = tiles(count)
        with torch.inference_mode():
            scaled = normalise(torch.from_numpy(image).float() / 255)
            expected = checkpoint.build("ema")(scaled).mean_BKHW.softmax(1).numpy()
        found = engine.predict(image)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(TorchEngine(tiny_checkpoint, "cpu", TILE).predict(image), found, atol=1e-4)


def test_real_tiles_were_compared(exported: Exported) -> None:
    assert exported.real_tiles == 3
    assert exported.parity.tiles == 4
    assert exported.parity.agreement >= 0.9999


def test_the_metadata_are_those_of_the_plugin(exported: Exported) -> None:
    metadata = {p.key: json.loads(p.value) for p in onnx.load(exported.path).metadata_props}
    assert metadata["model_type"] == "Segmentor"
    assert metadata["class_names"] == {str(c.id): c.name for c in SALAK.classes}
    assert metadata["standardization_mean"] == [0.485, 0.456, 0.406]
    assert metadata["standardization_std"] == [0.229, 0.224, 0.225]
    assert metadata["resolution"] == 5.0  # centimetres, of 0.05 m
    assert metadata["tile_size"] == metadata["tiles_size"] == TILE
    assert metadata["tiles_overlap"] == 25
    assert metadata["seg_thresh"] == metadata["seg_small_segment"] == 0


def test_an_unknown_resolution_is_left_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.gsd_m = None
    save_checkpoint(checkpoint, tmp_path / "unknown.pt")
    out = export_onnx(tmp_path / "unknown.pt", tmp_path / "model.onnx", tile=TILE).path
    assert "resolution" not in {p.key for p in onnx.load(out).metadata_props}
    assert OnnxEngine(out).gsd_m is None


def test_the_engine_knows_its_model(exported: Exported) -> None:
    engine = OnnxEngine(exported.path)
    assert engine.class_map.classes == SALAK.classes
    assert (engine.tile, engine.gsd_m, engine.name) == (TILE, 0.05, "model.onnx")
    assert "CPUExecutionProvider" in engine.runs_on
    digest = hashlib.sha256(exported.path.read_bytes()).hexdigest()
    assert engine.identity == {"model": "model.onnx", "model_sha256": digest}
    named = OnnxEngine(exported.path, name="best.pt")
    assert (named.name, named.identity) == ("best.pt", {"model": "best.pt", "model_sha256": digest})


def test_the_engine_of_a_checkpoint_knows_what_decides_its_answers(tiny_checkpoint: Path) -> None:
    engine = TorchEngine(tiny_checkpoint, "cpu", TILE, "student", "vote")
    digest = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    told = {"model": tiny_checkpoint.name, "model_sha256": digest, "weights": "student", "heads": "vote"}
    assert engine.identity == told
    assert engine.identity != TorchEngine(tiny_checkpoint, "cpu", TILE).identity


def test_a_file_that_computes_something_else_is_not_left(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head's weights are changed in the file between writing and comparing."""
    write = export_module._write

    def write_wrong(model: torch.nn.Module, path: Path, tile: int, metadata: dict[str, str]) -> None:
        write(model, path, tile, metadata)
        proto = onnx.load(path)
        weights = next(t for t in proto.graph.initializer if "heads.0.1.weight" in t.name)
        values = onnx.numpy_helper.to_array(weights)[::-1].copy()
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        onnx.save(proto, path)

    monkeypatch.setattr(export_module, "_write", write_wrong)
    with pytest.raises(ExportError, match=r"model\.onnx was not written: it agrees with torch on"):
        export_onnx(tiny_checkpoint, tmp_path / "model.onnx", tile=TILE)
    assert list(tmp_path.iterdir()) == []


def test_requests_that_cannot_work(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="multiple of 16"):
        export_onnx(tiny_checkpoint, out, tile=100)
    with pytest.raises(ExportError, match="folder of"):
        export_onnx(tiny_checkpoint, tmp_path / "gone" / "model.onnx", tile=TILE)
    out.write_text("mine")
    with pytest.raises(ExportError, match="--overwrite"):
        export_onnx(tiny_checkpoint, out, tile=TILE)
    assert out.read_text() == "mine"


def test_foreign_models_are_told(tmp_path: Path, exported: Exported) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        OnnxEngine(tmp_path / "nowhere.onnx")
    path = tmp_path / "foreign.onnx"
    path.write_text("no model")
    with pytest.raises(EngineError, match=r"foreign\.onnx is no model"):
        OnnxEngine(path)
    model = onnx.load(exported.path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(EngineError, match="lacks the metadata"):
        OnnxEngine(path)


def test_a_converted_checkpoint_is_kept_until_it_changes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(tiny_checkpoint.read_bytes())
    path, made = cached_onnx(checkpoint, TILE)
    assert made
    assert cached_onnx(checkpoint, TILE) == (path, False)
    save_checkpoint(load_checkpoint(checkpoint), checkpoint)  # another time stamp inside
    assert cached_onnx(checkpoint, TILE) == (path, True)
    path.write_bytes(path.read_bytes()[:1000])
    assert cached_onnx(checkpoint, TILE) == (path, True)


def test_the_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = command("export", tiny_checkpoint, "--out", tmp_path / "model.onnx", "--size", TILE)
    assert "agrees with torch on 100.0000 %" in " ".join(done.stderr.split())
    assert OnnxEngine(tmp_path / "model.onnx").tile == TILE
