"""Several heads together: every way beside a plain computation, votes with ties, and what a checkpoint prefers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import command
from numpy.typing import NDArray

from salakseg.errors import CheckpointError, EngineError
from salakseg.evaluate.variants import TURNS, Opinions, TurnedMean, predictions, turn, turn_back, ways_of
from salakseg.export.cache import cached_onnx
from salakseg.export.onnx import export_onnx
from salakseg.export.settings import ExportSettings
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.heads import Logits, combine_heads
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.torch_engine import TorchEngine
from salakseg.network.variant import WAYS, Variant


def some_logits(heads: int = 3, classes: int = 4, spread: float = 2.0) -> Logits:
    values = spread * torch.randn(2, heads, classes, 9, 7, generator=torch.Generator().manual_seed(heads))
    return Logits(values, values.mean(dim=1))


def softmax(values: NDArray[Any], axis: int) -> NDArray[Any]:
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    shares: NDArray[Any] = powers / powers.sum(axis=axis, keepdims=True)
    return shares


@pytest.mark.parametrize("heads", [1, 3, 4, 10])
def test_every_way_beside_a_plain_computation(heads: int) -> None:
    logits = some_logits(heads)
    values = logits.heads_BNKHW.numpy().astype(np.float64)
    prob = softmax(values, 2).mean(axis=1)
    np.testing.assert_allclose(combine_heads(logits, "mean"), softmax(values.mean(axis=1), 1), atol=1e-6)
    np.testing.assert_allclose(combine_heads(logits, "prob"), prob, atol=1e-6)
    np.testing.assert_allclose(combine_heads(logits, str(heads)), softmax(values[:, -1], 1), atol=1e-6)
    np.testing.assert_allclose(combine_heads(logits, "mean", 2.5), softmax(values.mean(axis=1) / 2.5, 1), atol=1e-6)
    votes = np.zeros_like(prob)
    for head in range(heads):
        for k in range(prob.shape[1]):
            votes[:, k] += values[:, head].argmax(axis=1) == k
    summed = values.sum(axis=1).argmax(axis=1)
    diverse = votes + heads / 2 * (summed[:, None] == np.arange(prob.shape[1])[None, :, None, None])
    for way, shares, total in (("vote", votes, heads), ("diversenet", diverse, 1.5 * heads)):
        found = combine_heads(logits, way).numpy()
        np.testing.assert_allclose(found, 0.999 * shares / total + 0.001 * prob, atol=1e-6)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
        # whoever has most votes wins; among equals the most probable
        ranked = shares + prob / 1e6
        assert (found.argmax(axis=1) == ranked.argmax(axis=1)).mean() > 0.999


def test_ten_heads_give_the_favourite_five_votes() -> None:
    """The published rule: argmax of the votes of ten heads and five for the argmax of the summed logits."""
    values = torch.full((1, 10, 3, 1, 1), -1.0)
    values[0, :7, 1] = 0.1  # seven heads prefer class 1, by a little
    values[0, 7:, 2] = 9.0  # three prefer class 2, by far: 3 + 5 votes against 7
    logits = Logits(values, values.mean(dim=1))
    assert int(combine_heads(logits, "vote").argmax()) == 1
    assert int(combine_heads(logits, "diversenet").argmax()) == 2


def test_a_tie_does_not_fall_to_background() -> None:
    values = torch.zeros(1, 2, 3, 1, 1)
    values[0, 0, 0], values[0, 1, 2] = 0.1, 4.0  # one vote each, but head 2 is far surer
    assert int(combine_heads(Logits(values, values.mean(dim=1)), "vote").argmax()) == 2


@pytest.mark.parametrize("heads", [1, 3, 10])
def test_predictions_are_the_most_probable_classes(heads: int) -> None:
    logits = some_logits(heads)
    ways = [*WAYS, *(str(head + 1) for head in range(heads))]
    for way, ids in predictions(Opinions.of(logits), ways).items():
        assert ids.dtype == torch.uint8
        assert torch.equal(ids.long(), combine_heads(logits, way).argmax(dim=1)), way


def test_the_table_of_ways() -> None:
    assert [way.text for way in ways_of(1, tta=False)] == ["EMA, mean of the logits", "student, mean of the logits"]
    ways = ways_of(3, tta=True)
    assert len(ways) == len(set(ways)) == 2 * 2 * 7
    assert sum(way.tta for way in ways) == 14


@pytest.mark.parametrize(("turns", "flip"), TURNS)
def test_turning_back_undoes_the_turn(turns: int, flip: bool) -> None:
    image = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert torch.equal(turn_back(turn(image, turns, flip), turns, flip), image)


def test_the_mean_over_turns_of_a_network_that_does_not_mind_is_its_answer() -> None:
    logits = some_logits()
    mean = TurnedMean({"mean": 2.0, "vote": 1.0})
    for turns, flip in TURNS:
        turned = torch.stack([turn(head, turns, flip) for head in logits.heads_BNKHW.unbind(1)], dim=1)
        mean.add(Logits(turned, turned.mean(dim=1)), turns, flip)
    for way, temperature in (("mean", 2.0), ("vote", 1.0)):
        torch.testing.assert_close(mean.probabilities(way), combine_heads(logits, way, temperature))


# ---- what a checkpoint prefers


@pytest.fixture
def preferring(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that prefers the student's probabilities at a temperature."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.variant = Variant("student", "prob", 2.0)
    save_checkpoint(checkpoint, tmp_path / "ckpt.pt")
    return tmp_path / "ckpt.pt"


def test_export_and_both_engines_use_what_the_checkpoint_prefers(preferring: Path, tmp_path: Path) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    by_torch = TorchEngine(preferring, "cpu", 64)
    assert by_torch.identity | {"temperature": "2.0", "weights": "student", "heads": "prob"} == by_torch.identity
    settings = ExportSettings(variant=load_checkpoint(preferring).choose(), size=64)
    exported = export_onnx(preferring, tmp_path / "model.onnx", settings).path
    cached, made = cached_onnx(preferring, 64)
    assert made
    for path in (exported, cached):
        np.testing.assert_allclose(OnnxEngine(path).predict(tiles), by_torch.predict(tiles), atol=1e-4)
    plain = TorchEngine(preferring, "cpu", 64, "ema", "mean")
    assert np.abs(plain.predict(tiles) - by_torch.predict(tiles)).max() > 1e-3
    assert "temperature" not in plain.identity  # it was fitted on another variant


def test_a_default_written_later_is_not_missed_by_the_cache(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    path.write_bytes(tiny_checkpoint.read_bytes())
    _, made = cached_onnx(path, 64)
    assert made and not cached_onnx(path, 64)[1]
    checkpoint = load_checkpoint(path)
    checkpoint.variant = Variant("student", "vote")
    save_checkpoint(checkpoint, path)
    file, made = cached_onnx(path, 64)
    tiles = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    assert made
    np.testing.assert_allclose(OnnxEngine(file).predict(tiles), TorchEngine(path, "cpu", 64).predict(tiles), atol=1e-3)


def test_heads_that_a_checkpoint_does_not_have_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nor one of the 3 heads, 1 to 3\."):
        load_checkpoint(tiny_checkpoint).choose(None, "4")
    done = command("report", tiny_checkpoint, "--heads", "4", "--out", tmp_path / "report", status=1)
    assert "none of mean, prob, vote, diversenet" in done.output


@pytest.mark.parametrize(
    "variant", [{"weights": "teacher", "heads": "mean", "temperature": 1.0}, {"heads": "0"}, {"temperature": 0.0}, 3]
)
def test_an_impossible_variant_in_a_checkpoint_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, variant: object
) -> None:
    content = torch.load(tiny_checkpoint, weights_only=True)
    torch.save(content | {"variant": variant}, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match="is an incomplete checkpoint"):
        load_checkpoint(tmp_path / "ckpt.pt")
