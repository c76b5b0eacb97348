"""Inference with ONNX Runtime. torch is never imported here, so that a map needs no training stack in memory.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.errors import EngineError, first_line
from salakseg.network.digest import sha256_of
from salakseg.network.metadata import Told, usage_of
from salakseg.network.sessions import open_session, runtime_version
from salakseg.shell import as_argument

_SUM_TOLERANCE = 0.02
"""How far from one the probabilities of a foreign model may sum up; half precision stays within 0.005."""


class OnnxEngine:
    """A model file that ``salakseg export`` wrote, or one that a user describes.

    Args:
        path: ONNX file.
        device: "cpu"; "cuda" or "tensorrt", which fall to the next slower one where ONNX Runtime cannot use them.
        threads: Threads inside an operator; 0 lets ONNX Runtime take every core.
        name: What the model is called in messages; None for the file's name.
        tile: Side of the tiles for a file that takes any, pixels; None for the one that it names.
        told: What the user says of a file without metadata.

    Attributes:
        describes_itself: Whether the file says how it is used, so that nothing of `told` was needed.

    Raises:
        EngineError: The file is missing, no ONNX model, nobody says how it is used, or the tile does not suit it.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        threads: int = 0,
        name: str | None = None,
        tile: int | None = None,
        told: Told | None = None,
    ) -> None:
        if not path.is_file():
            remedy = f"salakseg export ckpt.pt --out {as_argument(path.name)}"
            raise EngineError(f"{path} does not exist; make it with `{remedy}`.")
        self._path = path
        self._name = name or path.name
        self._session = open_session(path, device, threads)
        self._usage = usage_of(self._session.get_modelmeta().custom_metadata_map, told or Told(), str(path))
        self.describes_itself = self._usage.own
        image, output = self._session.get_inputs(), self._session.get_outputs()[0]
        self._input, self._output = image[0].name, output.name
        self._batch, side = _check_input(path, image)
        _check_output(path, output.shape, len(self._usage.class_map))
        self._tile = side or _any_tile(path, tile, self._usage.default_tile, self._usage.size_multiple)
        if tile not in (None, self._tile):
            raise EngineError(f"{path} takes tiles of {self._tile} pixels, not {tile}; export it with --size {tile}.")
        channel = (1, 3, 1, 1)
        self._mean = np.array(self._usage.mean, np.float32).reshape(channel)
        self._std = np.array(self._usage.std, np.float32).reshape(channel)
        self._factor = 1 / (self._usage.scale * self._std)
        self._shift = self._mean / self._std
        self._trusted = self._usage.own

    @property
    def class_map(self) -> ClassMap:
        """Classes in the order of the probability channels."""
        return self._usage.class_map

    @property
    def tile(self) -> int:
        """Side of the tile in pixels."""
        return self._tile

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance that the model was trained at, metres a pixel."""
        return self._usage.gsd_m

    @property
    def name(self) -> str:
        """The model file."""
        return self._name

    @cached_property
    def identity(self) -> dict[str, str]:
        """The model, the digest of its file, which weights and heads it holds, and what was told of it by others."""
        about = {"model": self._name, "model_sha256": sha256_of(self._path), **self._usage.made_with}
        if not self._usage.own:
            usage = self._usage
            numbers = ",".join(f"{value:.9g}" for value in (usage.scale, *usage.mean, *usage.std))
            about |= {"model_input": f"scale,mean,std {numbers}", "model_output": "logits" if usage.logits else "prob"}
        return about

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the device really in use, which can be the CPU although CUDA was asked for."""
        return str(self._session.get_providers()[0])

    @property
    def runs_on(self) -> str:
        """ONNX Runtime and the provider really in use."""
        return f"ONNX Runtime {runtime_version()}, {self.provider}"

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of uint8 RGB tiles [B, 3, tile, tile] as float32 [B, K, tile, tile].

        Raises:
            EngineError: The model fails, or a foreign one's output cannot be probabilities.
        """
        scaled = np.multiply(image_BCHW, self._factor, dtype=np.float32)
        scaled -= self._shift
        output = self._run(scaled)
        prob = _softmax(output) if self._usage.logits else output
        if not self._trusted:
            self._check_probabilities(prob)
            if self._usage.logits and _are_probabilities(output):
                raise EngineError(f"{self._path} gives probabilities already; leave --logits out.")
            self._trusted = True
        return prob

    def _run(self, scaled_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._batch is None or len(scaled_BCHW) == self._batch:
            return self._answer(scaled_BCHW)
        parts = []  # a file with a fixed batch takes no more and no fewer
        for start in range(0, len(scaled_BCHW), self._batch):
            part = scaled_BCHW[start : start + self._batch]
            padded = np.concatenate([part, np.repeat(part[-1:], self._batch - len(part), axis=0)])
            parts.append(self._answer(padded)[: len(part)])
        return np.concatenate(parts)

    def _answer(self, scaled_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            prob = np.asarray(self._session.run([self._output], {self._input: scaled_BCHW})[0])
        except Exception as error:  # ONNX Runtime's errors share no public base
            raise EngineError(
                f"{self._path} fails on {len(scaled_BCHW)} tiles of {self._tile} pixels ({first_line(error)}); try "
                "another --tile, a smaller --batch-size if the memory is too small, or --device cpu."
            ) from error
        return prob.astype(np.float32, copy=False)  # sums over a tile exceed float16

    def _check_probabilities(self, prob_BKHW: NDArray[np.float32]) -> None:
        """Refuses a foreign model's output that cannot be probabilities."""
        expected = (len(self.class_map), self._tile, self._tile)
        if prob_BKHW.shape[1:] != expected:
            raise EngineError(
                f"{self._path} gives an output of shape {list(prob_BKHW.shape[1:])} a tile where {list(expected)} "
                "(classes, rows, columns) is due; check --classes and --tile."
            )
        if not _are_probabilities(prob_BKHW):
            off = np.abs(prob_BKHW.sum(axis=1) - 1).max()
            raise EngineError(
                f"{self._path} gives values that are no probabilities (they differ from a sum of 1 by up to "
                f"{off:.3g}); if they are logits, add --logits."
            )


