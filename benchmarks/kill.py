"""A run of 300 iterations that is killed by SIGKILL at random moments, and resumed, against one that is not.

    python benchmarks/kill.py [--kills 10] [--iterations 300] [--workers 1] [--seed 0]

Trains the smallest real network on a small synthetic folder once without interruption, and once in processes that this
one kills at moments drawn at random; each is followed by a bare ``salakseg train --resume``. In the end weights, moving
average, optimizer and evaluations must be the same to the bit. Exit status 1 if they are not, or fewer kills met a
running process than asked for.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from salakseg.network.checkpoint import load_checkpoint

SETTINGS = {
    "network.encoder": "timm-tf_efficientnet_lite0",
    "network.encoder_weights": "none",
    "data.crop": 32,
    "data.gap": 0,
    "data.batch_size": 2,
    "evaluation.every": 25,
    "evaluation.save_every": 5,
    "evaluation.patience": 1000,
    "selftraining.start": 20,
    "augment.multi_scale": "false",
    "schedule.warmup": 10,
}
"""The smallest network that is still the real one, with dropout, self-training and a moving average."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        number: From 1 on.
        after_s: Seconds after the process was started.
        reached: Step of the newest checkpoint then, None if there was none.
        half_written: Whether a checkpoint was being written.
    """

    number: int
    after_s: float
    reached: int | None
    half_written: bool


def write_patches(root: Path, photos: int = 12, side: int = 48) -> None:
    """Noisy pictures of a few colours, half of them with a mask."""
    generator = np.random.default_rng(3)
    for folder in ("one", "two"):
        for name in ("images", "masks"):
            (root / folder / name).mkdir(parents=True)
        for photo in range(photos):
            label_HW = generator.integers(0, 7, (4, 4)).repeat(side // 4, 0).repeat(side // 4, 1).astype(np.uint8)
            image_HWC = label_HW[..., None] * 30 + generator.integers(0, 40, (side, side, 3))
            file = f"DJI_{photo:04d}_patch_000_000.png"
            Image.fromarray(image_HWC.astype(np.uint8)).save(root / folder / "images" / file)
            if folder == "one" or photo % 3 == 0:
                Image.fromarray(label_HW).save(root / folder / "masks" / file)


def first_command(project: Path, run: str, iterations: int, workers: int) -> list[str]:
    """The command that begins a run."""
    settings = {**SETTINGS, "schedule.iterations": iterations, "data.workers": workers}
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = [sys.executable, "-m", "salakseg", "train", "--recipe", "v3", "--data-root", str(project / "patches")]
    return [*words, "--checkpoint-dir", str(project / "runs" / run), "--device", "cpu", *flags]


def time_unbroken(project: Path, iterations: int, workers: int) -> tuple[float, float]:
    """Does the run without interruption; seconds until its first checkpoint, and from there to its end."""
    began = project / "runs" / "unbroken" / "checkpoints" / "last.pt"
    start = time.monotonic()
    command = first_command(project, "unbroken", iterations, workers)
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        first = start
        while process.poll() is None and not began.exists():
            first = time.monotonic()
            time.sleep(0.01)
        _, said = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return first - start, time.monotonic() - first


def kill_at_random(
    project: Path, run: str, iterations: int, workers: int, kills: int, longest_s: float, generator: np.random.Generator
) -> Iterator[Kill]:
    """Begins a run, and kills and resumes it until it has been killed so often; then lets it end."""
    last = project / "runs" / run / "checkpoints" / "last.pt"
    done = 0
    while True:
        # A bare --resume, except where the run was killed before it had anything to go on from
        words = [sys.executable, "-m", "salakseg", "train", "--resume"]
        is_begun = last.exists() or last.with_name("previous.pt").exists()
        command = words if is_begun else first_command(project, run, iterations, workers)
        with subprocess.Popen(
            command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            wait = float(generator.uniform(0, longest_s)) if done < kills else 3600.0
            try:
                _, said = process.communicate(timeout=wait)
                if process.returncode != 0:
                    raise SystemExit(f"{' '.join(command)} failed:\n{said}")
                return
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        done += 1
        reached = load_checkpoint(last, lazily=True).iteration if last.exists() else None
        yield Kill(done, wait, reached, any(last.parent.glob(".*")))
        if reached == iterations:  # killed while it ended: there is nothing to go on with
            return


def same(one: object, other: object) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def compare(unbroken: Path, broken: Path) -> dict[str, bool]:
    """What of two finished runs is the same."""
    one, other = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (unbroken, broken))
    best = [load_checkpoint(run / "checkpoints" / "best.pt") for run in (unbroken, broken)]

    def evaluations(run: Path) -> list[dict[str, Any]]:
        lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["kind"] == "val"]

    return {
        "iteration": one.iteration == other.iteration,
        "weights of the student": same(one.student, other.student),
        "weights of the moving average": same(one.ema, other.ema),
        "optimizer, labeller and random states": same(one.training, other.training),
        "history in the checkpoint": one.history == other.history,
        "evaluations in metrics.jsonl": evaluations(unbroken) == evaluations(broken),
        "best.pt": same(best[0].ema, best[1].ema) and best[0].iteration == best[1].iteration,
    }


def main() -> int:
    """Prints a line a kill and what is the same in the end; the exit status says whether everything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        write_patches(project / "patches")
        (project / "salakseg.toml").write_text('data_root = "patches"\n', encoding="utf-8")
        starting, training = time_unbroken(project, asked.iterations, asked.workers)
        print(
            f"unbroken: {starting:.0f} s to start, {training:.0f} s for {asked.iterations} iterations, "
            f"{asked.workers} worker(s)\n",
            flush=True,
        )
        # While it starts and while it trains, and never so late that the run is over before it was killed often enough
        longest = starting + training / asked.kills
        print("| kill | after (s) | newest checkpoint | a checkpoint was being written |\n|---|---|---|---|")
        generator = np.random.default_rng(asked.seed)
        killed = 0
        for kill in kill_at_random(project, "broken", asked.iterations, asked.workers, asked.kills, longest, generator):
            killed += 1
            reached = "none" if kill.reached is None else f"step {kill.reached}"
            print(
                f"| {kill.number} | {kill.after_s:.2f} | {reached} | {'yes' if kill.half_written else 'no'} |",
                flush=True,
            )
        result = compare(project / "runs" / "unbroken", project / "runs" / "broken")
    print("\n| the same to the bit | |\n|---|---|")
    for name, equal in result.items():
        print(f"| {name} | {'yes' if equal else 'NO'} |")
    print(f"\nkilled {killed} of {asked.kills} times")
    return 0 if all(result.values()) and killed == asked.kills else 1


if __name__ == "__main__":
    sys.exit(main())
