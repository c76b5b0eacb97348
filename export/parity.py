"""Whether an exported file computes what the network computes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from salakseg.network.model import normalise
from salakseg.network.onnx_engine import OnnxEngine

MIN_AGREEMENT = 0.9999
"""Least share of pixels with the same class; two right implementations differ only where two classes tie."""

MAX_DIFFERENCE = 1e-3
"""Largest difference of a probability; float32 in another order of summation stays below 1e-4."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two implementations agree.

    Attributes:
        tiles: Number of tiles compared.
        max_difference: Largest difference of a probability, 0 to 1.
        agreement: Share of pixels with the same most probable class, 0 to 1.
        votes: Whether the probabilities are shares of votes, which jump where one head's two best classes tie.
    """

    tiles: int
    max_difference: float
    agreement: float
    votes: bool = False

    @property
    def holds(self) -> bool:
        """Whether the file may be used in place of the network."""
        close = self.max_difference <= (1.0 if self.votes else MAX_DIFFERENCE)
        return self.agreement >= MIN_AGREEMENT and close


def compare(
    network: nn.Module,
    path: Path,
    tiles_CHW: Iterable[NDArray[np.uint8]],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    votes: bool = False,
) -> Parity:
    """Runs both over the same tiles, two a batch, so that the dynamic batch is tried as well.

    Args:
        network: What was exported: normalised images in, probabilities out.
        path: The ONNX file.
        tiles_CHW: uint8 tiles [3, tile, tile] of the exported size.
        mean: Mean of red, green and blue on a scale of 0 to 1.
        std: Standard deviation of the same.
        votes: Whether the probabilities are shares of votes.
    """
    engine = OnnxEngine(path)
    tiles = list(tiles_CHW)
    difference, same, pixels = 0.0, 0, 0
    for start in range(0, len(tiles), 2):
        image_BCHW = np.stack(tiles[start : start + 2])
        with torch.inference_mode():
            expected = network(normalise(torch.from_numpy(image_BCHW).float() / 255, mean, std)).numpy()
        found = engine.predict(image_BCHW)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return Parity(len(tiles), float("inf"), 0.0)
        difference = max(difference, float(np.abs(found - expected).max()))
        same += int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
        pixels += expected[:, 0].size
    return Parity(len(tiles), difference, same / pixels, votes)
