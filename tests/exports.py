"""Exported files for several tests: small, with real metadata, made without torch where that will do."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rasterio
from affine import Affine
from helpers import write_tiny_onnx
from numpy.typing import NDArray

from salakseg.export.graph import Deployed, build_graph
from salakseg.export.metadata import model_metadata
from salakseg.export.settings import ExportSettings
from salakseg.network.checkpoint import Checkpoint
from salakseg.network.variant import Variant

TILE = 64
MULTIPLE = 16


Build = Callable[[Deployed, ExportSettings, int], onnx.ModelProto]


def built_once(folder: Path) -> Build:
    """`build_graph`, which takes ten seconds and more, but once for the same network, weights and settings.

    Args:
        folder: Where the graphs lie; several processes may share it.
    """

    def build(model: Deployed, settings: ExportSettings, size_multiple: int) -> onnx.ModelProto:
        digest = hashlib.sha256(repr((model, replace(settings, precision="fp32"), size_multiple)).encode())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        path = folder / f"{digest.hexdigest()}.onnx"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            onnx.save(build_graph(model, settings, size_multiple), partial)
            partial.replace(path)
        return onnx.load(path)

    return build


def settings(**changes: Any) -> ExportSettings:
    values: dict[str, Any] = {"variant": Variant(), "size": TILE} | changes
    return ExportSettings(**values)


def metadata_of(checkpoint: Checkpoint, **changes: Any) -> dict[str, Any]:
    texts = model_metadata(checkpoint, settings(**changes), "digest", MULTIPLE)
    return {key: json.loads(text) for key, text in texts.items()}


def edit(path: Path, out: Path, **changes: Any) -> Path:
    """A copy of a model with other metadata, without its softmax, or with other sizes of batch, height and width."""
    model = onnx.load(path)
    if "metadata" in changes:
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in changes["metadata"].items()})
    if changes.get("softmax", True) is False:
        assert model.graph.node[-1].op_type == "Softmax"
        model.graph.node[-2].output[0] = model.graph.node[-1].output[0]
        del model.graph.node[-1]
    for port in (*model.graph.input, *model.graph.output):
        for axis, size in changes.get("sizes", {}).items():
            dimension = port.type.tensor_type.shape.dim[axis]
            dimension.Clear()
            if isinstance(size, int):
                dimension.dim_value = size
            else:
                dimension.dim_param = size
    onnx.save(model, out)
    return out


def write_described(path: Path, checkpoint: Checkpoint, **changes: Any) -> Path:
    """The tiny model with the metadata of an export of a checkpoint."""
    write_tiny_onnx(path, TILE)
    texts = model_metadata(checkpoint, settings(**changes), "digest", MULTIPLE)
    edit(path, path, metadata={key: json.loads(text) for key, text in texts.items()})
    return edit(path, path, sizes={2: "height", 3: "width"}) if "size" in changes else path


def write_tile(path: Path, side: int = TILE, seed: int = 4) -> NDArray[np.uint8]:
    """A georeferenced picture of one tile, three bands, 5 cm a pixel; returns it as [3, side, side]."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(10, 246, (3, side // 8, side // 8)).repeat(8, axis=1).repeat(8, axis=2)
    image_CHW = (coarse + generator.integers(-10, 10, coarse.shape)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", crs="EPSG:32749",
        transform=Affine(0.05, 0, 431000, 0, -0.05, 9154000), photometric="rgb",
    ) as dataset:  # fmt: skip
        dataset.write(image_CHW)
    return image_CHW


def run_without(script: Path, *arguments: object, blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own in which some packages cannot be imported."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        f"sys.argv = {[str(script), *map(str, arguments)]!r}; runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=300)
