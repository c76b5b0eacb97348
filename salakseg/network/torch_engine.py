"""Inference with torch, for a checkpoint on a GPU."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.network.checkpoint import Weights, load_checkpoint
from salakseg.network.model import normalise


class TorchEngine:
    """A checkpoint, run by torch.

    Args:
        path: Checkpoint of `salakseg train`.
        device: torch device; on CUDA the network runs in bfloat16 or float16 and returns float32.
        tile: Side of the tile in pixels, a multiple of 16.
        weights: "ema" or "student".

    Raises:
        CheckpointError: The file is no checkpoint.
    """

    def __init__(self, path: Path, device: str = "cuda", tile: int = 512, weights: Weights = "ema") -> None:
        checkpoint = load_checkpoint(path)
        self._class_map = checkpoint.class_map
        self._gsd_m = checkpoint.gsd_m
        self._name = path.name
        self._tile = tile
        self._device = torch.device(device)
        self._model = checkpoint.build(weights).to(self._device).to(memory_format=torch.channels_last)
        self._mean, self._std = checkpoint.mean, checkpoint.std
        on_cuda = self._device.type == "cuda"
        native = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        half = torch.bfloat16 if native else torch.float16
        self._autocast = torch.autocast(self._device.type, dtype=half, enabled=on_cuda)

    @property
    def class_map(self) -> ClassMap:
        """Classes in the order of the probability channels."""
        return self._class_map

    @property
    def tile(self) -> int:
        """Side of the tile in pixels."""
        return self._tile

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance that the model was trained at, metres a pixel."""
        return self._gsd_m

    @property
    def name(self) -> str:
        """The checkpoint file."""
        return self._name

    @property
    def runs_on(self) -> str:
        """The version of torch and the device."""
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type
        return f"torch {torch.__version__}, {where}"

    @torch.inference_mode()
    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of uint8 RGB tiles [B, 3, tile, tile] as float32 [B, K, tile, tile]."""
        image = torch.from_numpy(image_BCHW).to(self._device, non_blocking=True)
        image = normalise(image.to(memory_format=torch.channels_last).float() / 255, self._mean, self._std)
        with self._autocast:
            logits = self._model(image).mean_BKHW
        prob: NDArray[np.float32] = logits.float().softmax(dim=1).cpu().numpy()
        return prob
