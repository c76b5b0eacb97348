"""From model files to an engine that is ready to run, here or on a worker of a cluster."""

from dataclasses import dataclass
from pathlib import Path

from salakseg.errors import EngineError
from salakseg.network.combine import MeanEngine, TurnedEngine
from salakseg.network.digest import sha256_of
from salakseg.network.engine import Engine
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.variant import Weights


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that can be opened.

    Attributes:
        path: An ONNX file, or a checkpoint to be run by torch.
        name: What it is called in messages and in the map's tags.
        sha256: Digest that the file must have; None accepts any.
    """

    path: Path
    name: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How an engine is to be opened, in plain values that can be sent to another machine.

    Attributes:
        models: The files; several are averaged.
        device: "cpu", "cuda", "mps" or "tensorrt".
        tile: Side of the tiles for checkpoints, pixels, None for the one that suits; an ONNX file has its own.
        weights: Which weights of a checkpoint; None for what it prefers.
        heads: How a checkpoint's heads are combined, see `WAYS`; None for what it prefers.
        tta: Whether to average over the eight flips and turns.
        threads: Threads of ONNX Runtime on a CPU; 0 for one a core.
    """

    models: tuple[ModelFile, ...]
    device: str = "cpu"
    tile: int | None = None
    weights: Weights | None = None
    heads: str | None = None
    tta: bool = False
    threads: int = 0


def open_engine(spec: EngineSpec) -> Engine:
    """Opens the models and combines them.

    Raises:
        EngineError: A file is no model, or the models do not go together.
        CheckpointError: A checkpoint cannot be used.
    """
    engines = [_open(spec, model) for model in spec.models]
    engine = engines[0] if len(engines) == 1 else MeanEngine(engines)
    return TurnedEngine(engine) if spec.tta else engine


def slower_than_wanted(spec: EngineSpec, engine: Engine) -> str | None:
    """A sentence for the user if ONNX Runtime silently uses another provider than asked for; else None."""
    provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}.get(spec.device)
    if provider is None or "ExecutionProvider" not in engine.runs_on or provider in engine.runs_on:
        return None
    return (
        f"ONNX Runtime cannot use {spec.device} and runs on {engine.runs_on}; install the onnxruntime-gpu that fits "
        "the NVIDIA driver and CUDA of this machine, or choose --device cpu."
    )


def _open(spec: EngineSpec, model: ModelFile) -> Engine:
    if model.sha256 is not None and sha256_of(model.path) != model.sha256:
        raise EngineError(f"{model.path} is another file here than where the mapping was started; copy it over.")
    if model.path.suffix.lower() == ".onnx":
        if spec.device == "mps":
            raise EngineError(f"{model.name} is an ONNX file and runs on the CPU or on CUDA; leave --device mps out.")
        return OnnxEngine(model.path, spec.device, spec.threads, model.name)
    from salakseg.network.torch_engine import TorchEngine  # torch is not needed for ONNX files

    return TorchEngine(model.path, spec.device, spec.tile, spec.weights, spec.heads)
