"""Which models, on which device: from the flags to something that can be opened, here or on a cluster."""

from pathlib import Path

from salakseg.cli.choices import MapDevice
from salakseg.cli.console import say
from salakseg.cli.model_paths import checkpoint_at
from salakseg.errors import EngineError
from salakseg.network.bundle import MODEL
from salakseg.network.metadata import Told
from salakseg.network.opening import EngineSpec, ModelFile
from salakseg.network.processor import usable_cores
from salakseg.network.variant import Weights
from salakseg.starter import LIMITS, starter_model
from salakseg.starter import NAME as STARTER


def choose_models(
    models: list[Path] | None,
    device: MapDevice,
    *,
    tile: int | None,
    weights: Weights | None,
    heads: str | None,
    tta: bool,
    workers: int | None = None,
    told: Told | None = None,
) -> EngineSpec:
    """ONNX Runtime for ONNX files and for any model on a CPU, torch for a checkpoint on a GPU.

    Args:
        models: Files, or folders of bundles or runs; None for the best checkpoint of the newest run, or where there is
            no run, the starter model.
        device: Where to compute.
        tile: Side of the tiles, pixels; None for the one that suits the model.
        weights: Which weights of a checkpoint; None for what it prefers.
        heads: How a checkpoint's heads are combined; None for what it prefers.
        tta: Whether to average over the eight flips and turns.
        workers: Processes that share this machine's cores; None for one.
        told: What the user says of an ONNX file that says nothing of itself.

    Raises:
        EngineError: A file is no model, or a flag does not suit it.
        CheckpointError: A checkpoint cannot be used.
        ProjectError: The project file cannot be read.
    """
    if not models:
        from salakseg.project import load_project

        newest = load_project().newest_best_or_none()
        models = [newest or starter_model()]
        say(f"newest run: {newest}" if newest else f"no run yet, so this is {LIMITS}")
    asked = weights is not None or heads is not None or tile is not None
    files = [_named(checkpoint_at(path), asked) for path in models]
    for file in files:
        _check(file.path, weights, heads)
    where = _device([file.path for file in files], device)
    opened = tuple(_as_file(file, where, tile, weights, heads) for file in files)
    spec = EngineSpec(opened, where, tile, weights, heads, tta, _threads(workers), told or Told())
    if where != device.value and device is not MapDevice.auto:
        say(f"attention: {device.value} cannot be used, the map is made on {where}.")
    return spec


def _named(path: Path, asked: bool) -> ModelFile:
    """A model under the name that the user gave it; of a bundle its ONNX file, or itself if that cannot do it."""
    if not path.is_dir():
        return ModelFile(path, path.name)
    name = STARTER if path == starter_model() else path.resolve().name
    return ModelFile(path, name) if asked else ModelFile(path / MODEL, f"{name}/{MODEL}")


def _check(path: Path, weights: Weights | None, heads: str | None) -> None:
    if path.is_dir():
        return
    if path.suffix.lower() not in (".pt", ".pth", ".onnx"):
        raise EngineError(f"{path} is neither a checkpoint (.pt) nor an exported model (.onnx).")
    if not path.is_file():
        raise EngineError(f"{path} does not exist; name a checkpoint (.pt) or an exported model (.onnx) by --model.")
    if path.suffix.lower() == ".onnx" and (weights is not None or heads is not None):
        raise EngineError(f"{path} has one set of weights and heads; --weights and --heads need the checkpoint (.pt).")


def _device(models: list[Path], device: MapDevice) -> str:
    """The device that will be used: a GPU where there is one, or where the user insists."""
    if device in (MapDevice.cpu, MapDevice.tensorrt):
        return device.value
    from salakseg.network.sessions import nvidia_driver_present  # brings ONNX Runtime along

    if all(path.suffix.lower() == ".onnx" for path in models):
        if device is not MapDevice.auto:
            return device.value
        return "cuda" if nvidia_driver_present() else "cpu"
    if device is MapDevice.auto and not nvidia_driver_present():
        return "cpu"  # without importing torch, which takes seconds
    from salakseg.network.device import pick_device

    return pick_device(device.value)


def _as_file(file: ModelFile, device: str, tile: int | None, weights: Weights | None, heads: str | None) -> ModelFile:
    if file.path.suffix.lower() == ".onnx" or device in ("cuda", "mps"):
        return file
    from salakseg.export.cache import cached_onnx

    converted, made = cached_onnx(file.path, tile, weights, heads)
    if made:
        say(f"converted once for ONNX Runtime: {converted}")
    return ModelFile(converted, file.name)


def _threads(workers: int | None) -> int:
    return 0 if workers is None else max(1, usable_cores() // workers)
