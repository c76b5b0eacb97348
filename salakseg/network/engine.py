"""What the mapping needs of a model: tiles in, class probabilities out.

Two engines fulfil it: `OnnxEngine` (ONNX Runtime, no torch in the process) and `TorchEngine` (a checkpoint on a GPU).
Two more combine engines: `TurnedEngine` and `MeanEngine`. `opening.py` chooses.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap

GSD_TOLERANCE = 0.1
"""Ground sampling distances that differ by no more than this share count as the same."""


class Engine(Protocol):
    """A segmentation model that is ready to run."""

    @property
    def class_map(self) -> ClassMap:
        """Classes in the order of the probability channels."""

    @property
    def tile(self) -> int:
        """Side of the square tile that the model takes, in pixels."""

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance that the model was trained at, metres a pixel; None if it was never told."""

    @property
    def name(self) -> str:
        """The model file, for messages and for the map's tags."""

    @property
    def identity(self) -> dict[str, str]:
        """What decides the answers, as text by name: the files' digests, which weights and heads, and so on."""

    @property
    def runs_on(self) -> str:
        """Runtime and device really in use, for messages."""

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of a batch of tiles.

        Args:
            image_BCHW: Red, green, blue tiles [B, 3, tile, tile], uint8; normalisation is the engine's business.

        Returns:
            Probabilities [B, K, tile, tile], float32, summing to one over K.
        """
