"""Two processes that train one network, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import write_plantation
from training import records

from salakseg.network.checkpoint import load_checkpoint
from salakseg.network.model import Segmenter
from salakseg.train.parallel import summed

# Nothing random but the order of the patches, which two processes share: whole patches, no dropout (which the other
# decoders and encoders have inside), no own statistics.
STILL = [
    *("--set", "network.architecture=unet", "--set", "network.encoder=resnet18"),
    *("--set", "network.encoder_weights=none"),
    *("--set", "network.head_dropout=[0.0, 0.0, 0.0]", "--set", "optimizer.freeze_batch_norm=true"),
    *("--set", "data.crop=48", "--set", "data.workers=0", "--set", "data.gap=0"),
    *("--set", "augment.mirror=none", "--set", "augment.zoom_min=1.0", "--set", "augment.zoom_max=1.0"),
    # Losses that are plain means over all pixels
    *("--set", "loss.class_weights=none", "--set", "loss.dice=0.0", "--set", "loss.focal=0.0"),
    *("--set", "selftraining.loss=ce", "--set", "selftraining.normalise=valid"),
    *("--set", "selftraining.keep=share"),  # whose histograms need the answers of both
    *("--set", "evaluation.every=2", "--no-multi-scale", "--warmup-iters", "2"),
    *("--set", "selftraining.start=2", "--set", "optimizer.learning_rate=0.001", "--num-steps", "4"),
]


def train(processes: int, data: Path, run: Path, *more: object) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    words = [sys.executable, *launcher, "-m", "salakseg", "train", "--recipe", "v3", "--data-root", data]
    words += ["--checkpoint-dir", run, "--device", "cpu", *more]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_doubled_batch(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    alone = train(1, data, tmp_path / "alone", *STILL, "--batch-size", 4)
    assert alone.returncode == 0, alone.stderr
    together = train(2, data, tmp_path / "together", *STILL, "--batch-size", 2)
    assert together.returncode == 0, together.stderr
    one, two = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("alone", "together"))
    torch.manual_seed(0)
    start = Segmenter(one.network, len(one.classes)).state_dict()
    floats = [name for name, value in start.items() if value.is_floating_point()]
    moved, apart = (
        torch.cat([(own[name] - other[name]).flatten() for name in floats]).norm()
        for own, other in ((one.student, start), (two.student, one.student))
    )
    assert float(moved) > 0
    assert float(apart) < 5e-3 * float(moved)  # rounding; half of a gradient missing would be a hundred times that
    assert two.evaluation["patches"] == one.evaluation["patches"]
    for own, other in zip(records(tmp_path / "together", "val"), records(tmp_path / "alone", "val"), strict=True):
        assert own["miou_without_background"] == pytest.approx(other["miou_without_background"], abs=1e-3)
    own_steps, other_steps = (records(tmp_path / name, "train")[-1] for name in ("together", "alone"))
    for name in ("loss", "loss_sup", "loss_unsup", "kept_share"):
        assert own_steps[name] == pytest.approx(other_steps[name], rel=1e-4)
    learned, both_learned = (network.training["labeller"]["histogram"] for network in (one, two))
    assert float(learned.sum()) > 0
    assert float((learned - both_learned).abs().sum()) < 0.05 * float(learned.sum())  # half of it, if each had its own
    assert own_steps["pseudo_pixels"] == other_steps["pseudo_pixels"]
    assert together.stderr.count("best so far") == alone.stderr.count("best so far")  # one process speaks
    assert len(list((tmp_path / "together" / "tensorboard").iterdir())) == 1


def test_one_process_sums_without_its_device() -> None:
    """A Mac's GPU has no float64, which losses are added up in; nor has this one anything at all."""
    alone = SimpleNamespace(world_size=1, device=torch.device("meta"))
    counts = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert torch.equal(summed(counts, alone), counts)  # type: ignore[arg-type]
