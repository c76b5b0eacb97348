"""The one place where ONNX Runtime sessions are made: its settings, and what to do where it cannot use the GPU.

ONNX Runtime falls back to the CPU without a word, and its list of available providers says only what it was built
with. So a session is made first, then it is asked what it runs on, and only a fallback is looked into.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from salakseg.errors import EngineError, first_line
from salakseg.network.digest import sha256_of
from salakseg.network.processor import usable_cores

try:
    import onnxruntime as ort
    from onnxruntime import InferenceSession, SessionOptions  # an emptied folder can be imported, but holds neither
except ImportError as error:  # two of its packages have overwritten each other's files, or there is none
    raise EngineError(
        f"ONNX Runtime cannot be imported ({error}); install it anew with `pip uninstall onnxruntime onnxruntime-gpu`, "
        "then `pip install onnxruntime-gpu` (or onnxruntime where there is no NVIDIA GPU)."
    ) from error

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""ONNX Runtime's names of the devices that it can fall back from."""

_GPU_PACKAGE = "onnxruntime-gpu"
_CPU_PACKAGE = "onnxruntime"


def open_session(path: Path, device: str = "cpu", threads: int = 0, name: str | None = None) -> InferenceSession:
    """A session for a model file.

    The memory arena stays as ONNX Runtime has it: tiles have one size, so that it does not grow with the raster.

    Args:
        path: The ONNX file.
        device: "cpu"; "cuda" or "tensorrt", which fall to the next slower one where ONNX Runtime cannot use them: see
            `why_not`.
        threads: Threads inside an operator on the CPU; 0 for one on every core that this process may use.
        name: What the model is called in messages; None for the path.

    Raises:
        EngineError: The file is no model that ONNX Runtime can load.
    """
    options = SessionOptions()
    options.intra_op_num_threads = threads or _threads()
    options.log_severity_level = 4  # what fails comes as an exception
    try:
        with _quiet() if device in PROVIDERS else contextlib.nullcontext():
            return InferenceSession(str(path), options, providers=_providers(path, device))
    # ONNX Runtime's exceptions share no base but Exception
    except Exception as error:
        raise EngineError(
            f"{name or path} is no model that ONNX Runtime can load ({first_line(error)}); export it anew."
        ) from error


def why_not(device: str, provider: str) -> str | None:
    """A sentence for the user if a session runs on a slower device than was asked for; else None.

    Args:
        device: What was asked for.
        provider: The first of the session's `get_providers`.
    """
    wanted = PROVIDERS.get(device)
    if wanted is None or provider == wanted:
        return None
    return f"ONNX Runtime cannot use {device} and runs on {provider}: {_reason(device, wanted)}"


def runtime_version() -> str:
    """The version of ONNX Runtime."""
    return str(ort.__version__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A fallback is told in our own words: ONNX Runtime logs it, and prints it once more in a frame of stars."""
    ort.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ort.set_default_logger_severity(2)  # as it is at the start


def _providers(path: Path, device: str) -> list[Any]:
    wanted: list[Any] = ["CPUExecutionProvider"]
    if device in PROVIDERS:
        _load_cuda_libraries()
        # The default, EXHAUSTIVE, costs up to a second for every new shape
        wanted.insert(0, ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}))
    if device == "tensorrt":
        wanted.insert(0, ("TensorrtExecutionProvider", {"trt_fp16_enable": True, **_engine_cache(path)}))
    known = ort.get_available_providers()  # of a build without CUDA; ONNX Runtime would warn on stderr
    return [one for one in wanted if (one if isinstance(one, str) else one[0]) in known]


def _engine_cache(path: Path) -> dict[str, Any]:
    """Where TensorRT keeps the engine of a model, which takes minutes to make; nothing where that cannot be written.

    ONNX Runtime knows an engine by the file's name and graph, not by its weights, so each content has a folder of its
    own. It is the user's, not the model's: an engine is code, which a release must not bring along.
    """
    folder = Path.home() / ".cache" / "salakseg" / "tensorrt" / sha256_of(path)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    return {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}


def _load_cuda_libraries() -> None:
    """Finds them beside torch or among the nvidia packages, without importing torch; what is missing is told later."""
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        with contextlib.suppress(OSError, RuntimeError):
            ort.preload_dlls()


def _threads() -> int:
    """0, every physical core, which ONNX Runtime finds itself; else the cores that this process is confined to."""
    usable = usable_cores()
    return usable if usable < (os.cpu_count() or 1) else 0


def _reason(device: str, wanted: str) -> str:
    """Why a device cannot be used, and the remedy, in one clause."""
    if _installed(_CPU_PACKAGE) and _installed(_GPU_PACKAGE):
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; run `pip uninstall "
            "onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`."
        )
    if wanted not in ort.get_available_providers():
        return (
            "the installed package was built without it; run `pip uninstall onnxruntime`, then `pip install "
            "onnxruntime-gpu`, or choose --device cpu."
        )
    if not nvidia_driver_present():
        return "this machine has no NVIDIA driver; install it, or choose --device cpu."
    if device == "tensorrt":
        return "its libraries are missing; install the TensorRT that onnxruntime-gpu was built for, or choose cuda."
    return (
        "its CUDA or cuDNN libraries are missing or of another version; run `pip install "
        "'onnxruntime-gpu[cuda,cudnn]'`, or choose --device cpu."
    )


def nvidia_driver_present() -> bool:
    """Whether this machine has an NVIDIA driver, without importing torch."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
