"""Small but real inputs that several tests share."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rasterio
from affine import Affine
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rasterio.enums import ColorInterp
from scipy import ndimage
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


def write_tiny_onnx(path: Path, tile: int, gsd_m: float | None = None) -> Path:
    """A small real model: the salak classes by the brightness around a pixel, as salakseg exports models."""
    brightness = np.full((1, 3, 5, 5), 1 / 75, np.float32)
    steps = np.linspace(-2, 2, len(SALAK), dtype=np.float32)
    image: list[str | int | None] = ["batch", 3, tile, tile]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "mean"], ["brightness"], pads=[2, 2, 2, 2]),
            # logits -4 (b - s)^2 without their common part -4 b^2: linear in b
            helper.make_node("Conv", ["brightness", "slope", "offset"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [image[0], len(SALAK), *image[2:]])],
        [
            numpy_helper.from_array(brightness, "mean"),
            numpy_helper.from_array((8 * steps).reshape(-1, 1, 1, 1), "slope"),
            numpy_helper.from_array(-4 * steps**2, "offset"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    about = {
        "salakseg.classes": SALAK.to_records(),
        "salakseg.normalisation": {"scale": 255, "mean": [0.5] * 3, "std": [0.25] * 3},
        "salakseg.gsd_m": gsd_m,
    }
    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.save(model, path)
    return path


def write_scene(path: Path, height: int, width: int) -> Path:
    """A georeferenced picture of soft blotches, transparent beyond an ellipse, 5 cm a pixel."""
    soft = ndimage.gaussian_filter(np.random.default_rng(7).normal(size=(height, width)), 9)
    grey = (127.5 + 55 * soft / soft.std()).clip(0, 255)
    noise = np.random.default_rng(8).normal(0, 6, (3, height, width))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    alpha = np.where(x**2 + y**2 < 1.4, 255, 0)
    bands = np.concatenate([(grey + noise).clip(0, 255), alpha[None]]).astype(np.uint8)
    transform = Affine(0.05, 0, 431000, 0, -0.05, 9154000)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=height, width=width, dtype="uint8", crs="EPSG:32749",
        transform=transform, tiled=True, blockxsize=128, blockysize=128, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        dataset.write(bands)
    return path


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
