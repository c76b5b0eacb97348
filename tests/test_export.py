import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from exports import edit
from helpers import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from salakseg.classes import SALAK
from salakseg.errors import CheckpointError, EngineError, ExportError
from salakseg.export.cache import cached_onnx
from salakseg.export.fold import spread_softmax
from salakseg.export.graph import Deployed, build_graph
from salakseg.export.onnx import Exported, export_onnx
from salakseg.export.onnx_file import read_onnx
from salakseg.export.settings import ExportSettings, Outputs
from salakseg.export.source import Source
from salakseg.export.tiles import open_run_data
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.digest import sha256_of
from salakseg.network.heads import combine_heads
from salakseg.network.model import normalise
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.torch_engine import TorchEngine
from salakseg.network.variant import Variant
from salakseg.replacing import may_write

TILE = 64
SETTINGS = ExportSettings(variant=Variant(), size=TILE)


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_onnx(tiny_checkpoint, tmp_path_factory.mktemp("export") / "model.onnx", SETTINGS)


@pytest.fixture(scope="module")
def dynamic(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    """A file for any size that takes 0 to 255 and gives confidences as well."""
    wanted = replace(SETTINGS, size=None, normalisation="baked", outputs="prob+confidence")
    out = export_onnx(tiny_checkpoint, tmp_path_factory.mktemp("dynamic") / "model.onnx", wanted, quick=True).path
    return ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path) -> torch.nn.Module:
    return load_checkpoint(tiny_checkpoint).build("ema")


def tiles(count: int, seed: int = 5, height: int = TILE, width: int = TILE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def by_torch(network: torch.nn.Module, image_BCHW: NDArray[np.uint8], heads: str = "mean") -> NDArray[np.float32]:
    with torch.inference_mode():
        logits = network(normalise(torch.from_numpy(image_BCHW).float() / 255))
        prob: NDArray[np.float32] = combine_heads(logits, heads).numpy()
    return prob


def metadata_of(path: Path) -> dict[str, Any]:
    return {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}


def test_the_file_is_what_deepness_can_open(exported: Exported) -> None:
    model = onnx.load(exported.path)
    assert model.ir_version == 9
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert not [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert [p.name for p in exported.path.parent.iterdir()] == ["model.onnx"]
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (image,), (prob,) = session.get_inputs(), session.get_outputs()
    assert image.type == prob.type == "tensor(float)"
    assert image.shape[1:] == [3, TILE, TILE]
    assert prob.shape[1:] == [7, TILE, TILE]
    assert isinstance(image.shape[0], str)


def test_the_graph_is_clean(exported: Exported) -> None:
    model = onnx.load(exported.path)
    found = Counter(node.op_type for node in model.graph.node)
    assert not found.keys() & {"BatchNormalization", "Dropout", "Identity", "Constant", "Pad"}
    assert exported.nodes == found.total() < 140  # 150 as torch's exporter leaves it
    assert not model.functions
    # what an exporter notes for itself names the folders of the machine
    assert b"site-packages" not in exported.path.read_bytes()


def test_a_softmax_over_the_classes_is_spread(exported: Exported) -> None:
    kinds = [node.op_type for node in onnx.load(exported.path).graph.node]
    assert kinds[-5:] == ["ReduceMax", "Sub", "Exp", "ReduceSum", "Div"]
    assert "Softmax" not in kinds


@given(st.integers(1, 3), st.integers(1, 9), st.floats(-1e4, 1e4), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_spread_softmax_is_one(axis: int, classes: int, level: float, seed: int) -> None:
    shape = [2, 3, 4, 5]
    shape[axis] = classes
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("logits", "prob")]
    node = helper.make_node("Softmax", ["logits"], ["prob"], axis=axis)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), opset_imports=opset, ir_version=9)
    spread_softmax(model.graph, {"logits": 4})
    onnx.checker.check_model(model, full_check=True)
    assert ("Softmax" in [n.op_type for n in model.graph.node]) is (axis == 3)
    logits = (np.random.default_rng(seed).normal(0, 20, shape) + level).astype(np.float32)
    (prob,) = ort.InferenceSession(model.SerializeToString()).run(None, {"logits": logits})
    expected = torch.from_numpy(logits).softmax(dim=axis).numpy()
    np.testing.assert_allclose(prob, expected, atol=1e-6)


