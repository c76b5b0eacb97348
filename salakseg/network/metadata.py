"""What a model file says of its own use, and what a user must say of one that is silent.

`salakseg export` writes JSON under the keys of `salakseg.export.metadata`; here is what reads it back. Neither torch
nor ONNX Runtime is needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from salakseg.classes import ClassMap
from salakseg.errors import EngineError

PREFIX = "salakseg."

CLASSES = "salakseg.classes"
NORMALISATION = "salakseg.normalisation"
GSD = "salakseg.gsd_m"
TILE = "salakseg.tile"
DEFAULT_TILE = "salakseg.default_tile"
SIZE_MULTIPLE = "salakseg.size_multiple"
OUTPUTS = "salakseg.outputs"
SOURCE = "salakseg.source_sha256"
VERSIONS = "salakseg.versions"
PARITY = "salakseg.parity"
INT8_BITS = "salakseg.int8_weight_bits"

_MADE_WITH = {name: f"{PREFIX}{name}" for name in ("weights", "heads", "temperature", "precision")}
_MADE_WITH |= {"checkpoint_sha256": SOURCE, "int8_weight_bits": INT8_BITS}

Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Told:
    """What a user tells of a model that says nothing of itself; None for what was not told.

    Attributes:
        class_map: The classes in the order of the output's channels.
        scale: What 8-bit colours are divided by first: 255 for a model that takes 0 to 1, 1 for one that takes 0 to
            255.
        mean: Subtracted from red, green and blue after that.
        std: What they are divided by at last.
        logits: Whether the output has not been through a softmax.
    """

    class_map: ClassMap | None = None
    scale: float | None = None
    mean: Channels | None = None
    std: Channels | None = None
    logits: bool = False

    @property
    def anything(self) -> bool:
        """Whether anything was told at all."""
        return self != Told()

    @property
    def missing(self) -> tuple[str, ...]:
        """The flags that are still needed."""
        flags = {
            "--classes class_mapping.csv": self.class_map,
            "--input-scale 255 (or 1)": self.scale,
            "--mean R,G,B": self.mean,
            "--std R,G,B": self.std,
        }
        return tuple(flag for flag, value in flags.items() if value is None)


@dataclass(frozen=True, slots=True)
class Usage:
    """How a model is used: input = (8-bit colour / scale - mean) / std.

    Attributes:
        class_map: The classes in the order of the output's channels.
        scale: See `Told`.
        mean: See `Told`.
        std: See `Told`.
        gsd_m: Metres a pixel that it was trained at; None if unknown.
        default_tile: Side of the tiles for a file without a size of its own, pixels; None if it does not say.
        size_multiple: What height and width must be multiples of.
        logits: Whether a softmax is still to be taken.
        own: Whether the file says all this itself.
        made_with: Which weights and heads the file holds, at which temperature and precision, as text by name; empty
            if it does not say.
    """

    class_map: ClassMap
    scale: float
    mean: Channels
    std: Channels
    gsd_m: float | None = None
    default_tile: int | None = None
    size_multiple: int = 1
    logits: bool = False
    own: bool = True
    made_with: Mapping[str, str] = field(default_factory=dict)


def says_its_use(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata are those of a file that `salakseg export` wrote."""
    return CLASSES in metadata and NORMALISATION in metadata


def usage_of(metadata: Mapping[str, str], told: Told, name: str) -> Usage:
    """How a model file is used, from its metadata or else from the user's words.

    Args:
        metadata: JSON text by key, as in the file.
        told: The user's words, for a file without these metadata.
        name: What the file is called in messages.

    Raises:
        EngineError: Neither says enough, or the metadata cannot be read.
    """
    if not says_its_use(metadata):
        return _told_usage(told, name)
    outputs = metadata.get(OUTPUTS, '"prob"')
    if outputs == '"argmax"':
        raise EngineError(
            f"{name} gives class ids, and where tiles overlap probabilities are mixed; export the checkpoint with "
            "--outputs prob."
        )
    try:
        values = {key: json.loads(text) for key, text in metadata.items() if key.startswith(PREFIX)}
        normalisation: dict[str, Any] = values[NORMALISATION]
        gsd, default_tile = values.get(GSD), values.get(DEFAULT_TILE)
        return Usage(
            class_map=ClassMap.from_records(values[CLASSES], name),
            scale=float(normalisation.get("scale", 255)),
            mean=channels(normalisation["mean"]),
            std=channels(normalisation["std"]),
            gsd_m=None if gsd is None else float(gsd),
            default_tile=None if default_tile is None else int(default_tile),
            size_multiple=int(values.get(SIZE_MULTIPLE, 1)),
            made_with={name: str(values[key]) for name, key in _MADE_WITH.items() if key in values},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(f"{name} has metadata that cannot be read ({error}); export it anew.") from error


def channels(values: Any) -> Channels:  # noqa: ANN401
    """Three finite numbers, for red, green and blue.

    Raises:
        ValueError: They are not.
        TypeError: They are no numbers.
    """
    array = np.asarray(values, np.float64)
    if array.shape != (3,) or not np.isfinite(array).all():
        raise ValueError(f"expected three values for red, green and blue, got {values}")
    red, green, blue = map(float, array)
    return red, green, blue


def _told_usage(told: Told, name: str) -> Usage:
    if told.missing:
        also = "also " if told.anything else ""
        raise EngineError(
            f"{name} does not say how it is used (it lacks the metadata {CLASSES} and {NORMALISATION}); {also}tell "
            f"{', '.join(told.missing)}, or export it with `salakseg export`."
        )
    assert told.class_map is not None
    assert told.scale is not None
    assert told.mean is not None
    assert told.std is not None
    return Usage(told.class_map, told.scale, told.mean, told.std, logits=told.logits, own=False)
