"""Inference with torch, for a checkpoint on a GPU."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.errors import EngineError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.device import empty_cache, is_out_of_memory
from salakseg.network.digest import sha256_of
from salakseg.network.heads import Logits, combine_heads
from salakseg.network.model import normalise
from salakseg.network.variant import Weights

T = TypeVar("T")


class TorchEngine:
    """A checkpoint, run by torch.

    Args:
        path: Checkpoint of `salakseg train`.
        device: torch device; on CUDA the network runs in bfloat16 or float16 and returns float32.
        tile: Side of the tile in pixels, a multiple of 16; None for the one that suits the network.
        weights: "ema" or "student"; None for what the checkpoint prefers.
        heads: See `combine_heads`; None for what the checkpoint prefers.

    Raises:
        CheckpointError: The file is no checkpoint.
        EngineError: The network has no such head, or the tile does not suit it.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cuda",
        tile: int | None = None,
        weights: Weights | None = None,
        heads: str | None = None,
    ) -> None:
        checkpoint, self._sha256 = _load(path)
        self._class_map = checkpoint.class_map
        self._gsd_m = checkpoint.gsd_m
        self._path = path if path.name else path.resolve()  # a bundle may be named "."
        self._tile = tile or checkpoint.default_tile
        self._variant = checkpoint.choose(weights, heads)
        self._device = torch.device(device)
        self._model = checkpoint.build(self._variant.weights).to(self._device).to(memory_format=torch.channels_last)
        self._mean, self._std = checkpoint.mean, checkpoint.std
        evaluation = checkpoint.evaluation
        self._matrix = np.array(evaluation["matrix"], np.int64) if evaluation else None
        on_cuda = self._device.type == "cuda"
        native = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        half = torch.bfloat16 if native else torch.float16
        if self._tile % self._model.size_multiple:
            raise EngineError(f"--tile {tile} does not suit {path}; take a multiple of {self._model.size_multiple}.")
        self._pinned: torch.Tensor | None = None
        self._most: int | None = None
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
        return self._path.name

    @cached_property
    def identity(self) -> dict[str, str]:
        """The checkpoint and its digest, which weights and which heads, and the temperature if there is one."""
        about = {name: str(value) for name, value in self._variant.to_dict().items()}
        if self._variant.temperature == 1:
            del about["temperature"]
        return {"model": self._path.name, "model_sha256": self._sha256, **about}

    @property
    def runs_on(self) -> str:
        """The version of torch and the device."""
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type
        return f"torch {torch.__version__}, {where}"

    @property
    def validation_matrix(self) -> NDArray[np.int64] | None:
        """Confusion matrix [K, K] of the checkpoint's own validation, rows = truth; None if it was never validated."""
        return self._matrix

    @property
    def channels(self) -> int:
        """Channels of the encoder's last map."""
        return int(self._model.encoder.out_channels[-1])  # type: ignore[index]

    @torch.inference_mode()
    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of uint8 RGB tiles [B, 3, tile, tile] as float32 [B, K, tile, tile].

        Raises:
            EngineError: The device's memory does not hold a single tile.
        """

        def answer(image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            full = self._answer(image_BCHW)
            prob: NDArray[np.float32] = (
                combine_heads(full, self._variant.heads, self._variant.temperature).cpu().numpy()
            )
            return prob

        parts = self._in_parts(image_BCHW, answer)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @torch.inference_mode()
    def inspect(self, image_BCHW: NDArray[np.uint8]) -> tuple[Logits, torch.Tensor]:
        """What each head says, over the variant's temperature, and what the encoder saw.

        Args:
            image_BCHW: uint8 RGB pictures [B, 3, H, W] of any size.

        Returns:
            Logits in float32, and the encoder's last map averaged over each picture, float32 [B, C], on the device.

        Raises:
            EngineError: The device's memory does not hold a single picture.
        """
        seen: list[torch.Tensor] = []

        def look(image_BCHW: NDArray[np.uint8]) -> tuple[Logits, torch.Tensor]:
            logits = self._answer(image_BCHW)
            return logits, seen[-1].float().mean(dim=(2, 3))

        hook = self._model.encoder.register_forward_hook(lambda module, given, maps: seen.append(maps[-1]))
        try:
            logits, features = zip(*self._in_parts(image_BCHW, look), strict=True)
        finally:
            hook.remove()
        temperature = self._variant.temperature
        return Logits(*(torch.cat(part) / temperature for part in zip(*logits, strict=True))), torch.cat(features)

    def _in_parts(self, image_BCHW: NDArray[np.uint8], work: Callable[[NDArray[np.uint8]], T]) -> list[T]:
        """Work on all pictures at once; where the memory is too small, on half as many at a time from then on."""
        done: list[T] = []
        start = 0
        while start < len(image_BCHW):
            part_BCHW = image_BCHW[start : start + (self._most or len(image_BCHW))]
            try:
                done.append(work(part_BCHW))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(part_BCHW) == 1:
                    raise EngineError(
                        f"{self._path} does not fit into the memory of the {self._device.type} device with a tile of "
                        f"{image_BCHW.shape[-1]} pixels; take a smaller --tile, close what else runs there, or take "
                        "--device cpu."
                    ) from error
                self._most = len(part_BCHW) // 2
            else:
                start += len(part_BCHW)
                continue
            empty_cache()  # outside the handler, whose error holds on to what did not fit
        return done

    def _answer(self, image_BCHW: NDArray[np.uint8]) -> Logits:
        image = self._upload(image_BCHW)
        image = normalise(image.to(memory_format=torch.channels_last).float() / 255, self._mean, self._std)
        with self._autocast:
            logits = self._model(image)
        return Logits(logits.heads_BNKHW.float(), logits.mean_BKHW.float())

    def _upload(self, image_BCHW: NDArray[np.uint8]) -> torch.Tensor:
        """The tiles as uint8 on the device, by way of memory that the device reads itself."""
        image = torch.from_numpy(image_BCHW)
        if self._device.type != "cuda":
            return image.to(self._device)
        if self._pinned is None or self._pinned.shape != image.shape:
            self._pinned = torch.empty_like(image).pin_memory()
        torch.cuda.current_stream(self._device).synchronize()  # the device may still be reading the tiles before
        self._pinned.copy_(image)
        return self._pinned.to(self._device, non_blocking=True)


def _load(path: Path) -> tuple[Checkpoint, str]:
    """A checkpoint and its digest; a training that goes on may replace it between the two."""
    digest = sha256_of(path)
    while True:
        checkpoint, before = load_checkpoint(path), digest
        digest = sha256_of(path)
        if digest == before:
            return checkpoint, digest