def test_it_computes_what_torch_computes(exported: Exported, tiny_checkpoint: Path, network: torch.nn.Module) -> None:
    engine = OnnxEngine(exported.path)
    for count in (1, 3):
        image = tiles(count)
        found = engine.predict(image)
        np.testing.assert_allclose(found, by_torch(network, image), atol=1e-4)
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(TorchEngine(tiny_checkpoint, "cpu", TILE).predict(image), found, atol=1e-4)


@pytest.mark.parametrize("heads", ["prob", "vote", "diversenet", "2"])
def test_every_way_to_combine_heads(
    heads: str, tiny_checkpoint: Path, network: torch.nn.Module, tmp_path: Path
) -> None:
    wanted = replace(SETTINGS, variant=Variant("ema", heads))
    out = export_onnx(tiny_checkpoint, tmp_path / "model.onnx", wanted, quick=True).path
    found, expected = OnnxEngine(out).predict(tiles(2)), by_torch(network, tiles(2), heads)
    close = np.abs(found - expected) < 1e-4
    assert close.mean() > 0.999  # a vote jumps where a head's two best classes tie


def test_a_temperature_is_part_of_the_file(tiny_checkpoint: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    wanted = replace(SETTINGS, variant=Variant("ema", "mean", 4.0))
    out = export_onnx(tiny_checkpoint, tmp_path / "model.onnx", wanted, quick=True).path
    found = OnnxEngine(out).predict(tiles(1))
    softer = by_torch(network, tiles(1)) ** 0.25
    np.testing.assert_allclose(found, softer / softer.sum(axis=1, keepdims=True), atol=1e-4)


@given(count=st.integers(1, 5), rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dynamic_file_takes_any_batch_and_size(
    dynamic: ort.InferenceSession, network: torch.nn.Module, count: int, rows: int, columns: int, seed: int
) -> None:
    image = tiles(count, seed, 16 * rows, 16 * columns)
    prob, confidence = dynamic.run(None, {"image": image.astype(np.float32)})
    expected = by_torch(network, image)
    assert prob.shape == expected.shape
    np.testing.assert_allclose(prob, expected, atol=1e-4)
    np.testing.assert_array_equal(confidence, prob.max(axis=1))


@given(count=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_static_file_takes_any_batch(exported: Exported, network: torch.nn.Module, count: int, seed: int) -> None:
    image = tiles(count, seed)
    np.testing.assert_allclose(OnnxEngine(exported.path).predict(image), by_torch(network, image), atol=1e-4)


def test_a_dynamic_file_says_its_multiple(dynamic: ort.InferenceSession) -> None:
    metadata = {k: json.loads(v) for k, v in dynamic.get_modelmeta().custom_metadata_map.items()}
    assert metadata["salakseg.size_multiple"] == 16
    assert "salakseg.tile" not in metadata
    assert dynamic.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert dynamic.get_outputs()[0].shape == ["batch", 7, "height", "width"]
    # baked in, so not told a second time
    assert not metadata.keys() & {"standardization_mean", "standardization_std"}


def test_our_engine_runs_a_baked_file(tiny_checkpoint: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    wanted = replace(SETTINGS, normalisation="baked")
    out = export_onnx(tiny_checkpoint, tmp_path / "model.onnx", wanted, quick=True).path
    np.testing.assert_allclose(OnnxEngine(out).predict(tiles(2)), by_torch(network, tiles(2)), atol=1e-4)


@pytest.mark.parametrize("outputs", ["argmax", "prob+confidence"])
def test_other_outputs(outputs: Outputs, tiny_checkpoint: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    wanted = replace(SETTINGS, outputs=outputs)
    exported = export_onnx(tiny_checkpoint, tmp_path / "model.onnx", wanted)
    assert exported.parity.agreement >= 0.9999
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    image = normalise(torch.from_numpy(tiles(2)).float() / 255).numpy()
    found = session.run(None, {"image": image})
    expected = by_torch(network, tiles(2))
    if outputs == "argmax":
        (classes,) = found
        assert classes.dtype == np.uint8 and classes.shape == (2, TILE, TILE)
        assert (classes == expected.argmax(axis=1)).mean() >= 0.9999
    else:
        np.testing.assert_allclose(found[1], expected.max(axis=1), atol=1e-4)


def test_it_is_compared_on_labelled_tiles_of_the_validation_part(exported: Exported) -> None:
    assert exported.real
    loss = exported.parity.loss
    assert loss is not None
    assert set(loss.names) <= set(SALAK.names)
    np.testing.assert_allclose(loss.before, loss.after, atol=1e-3)
    assert exported.parity.agreement >= 0.9999


def test_without_data_noise_is_compared(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.data_root = str(tmp_path / "gone")
    save_checkpoint(checkpoint, tmp_path / "ckpt.pt")
    exported = export_onnx(tmp_path / "ckpt.pt", tmp_path / "model.onnx", SETTINGS)
    assert not exported.real and exported.parity.loss is None
    checkpoint.data_root = ""  # not the folder that somebody happens to be in
    assert open_run_data(checkpoint, None) is None


def test_the_metadata_are_those_of_the_plugin(exported: Exported) -> None:
    metadata = metadata_of(exported.path)
    assert metadata["model_type"] == "Segmentor"
    assert metadata["class_names"] == {str(c.id): c.name for c in SALAK.classes}
    assert metadata["standardization_mean"] == [0.485, 0.456, 0.406]
    assert metadata["standardization_std"] == [0.229, 0.224, 0.225]
    assert metadata["resolution"] == 5.0  # centimetres, of 0.05 m
    assert metadata["tile_size"] == metadata["tiles_size"] == TILE
    assert metadata["seg_thresh"] == metadata["seg_small_segment"] == 0


def test_an_unknown_resolution_is_left_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.gsd_m = None
    save_checkpoint(checkpoint, tmp_path / "unknown.pt")
    out = export_onnx(tmp_path / "unknown.pt", tmp_path / "model.onnx", SETTINGS, quick=True).path
    assert "resolution" not in metadata_of(out)
    assert OnnxEngine(out).gsd_m is None


def test_the_engine_knows_its_model(exported: Exported) -> None:
    engine = OnnxEngine(exported.path)
    assert engine.class_map.classes == SALAK.classes
    assert (engine.tile, engine.gsd_m, engine.name) == (TILE, 0.05, "model.onnx")
    assert "CPUExecutionProvider" in engine.runs_on
    digest = hashlib.sha256(exported.path.read_bytes()).hexdigest()
    made_with = {"weights": "ema", "heads": "mean", "temperature": "1.0", "precision": "fp32"}
    made_with["checkpoint_sha256"] = metadata_of(exported.path)["salakseg.source_sha256"]
    assert engine.identity == {"model": "model.onnx", "model_sha256": digest, **made_with}
    named = OnnxEngine(exported.path, name="best.pt")
    assert (named.name, named.identity) == ("best.pt", {"model": "best.pt", "model_sha256": digest, **made_with})


def test_the_engine_of_a_checkpoint_knows_what_decides_its_answers(tiny_checkpoint: Path) -> None:
    engine = TorchEngine(tiny_checkpoint, "cpu", TILE, "student", "vote")
    digest = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    told = {"model": tiny_checkpoint.name, "model_sha256": digest, "weights": "student", "heads": "vote"}
    assert engine.identity == told
    assert engine.identity != TorchEngine(tiny_checkpoint, "cpu", TILE).identity


def test_a_file_that_computes_something_else_is_not_left(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classes of the last convolution change places between building and comparing."""
    build = Source.graph

    def build_wrong(source: Source) -> onnx.ModelProto:
        model = build(source)
        last = [node for node in model.graph.node if node.op_type == "Conv"][-1].input[1]
        weights = next(tensor for tensor in model.graph.initializer if tensor.name == last)
        values = onnx.numpy_helper.to_array(weights)[::-1].copy()
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        return model

    monkeypatch.setattr(Source, "graph", build_wrong)
    with pytest.raises(ExportError, match=r"model\.onnx was not written: it agrees with torch on"):
        export_onnx(tiny_checkpoint, tmp_path / "model.onnx", SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_requests_that_cannot_work(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="multiple of 16"):
        export_onnx(tiny_checkpoint, out, replace(SETTINGS, size=100))
    with pytest.raises(ExportError, match="folder of"):
        export_onnx(tiny_checkpoint, tmp_path / "gone" / "model.onnx", SETTINGS)
    with pytest.raises(EngineError, match="--heads 9"):
        export_onnx(tiny_checkpoint, out, replace(SETTINGS, variant=Variant("ema", "9")))
    (tmp_path / "foreign.pt").write_bytes(b"")
    torch.save({"model": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of salakseg"):
        export_onnx(tmp_path / "foreign.pt", out, SETTINGS)
    with pytest.raises(ExportError, match="name a file in it"):
        export_onnx(tiny_checkpoint, tmp_path, SETTINGS)
    out.write_text("mine")
    with pytest.raises(ExportError, match="--overwrite"):
        export_onnx(tiny_checkpoint, out, SETTINGS)
    assert out.read_text() == "mine"


def test_a_folder_that_cannot_be_written_to(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salakseg.export.onnx.may_write", lambda _: False)  # root may write anywhere
    with pytest.raises(ExportError, match="cannot be written to"):
        export_onnx(tiny_checkpoint, tmp_path / "model.onnx", SETTINGS)


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


def test_heads_that_are_no_name_are_refused_before_a_file_is_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(EngineError, match="--heads 1/3 is none of"):
        cached_onnx(tiny_checkpoint, TILE, heads="1/3")


def test_patches_of_a_folder_that_one_may_not_look_into_are_not_at_hand(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that somebody else has trained; root may look everywhere."""

    def forbidden(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    checkpoint = replace(load_checkpoint(tiny_checkpoint), data_root=str(tmp_path / "theirs"))
    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert open_run_data(checkpoint, None) is None


def test_weights_beside_an_onnx_file_count(tmp_path: Path) -> None:
    path, beside = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    path.write_bytes(b"graph")
    alone = sha256_of(path)
    beside.write_bytes(b"weights")
    first = sha256_of(path)
    beside.write_bytes(b"others!")
    assert len({alone, first, sha256_of(path)}) == 3


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
    told = read_onnx(path).metadata
    told["salakseg.versions"]["exported"]["salakseg"] = "0.0.1"  # which may have converted otherwise
    edit(path, path, metadata=told)
    assert cached_onnx(checkpoint, TILE) == (path, True)


def test_nowhere_to_keep_a_converted_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr("salakseg.export.cache.may_write", lambda _: False)
    with pytest.raises(ExportError, match=r"neither .* nor .* can be written to; export it with `salakseg export`"):
        cached_onnx(tiny_checkpoint, TILE)


def test_a_wrong_confidence_is_found_out(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Deployed.forward

    def wrong(self: Deployed, image_BCHW: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        prob, confidence = real(self, image_BCHW)
        return prob, confidence * 0.9

    monkeypatch.setattr(Deployed, "forward", wrong)
    monkeypatch.setattr("salakseg.export.source.build_graph", build_graph)  # none that was remembered
    with pytest.raises(ExportError, match=r"a probability differs by 0\.\d+ from torch's, 0\.001 is allowed"):
        export_onnx(tiny_checkpoint, tmp_path / "model.onnx", replace(SETTINGS, outputs="prob+confidence"), quick=True)


def test_the_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = command("export", tiny_checkpoint, "--out", tmp_path / "model.onnx", "--size", TILE, "--no-sidecars")
    told = " ".join(done.stderr.split())
    assert "nodes; agrees with torch on 100.0000 %" in told
    assert "mIoU without background" in told
    assert "better with --size 128" in told
    assert OnnxEngine(tmp_path / "model.onnx").tile == TILE
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    done = command("export", tiny_checkpoint, "--out", tmp_path / "model.onnx", "--size", 100, status=1)
    command("export", tiny_checkpoint, status=2)
    command("export", tiny_checkpoint, "--out", tmp_path / "d.onnx", "--size", TILE, "--dynamic", status=2)


@pytest.mark.parametrize("name", ["ckpt.pt", "model", "model.tif"])
def test_the_file_is_named_as_what_it_is(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """A slip of the hand must not turn the checkpoint itself into its export."""
    path = tmp_path / "ckpt.pt"
    path.write_bytes(tiny_checkpoint.read_bytes())
    with pytest.raises(ExportError, match=r"ends in \.onnx"):
        export_onnx(path, tmp_path / name, SETTINGS, overwrite=True)
    assert path.read_bytes() == tiny_checkpoint.read_bytes()


def test_an_enormous_size_is_refused_at_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at most 4096"):
        export_onnx(tiny_checkpoint, tmp_path / "model.onnx", replace(SETTINGS, size=16_000_000))


def test_whether_a_folder_may_be_written_to_is_tried(tmp_path: Path) -> None:
    assert may_write(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not may_write(tmp_path / "missing")
