"""Small but real inputs that several tests share."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from salakseg.classes import SALAK
from salakseg.cli.main import app

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
"""Real imagery that is not part of the repository; tests that need it skip where it is absent."""

# The smallest network that is still the real one: random weights, small crops.
TINY = [
    "--set", "network.encoder=timm-tf_efficientnet_lite0",
    "--set", "network.encoder_weights=none",
    "--set", "data.crop=32",
    "--set", "data.workers=0",
    "--set", "data.gap=0",
    "--set", "evaluation.every=4",
    "--set", "selftraining.start=2",
    "--batch-size", "2",
    "--warmup-iters", "2",
    "--scale-min", "32",
    "--scale-max", "48",
]  # fmt: skip

Salakseg = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object, cwd: Path | None = None, status: int = 0) -> Any:
    """Runs a command in this process, where torch is loaded already, and checks its exit status."""
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    finally:
        os.chdir(before)
    if done.exit_code != status:
        raise AssertionError(f"status {done.exit_code}: {done.output}") from done.exception
    return done


def textured_patch(label_HW: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """A noisy picture in which every class has its own brightness, so that even a tiny network learns a little."""
    base = np.linspace(20, 235, len(SALAK))[np.minimum(label_HW, len(SALAK) - 1)]
    return np.clip(base[..., None] + generator.normal(0, 12, (*label_HW.shape, 3)), 0, 255).astype(np.uint8)


def write_patch(root: Path, folder: str, name: str, label_HW: NDArray[np.uint8], labelled: bool, seed: int = 0) -> None:
    """Writes one patch and, if it is labelled, its mask."""
    images, masks = root / folder / "images", root / folder / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(exist_ok=True)
    generator = np.random.default_rng([seed, *name.encode()])
    Image.fromarray(textured_patch(label_HW, generator)).save(images / name)
    if labelled:
        Image.fromarray(label_HW).save(masks / name)


def write_plantation(root: Path, photos: int = 12, side: int = 48) -> Path:
    """Two folders in the field layout: the first labelled throughout, of the second one photo in three."""
    generator = np.random.default_rng(3)
    for folder in ("salak-1-1", "salak-1-2"):
        for number in range(photos):
            label_HW = np.repeat(np.repeat(generator.integers(0, 7, (4, 4)), side // 4, 0), side // 4, 1).astype(
                np.uint8
            )
            labelled = folder == "salak-1-1" or number % 3 == 0
            write_patch(root, folder, f"DJI_{460 + number:04d}_patch_000_000.png", label_HW, labelled)
    return root
