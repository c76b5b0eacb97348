"""From model files to an engine that is ready to run, here or on a worker of a cluster."""

from dataclasses import dataclass, field
from pathlib import Path

from salakseg.errors import EngineError
from salakseg.network.combine import MeanEngine, TurnedEngine
from salakseg.network.digest import sha256_of
from salakseg.network.engine import Engine
from salakseg.network.metadata import Told
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.processor import int8_weight_bits
from salakseg.network.sessions import PROVIDERS, why_not
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
        tile: Side of the tiles, pixels, None for the one that suits; a static ONNX file has its own.
        weights: Which weights of a checkpoint; None for what it prefers.
        heads: How a checkpoint's heads are combined, see `WAYS`; None for what it prefers.
        tta: Whether to average over the eight flips and turns.
        threads: Threads of ONNX Runtime on a CPU; 0 for one a core.
        told: What the user says of ONNX files that say nothing of themselves.
    """

    models: tuple[ModelFile, ...]
    device: str = "cpu"
    tile: int | None = None
    weights: Weights | None = None
    heads: str | None = None
    tta: bool = False
    threads: int = 0
    told: Told = field(default_factory=Told)


def open_engine(spec: EngineSpec) -> Engine:
    """Opens the models and combines them.

    Raises:
        EngineError: A file is no model, or the models do not go together.
        CheckpointError: A checkpoint cannot be used.
    """
    engines = [_open(spec, model) for model in spec.models]
    if spec.told.anything and not any(isinstance(one, OnnxEngine) and not one.describes_itself for one in engines):
        raise EngineError(
            f"{engines[0].name} says itself how it is used; leave --classes, --input-scale, --mean, --std and --logits "
            "out."
        )
    engine = engines[0] if len(engines) == 1 else MeanEngine(engines)
    return TurnedEngine(engine) if spec.tta else engine


def slower_than_wanted(spec: EngineSpec, engine: Engine) -> str | None:
    """A sentence for the user if ONNX Runtime silently uses another provider than asked for; else None."""
    if spec.device not in PROVIDERS:
        return None
    told = (why_not(spec.device, one.rsplit(", ", 1)[-1]) for one in engine.runs_on.split("; ") if _is_onnx(one))
    return next((reason for reason in told if reason is not None), None)


def _is_onnx(runs_on: str) -> bool:
    return "ExecutionProvider" in runs_on


def overflowing(engine: Engine) -> str | None:
    """A sentence for the user if 8-bit weights overflow on this machine's processor; else None."""
    bits = engine.identity.get("int8_weight_bits", "").split(" + ")
    if "8" not in bits or "CPUExecutionProvider" not in engine.runs_on or int8_weight_bits() == 8:
        return None
    return (
        f"{engine.name} uses all 8 bits of its weights, which overflow on this processor (no VNNI), and the map may be "
        "wrong; export int8 on this machine, or take fp32."
    )


def _open(spec: EngineSpec, model: ModelFile) -> Engine:
    if model.sha256 is not None and sha256_of(model.path) != model.sha256:
        raise EngineError(f"{model.path} is another file here than where the mapping was started; copy it over.")
    if model.path.suffix.lower() == ".onnx":
        if spec.device == "mps":
            raise EngineError(f"{model.name} is an ONNX file and runs on the CPU or on CUDA; leave --device mps out.")
        return OnnxEngine(model.path, spec.device, spec.threads, model.name, spec.tile, spec.told)
    from salakseg.network.torch_engine import TorchEngine  # torch is not needed for ONNX files

    return TorchEngine(model.path, spec.device, spec.tile, spec.weights, spec.heads)
