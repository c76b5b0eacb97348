"""Which models, on which device: from the flags to something that can be opened, here or on a cluster."""

import os
from pathlib import Path

from salakseg.cli.choices import MapDevice
from salakseg.cli.console import say
from salakseg.errors import EngineError
from salakseg.network.opening import EngineSpec, ModelFile
from salakseg.network.variant import Weights


def choose_models(
    models: list[Path] | None,
    device: MapDevice,
    *,
    tile: int | None,
    weights: Weights | None,
    heads: str | None,
    tta: bool,
    workers: int | None = None,
) -> EngineSpec:
    """ONNX Runtime for ONNX files and for any model on a CPU, torch for a checkpoint on a GPU.

    Args:
        models: Files; None for the best checkpoint of the project's newest run.
        device: Where to compute.
        tile: Side of the tiles, pixels; None for the one that suits the checkpoint, or the ONNX file's own.
        weights: Which weights of a checkpoint; None for what it prefers.
        heads: How a checkpoint's heads are combined; None for what it prefers.
        tta: Whether to average over the eight flips and turns.
        workers: Processes that share this machine's cores; None for one.

    Raises:
        EngineError: A file is no model, or a flag does not suit it.
        CheckpointError: A checkpoint cannot be used.
        ProjectError: There is no newest run.
    """
    if not models:
        from salakseg.project import load_project

        models = [load_project().newest_best()]
        say(f"newest run: {models[0]}")
    for path in models:
        _check(path, tile, weights, heads)
    where = _device(models, device)
    files = tuple(_as_file(path, where, tile, weights, heads) for path in models)
    spec = EngineSpec(files, where, tile, weights, heads, tta, _threads(workers))
    if where != device.value and device is not MapDevice.auto:
        say(f"attention: {device.value} cannot be used, the map is made on {where}.")
    return spec


def _check(path: Path, tile: int | None, weights: Weights | None, heads: str | None) -> None:
    if path.suffix.lower() not in (".pt", ".pth", ".onnx"):
        raise EngineError(f"{path} is neither a checkpoint (.pt) nor an exported model (.onnx).")
    if not path.is_file():
        raise EngineError(f"{path} does not exist; name a checkpoint (.pt) or an exported model (.onnx) by --model.")
    if path.suffix.lower() == ".onnx" and (weights is not None or heads is not None):
        raise EngineError(f"{path} has one set of weights and heads; --weights and --heads need the checkpoint (.pt).")
    if path.suffix.lower() == ".onnx" and tile is not None:
        from salakseg.network.onnx_engine import OnnxEngine

        own = OnnxEngine(path).tile
        if own != tile:
            raise EngineError(f"{path} takes tiles of {own} pixels, not {tile}; export it with --size {tile}.")


def _device(models: list[Path], device: MapDevice) -> str:
    """The device that will be used: a GPU where there is one, or where the user insists."""
    if device in (MapDevice.cpu, MapDevice.tensorrt):
        return device.value
    if all(path.suffix.lower() == ".onnx" for path in models):
        from salakseg.network.onnx_engine import nvidia_driver_present

        if device is not MapDevice.auto:
            return device.value
        return "cuda" if nvidia_driver_present() else "cpu"
    from salakseg.network.onnx_engine import nvidia_driver_present

    if device is MapDevice.auto and not nvidia_driver_present():
        return "cpu"  # without importing torch, which takes seconds
    from salakseg.network.device import pick_device

    return pick_device(device.value)


def _as_file(path: Path, device: str, tile: int | None, weights: Weights | None, heads: str | None) -> ModelFile:
    if path.suffix.lower() == ".onnx" or device in ("cuda", "mps"):
        return ModelFile(path, path.name)
    from salakseg.export.cache import cached_onnx

    converted, made = cached_onnx(path, tile, weights, heads)
    if made:
        say(f"converted once for ONNX Runtime: {converted}")
    return ModelFile(converted, path.name)


def _threads(workers: int | None) -> int:
    return 0 if workers is None else max(1, (os.cpu_count() or 1) // workers)
