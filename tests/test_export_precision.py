import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from exports import edit, write_described
from helpers import command
from onnx import TensorProto, helper, numpy_helper

from salakseg.classes import SALAK
from salakseg.data.masks import read_mask
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.splits import Role
from salakseg.errors import ExportError
from salakseg.export.card import model_card
from salakseg.export.compare import Compared, Comparison
from salakseg.export.fold import fold_batch_norm
from salakseg.export.onnx import export_onnx
from salakseg.export.onnx_file import read_onnx
from salakseg.export.parity import Loss, Parity
from salakseg.export.precision import to_half
from salakseg.export.settings import ExportSettings, Precision
from salakseg.export.source import open_source
from salakseg.export.tiles import Tile, open_run_data
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.opening import overflowing
from salakseg.network.processor import int8_weight_bits
from salakseg.network.variant import Variant

TILE = 64
SETTINGS = ExportSettings(variant=Variant(), size=TILE)


# ---- files


def test_half_precision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = export_onnx(tiny_checkpoint, tmp_path / "fp32.onnx", SETTINGS)
    half = export_onnx(tiny_checkpoint, tmp_path / "fp16.onnx", replace(SETTINGS, precision="fp16"))
    assert half.size_mb <= 0.52 * plain.size_mb
    assert half.parity.agreement >= 0.999
    model = onnx.load(half.path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert model.ir_version == 9
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    # the last convolution and all after it decide between classes: nothing is rounded there
    last = [place for place, node in enumerate(model.graph.node) if node.op_type == "Conv"][-1]
    assert "Cast" not in [node.op_type for node in list(model.graph.node)[last:]]
    image = np.random.default_rng(0).integers(0, 256, (3, 3, TILE, TILE), dtype=np.uint8)
    exact, rounded = (OnnxEngine(exported.path).predict(image) for exported in (plain, half))
    np.testing.assert_allclose(rounded, exact, atol=1e-2)


def test_colours_from_0_to_255_are_normalised_in_float32(tiny_checkpoint: Path) -> None:
    model = to_half(open_source(tiny_checkpoint, replace(SETTINGS, normalisation="baked"), None).graph())
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    first = [node.op_type for node in model.graph.node][:3]
    assert first == ["Mul", "Add", "Cast"]
    assert all(weights[node.input[1]] == TensorProto.FLOAT for node in list(model.graph.node)[:2])


def test_integers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported = export_onnx(tiny_checkpoint, tmp_path / "int8.onnx", replace(SETTINGS, precision="int8"))
    assert exported.size_mb < 5  # 15.4 in fp32
    assert exported.parity.loss is not None and exported.parity.loss.points <= 1
    model = onnx.load(exported.path)
    told = read_onnx(exported.path).metadata
    assert told["salakseg.int8_weight_bits"] == int8_weight_bits()
    loss = told["salakseg.parity"]["loss"]
    assert loss["miou_without_background"] == pytest.approx(exported.parity.loss.miou)
    assert set(loss["unjudged"]) | {SALAK.names[int(k)] for k in loss["iou"]} == set(SALAK.names)
    assert OnnxEngine(exported.path).identity["int8_weight_bits"] == str(int8_weight_bits())
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    found = Counter(node.op_type for node in model.graph.node)
    assert found["QuantizeLinear"] and not found["QLinearConv"]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [weights[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert any(len(scale.dims) == 1 and scale.dims[0] > 1 for scale in scales)  # one for each channel
    assert OnnxEngine(exported.path).predict(np.zeros((2, 3, TILE, TILE), np.uint8)).shape == (2, 7, TILE, TILE)


def test_integers_need_data(tiny_checkpoint: Path, tmp_path: Path) -> None:
    wanted = replace(SETTINGS, precision="int8")
    checkpoint = load_checkpoint(tiny_checkpoint)
    root = Path(checkpoint.data_root)
    checkpoint.data_root = ""
    save_checkpoint(checkpoint, tmp_path / "moved.pt")
    with pytest.raises(ExportError, match="not at hand; name the run's patches with --data-root"):
        export_onnx(tmp_path / "moved.pt", tmp_path / "model.onnx", wanted)
    checkpoint.split = [[folder, photo, "labelled"] for folder, photo, _ in checkpoint.split]
    save_checkpoint(checkpoint, tmp_path / "moved.pt")
    with pytest.raises(ExportError, match="judged by its loss of mIoU"):
        export_onnx(tmp_path / "moved.pt", tmp_path / "model.onnx", wanted, data_root=root)
    assert [path.name for path in tmp_path.iterdir()] == ["moved.pt"]


def test_a_file_below_its_gate_is_not_left(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salakseg.export.parity.MAX_MIOU_LOSS", -101.0)
    with pytest.raises(ExportError, match=r"was not written: it loses -?\d+\.\d\d points of mIoU"):
        export_onnx(tiny_checkpoint, tmp_path / "model.onnx", replace(SETTINGS, precision="int8"))
    assert list(tmp_path.iterdir()) == []


def test_the_table_leaves_nothing_behind(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = command("export", tiny_checkpoint, "--compare", "--size", TILE)
    assert all(name in done.stdout for name in ("fp32", "fp16", "int8"))
    assert "recommended here:" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_integers_of_a_newer_processor_are_told(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_described(tmp_path / "int8.onnx", load_checkpoint(tiny_checkpoint), precision="int8")
    for bits, here, told in ((8, 7, True), (8, 8, False), (7, 7, False)):
        edit(path, path, metadata=read_onnx(path).metadata | {"salakseg.int8_weight_bits": bits})
        monkeypatch.setattr("salakseg.network.opening.int8_weight_bits", lambda here=here: here)
        caution = overflowing(OnnxEngine(path))
        assert ("overflow on this processor" in str(caution)) is told
    assert ("uses all 8 bits" in model_card(read_onnx(path).metadata | {"salakseg.int8_weight_bits": 8}, "m")) is True


def test_what_the_file_loses_stands_in_its_card_and_info(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    loss = {"miou_without_background": [0.61, 0.6], "iou": {"1": [0.8, 0.81], "3": [0.5, 0.47]}, "unjudged": ["Tree"]}
    path = write_described(tmp_path / "int8.onnx", checkpoint, precision="int8")
    parity = {"tiles": 24, "agreement": 0.99551, "max_difference": 0.2, "loss": loss, "real": True}
    edit(path, path, metadata=read_onnx(path).metadata | {"salakseg.parity": parity})
    card = model_card(read_onnx(path).metadata, "model")
    assert "| agreement with the network in torch | the same class on 99.5510 % of the pixels of 24 tiles |" in card
    assert (
        f"mIoU without background is 0.6000 where the network's is 0.6100 (-1.00 points; {SALAK.names[3]} -3.00)"
        in card
    )
    assert "Not judged, as no tile shows them: Tree." in card
    told = " ".join(command("info", path).output.split())
    assert "99.5510 % of the pixels agree, mIoU 0.6000 for 0.6100 on 24 val tiles" in told


# ---- gates


def parity(agreement: float, lost: tuple[float, ...] = (), difference: float = 0.0) -> Parity:
    names = tuple("abcd"[: len(lost)])
    before = np.full(len(lost), 0.5)
    loss = Loss(names, tuple(range(len(lost))), before, before - np.array(lost) / 100) if lost else None
    return Parity(1, difference, agreement, loss=loss)


@pytest.mark.parametrize(
    ("precision", "found", "reason"),
    [
        ("fp32", parity(0.99991), None),
        ("fp32", parity(0.99989), "99.989 %"),
        ("fp32", parity(1.0, difference=2e-3), "differs by 0.002 from"),
        ("fp32", parity(1.0, difference=float("nan")), "differs by nan from"),
        ("fp16", parity(0.9991, difference=0.1), None),
        ("fp16", parity(0.9989), "99.9 % are asked"),
        ("int8", parity(1.0), "no labels"),
        ("int8", parity(1.0, (0, 0), difference=float("inf")), "no numbers"),
        ("int8", parity(0.9, (0, 0.9, 0.9, 0.9)), None),
        ("int8", parity(0.9, (0, 1.1, 1.1, 1.1)), "1.10 points of mIoU"),
        ("int8", parity(0.9, (0, 3.1, -1, -1)), "class b loses 3.10 points"),
        ("int8", parity(0.9, (3.1, 0, 0, 0)), "class a loses 3.10 points"),
    ],
)
def test_gates(precision: Precision, found: Parity, reason: str | None) -> None:
    objection = found.objection(precision)
    assert objection is None if reason is None else reason in str(objection)


def row(precision: Precision, milliseconds: float, holds: bool = True) -> Compared:
    return Compared(precision, 1, 1, milliseconds, parity(1.0 if holds else 0.0, (0.0, 0.0 if holds else 9.0)))


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ((row("fp32", 100), row("fp16", 140), row("int8", 50)), "int8"),
        ((row("fp32", 100), row("fp16", 140), row("int8", 50, holds=False)), "fp32"),
        ((row("fp32", 100), row("fp16", 140), row("int8", 95)), "fp32"),
        ((row("fp32", 100), row("fp16", 60), row("int8", 80)), "fp16"),
        ((row("fp32", 100),), "fp32"),
    ],
)
def test_a_precision_is_recommended_only_where_it_gains(rows: tuple[Compared, ...], best: str) -> None:
    comparison = Comparison(rows, {}, real=True)
    assert comparison.recommended == best
    assert best in comparison.advice


# ---- parts


def test_int8_learns_its_ranges_from_no_held_out_patch(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    data = open_run_data(checkpoint, None)
    assert data is not None
    read: set[Patch] = set()
    opened = PatchIndex.image_path

    def watched(index: PatchIndex, patch: Patch) -> Path:
        read.add(patch)
        return opened(index, patch)

    monkeypatch.setattr(PatchIndex, "image_path", watched)
    tiles = data.training_tiles((TILE, TILE), 100)
    allowed = {p for role in (Role.LABELLED, Role.UNLABELLED) for p in data.split.patches(data.index, role)}
    assert tiles and read == allowed


def test_damaged_patches_are_left_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    root = shutil.copytree(checkpoint.data_root, tmp_path / "patches")
    whole = open_run_data(checkpoint, root)
    assert whole is not None
    first = whole.split.patches(whole.index, Role.VAL)[0]
    for path in (whole.index.image_path(first), whole.index.image_path(whole.index.patches[0])):
        path.write_bytes(path.read_bytes()[:100])
    data = open_run_data(checkpoint, root)
    assert data is not None
    assert 0 < len(data.labelled_tiles((16, 16), 10_000)) < 9 * len(data.split.patches(data.index, Role.VAL))
    assert data.plain_tiles((16, 16), 3)


def test_validation_patches_are_laid_out_with_their_labels(tiny_checkpoint: Path) -> None:
    data = open_run_data(load_checkpoint(tiny_checkpoint), None)
    assert data is not None
    patches = data.split.patches(data.index, Role.VAL)
    whole: list[Tile] = data.labelled_tiles((96, 144), 100)  # six patches of 48 in each
    assert len(whole) == -(-len(patches) // 6)
    assert all(tile.image_CHW.shape == (3, 96, 144) and tile.label_HW.shape == (96, 144) for tile in whole)
    assert sum(int((tile.label_HW != 255).sum()) for tile in whole) == 48 * 48 * len(patches)
    cut = data.labelled_tiles((16, 16), 10_000)
    assert len(cut) == 9 * len(patches)
    padded = data.labelled_tiles((64, 64), 100)  # one in each, the rest is filled
    assert {int((tile.label_HW != 255).sum()) for tile in padded} == {48 * 48}


def test_reduced_range_only_without_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    for flags, wanted in (("avx2 fma", 7), ("avx2 avx512_vnni", 8), ("avx2 avx_vnni", 8)):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
        assert int8_weight_bits(tmp_path / "cpuinfo") == wanted
    assert int8_weight_bits(tmp_path / "gone") == 7
    monkeypatch.setattr("sys.platform", "win32")
    assert int8_weight_bits(tmp_path / "cpuinfo") == 7
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert int8_weight_bits(tmp_path / "cpuinfo") == 8


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_norm_is_folded(shared: bool) -> None:
    """Into the convolution; as a line where the convolution is needed without it too."""
    rng = np.random.default_rng(0)
    values = {
        "w": rng.normal(size=(4, 3, 3, 3)), "c": rng.normal(size=4), "gain": rng.normal(size=4),
        "bias": rng.normal(size=4), "mean": rng.normal(size=4), "variance": rng.uniform(0.5, 2, 4),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"], ["y"], name="conv"),
        helper.make_node("BatchNormalization", ["y", "gain", "bias", "mean", "variance"], ["z"], name="norm"),
    ]
    outputs = ["z"]
    if shared:
        nodes.append(helper.make_node("Relu", ["y"], ["r"], name="relu"))
        outputs.append("r")
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 6, 6]) for name in outputs],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    image = {"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}
    expected = onnx.reference.ReferenceEvaluator(model).run(None, image)
    fold_batch_norm(model.graph)
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == (["Conv", "Mul", "Add", "Relu"] if shared else ["Conv"])
    for found, wanted in zip(onnx.reference.ReferenceEvaluator(model).run(None, image), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_tiles_that_are_smaller_than_a_patch_come_from_the_whole_part(tiny_checkpoint: Path) -> None:
    data = open_run_data(load_checkpoint(tiny_checkpoint), None)
    assert data is not None
    patches = data.split.patches(data.index, Role.VAL)
    wanted = [read_mask(data.index.mask_path(patch), data.class_map).label_HW for patch in patches]
    few = data.labelled_tiles((16, 16), len(patches))
    assert len(few) == len(patches) > 1
    for tile, label in zip(few, wanted, strict=True):
        windows = [label[y : y + 16, x : x + 16] for y in (0, 16, 32) for x in (0, 16, 32)]
        assert any(np.array_equal(tile.label_HW, window) for window in windows)
