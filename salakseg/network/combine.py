"""Engines made of engines: the mean over flips and turns of a tile, and over several models.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.errors import EngineError
from salakseg.network.engine import GSD_TOLERANCE, Engine


class TurnedEngine:
    """Test-time augmentation: the mean over the eight flips and turns of a square, which costs eight times as much.

    Args:
        engine: The model.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def class_map(self) -> ClassMap:
        """Classes in the order of the probability channels."""
        return self._engine.class_map

    @property
    def tile(self) -> int:
        """Side of the tile in pixels."""
        return self._engine.tile

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance that the model was trained at, metres a pixel."""
        return self._engine.gsd_m

    @property
    def name(self) -> str:
        """The model file."""
        return self._engine.name

    @property
    def identity(self) -> dict[str, str]:
        """That of the model, and that it is turned."""
        return {**self._engine.identity, "tta": "eight flips and turns"}

    @property
    def runs_on(self) -> str:
        """Runtime and device."""
        return self._engine.runs_on

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of uint8 RGB tiles [B, 3, tile, tile] as float32 [B, K, tile, tile]."""
        total: NDArray[np.float32] | None = None
        for turns in range(4):
            for flip in (1, -1):
                seen = np.ascontiguousarray(np.rot90(image_BCHW, turns, axes=(2, 3))[..., ::flip])
                prob = np.rot90(self._engine.predict(seen)[..., ::flip], -turns, axes=(2, 3))
                total = prob.copy() if total is None else total + prob
        assert total is not None
        return total / np.float32(8)


class MeanEngine:
    """The mean of several models.

    Args:
        engines: At least one; they must agree in classes, tile and ground sampling distance.

    Raises:
        EngineError: They do not.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        first = engines[0]
        for other in engines[1:]:
            if not other.class_map.same_as(first.class_map):
                raise EngineError(f"{first.name} and {other.name} have different classes and cannot be averaged.")
            if other.tile != first.tile:
                raise EngineError(
                    f"{first.name} takes tiles of {first.tile} pixels and {other.name} of {other.tile}; "
                    f"export them with the same --size."
                )
        known = [(engine.gsd_m, engine.name) for engine in engines if engine.gsd_m is not None]
        (finest, fine), (coarsest, coarse) = min(known, default=(1.0, "")), max(known, default=(1.0, ""))
        if coarsest / finest > 1 + GSD_TOLERANCE:
            raise EngineError(
                f"{fine} was trained at {finest:.3g} m a pixel and {coarse} at {coarsest:.3g} m; only models of the "
                "same ground sampling distance can be averaged."
            )
        self._engines = list(engines)

    @property
    def class_map(self) -> ClassMap:
        """Classes in the order of the probability channels."""
        return self._engines[0].class_map

    @property
    def tile(self) -> int:
        """Side of the tile in pixels."""
        return self._engines[0].tile

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance of the first model that knows its own, metres a pixel."""
        return next((engine.gsd_m for engine in self._engines if engine.gsd_m is not None), None)

    @property
    def name(self) -> str:
        """The model files."""
        return " + ".join(engine.name for engine in self._engines)

    @property
    def identity(self) -> dict[str, str]:
        """Those of all models, joined."""
        keys = dict.fromkeys(key for engine in self._engines for key in engine.identity)
        return {key: " + ".join(engine.identity.get(key, "-") for engine in self._engines) for key in keys}

    @property
    def runs_on(self) -> str:
        """Runtimes and devices, each once."""
        return "; ".join(dict.fromkeys(engine.runs_on for engine in self._engines))

    def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of uint8 RGB tiles [B, 3, tile, tile] as float32 [B, K, tile, tile]."""
        total = self._engines[0].predict(image_BCHW)
        for engine in self._engines[1:]:
            total = total + engine.predict(image_BCHW)
        return total / np.float32(len(self._engines))