def _check_input(path: Path, inputs: list[Any]) -> tuple[int | None, int | None]:
    """Batch and side that the file is fixed to, None for what is free.

    Raises:
        EngineError: It takes something else than square pictures in red, green and blue.
    """
    first = inputs[0]
    shape = list(first.shape)
    fits = len(inputs) == 1 and len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
    if fits:
        height, width = (size if isinstance(size, int) and size > 0 else None for size in shape[2:])
        fits = height == width
    if not fits:
        raise EngineError(
            f"{path} takes {len(inputs)} input{'s' * (len(inputs) > 1)}, the first of shape {shape}, expected one of "
            "[batch, 3, side, side]; export it anew."
        )
    if first.type != "tensor(float)":
        raise EngineError(f"{path} takes {first.type}, expected float32; export it with a float32 input.")
    batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    return batch, height


def _check_output(path: Path, shape: list[Any], classes: int) -> None:
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != classes):
        raise EngineError(
            f"{path} gives an output of shape {shape}, expected [batch, {classes}, side, side] for its {classes} "
            "classes; name the class mapping that it was trained with."
        )


def _any_tile(path: Path, wanted: int | None, default: int | None, multiple: int) -> int:
    """Side of the tiles for a file that takes any.

    Raises:
        EngineError: Nobody names one, or it is no multiple.
    """
    tile = wanted or default
    if tile is None:
        raise EngineError(f"{path} takes tiles of any size and names none; tell --tile, such as --tile 512.")
    if tile < multiple or tile % multiple:
        below = max(multiple, tile // multiple * multiple)
        raise EngineError(
            f"{path} takes tiles whose side is a multiple of {multiple}, not --tile {tile}; "
            f"take {below} or {below + multiple}."
        )
    return tile


def _are_probabilities(values_BKHW: NDArray[np.float32]) -> bool:
    off = np.abs(values_BKHW.sum(axis=1) - 1).max()
    return bool(values_BKHW.min() >= -_SUM_TOLERANCE and off <= _SUM_TOLERANCE)


def _softmax(logits_BKHW: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(logits_BKHW - logits_BKHW.max(axis=1, keepdims=True))
    prob: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return prob
