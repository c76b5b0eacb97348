"""Inference with ONNX Runtime. torch is never imported here, so that a map needs no training stack in memory."""

import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.errors import EngineError
from salakseg.network.digest import sha256_of

_NEEDED = ("salakseg.classes", "salakseg.normalisation")


class OnnxEngine:
    """A model file that ``salakseg export`` wrote.

    Args:
        path: ONNX file with salakseg's metadata.
        device: "cpu"; "cuda" or "tensorrt", which fall to the next slower one where ONNX Runtime cannot use them.
        threads: Threads inside an operator; 0 lets ONNX Runtime take every core.
        name: What the model is called in messages; None for the file's name.

    Raises:
        EngineError: The file is missing, no ONNX model, or without the metadata that say how to use it.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 0, name: str | None = None) -> None:
        if not path.is_file():
            raise EngineError(f"{path} does not exist; make it with `salakseg export ckpt.pt --out {path.name}`.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        wanted: list[Any] = ["CPUExecutionProvider"]
        if device in ("cuda", "tensorrt"):
            ort.preload_dlls(directory="")  # finds the CUDA libraries among the installed packages, without torch
            wanted.insert(0, ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}))
        if device == "tensorrt":
            cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(path.parent)}
            wanted.insert(0, ("TensorrtExecutionProvider", {"trt_fp16_enable": True, **cache}))
        try:
            self._session = ort.InferenceSession(str(path), options, providers=wanted)
        # ONNX Runtime's exceptions share no base but Exception
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise EngineError(f"{path} is no model that ONNX Runtime can load ({reason}); export it anew.") from error
        self._name = name or path.name
        self._path = path
        self._read_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        self._input = self._session.get_inputs()[0].name

    def _read_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        if any(key not in metadata for key in _NEEDED):
            raise EngineError(
                f"{path} lacks the metadata {' and '.join(_NEEDED)}, so its classes and scaling are unknown; "
                "export it with `salakseg export`."
            )
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int) or shape[2] != shape[3]:
            raise EngineError(
                f"{path} takes an input of shape {shape}, expected [batch, 3, side, side]; export it anew."
            )
        try:
            self._class_map = ClassMap.from_records(json.loads(metadata["salakseg.classes"]), str(path))
            normalisation: dict[str, Any] = json.loads(metadata["salakseg.normalisation"])
            self._mean = _channel(normalisation["mean"])
            self._std = _channel(normalisation["std"])
            gsd = json.loads(metadata.get("salakseg.gsd_m", "null"))
            self._gsd_m = None if gsd is None else float(gsd)
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"{path} has metadata that cannot be read ({error}); export it anew.") from error
        self._tile = int(shape[2])

    @property
    def class_map(self) -> ClassMap:
        """Classes in the order of the probability channels."""
        return self._class_map

    @property
    def tile(self) -> int:
        """Side of the tile in pixels, fixed in the file."""
        return self._tile

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance that the model was trained at, metres a pixel."""
        return self._gsd_m

    @property
    def name(self) -> str:
        """The model file."""
        return self._name

    @cached_property
    def identity(self) -> dict[str, str]:
        """The model and the digest of its file."""
        return {"model": self._name, "model_sha256": sha256_of(self._path)}

    @property
    def runs_on(self) -> str:
        """ONNX Runtime and the provider really in use, which can be the CPU although CUDA was asked for."""
        return f"ONNX Runtime {ort.__version__}, {self._session.get_providers()[0]}"

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of uint8 RGB tiles [B, 3, tile, tile] as float32 [B, K, tile, tile]."""
        scaled = np.multiply(image_BCHW, 1 / (255 * self._std), dtype=np.float32)
        scaled -= self._mean / self._std
        prob: NDArray[np.float32] = self._session.run(None, {self._input: scaled})[0]
        return prob


def nvidia_driver_present() -> bool:
    """Whether this machine has an NVIDIA driver, without importing torch."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def _channel(values: list[float]) -> NDArray[np.float32]:
    channel = np.array(values, dtype=np.float32)
    if channel.shape != (3,):
        raise ValueError(f"expected three values for red, green and blue, got {values}")
    return channel.reshape(1, 3, 1, 1)
