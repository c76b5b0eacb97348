"""What a user decides about an exported file."""

from dataclasses import dataclass
from typing import Literal

from salakseg.network.variant import Variant

Precision = Literal["fp32", "fp16", "int8"]
Normalisation = Literal["metadata", "baked"]
Outputs = Literal["prob", "prob+confidence", "argmax"]

DEFAULT_SIZE = 512
"""Side of the static square that is exported unless somebody asks otherwise."""

LARGEST_SIZE = 4096
"""Largest side of a square input; beyond, a single tile takes more memory than a laptop has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How a checkpoint becomes an ONNX file.

    Attributes:
        variant: Which weights and heads, at which temperature.
        size: Side of the square input in pixels; None for height and width that may differ from call to call.
        normalisation: "metadata" tells mean and standard deviation there, for images from 0 to 1 that the caller
            normalises; "baked" does it in the graph, for images from 0 to 255, and the metadata name none.
        outputs: "prob" class probabilities; "prob+confidence" these and the highest of them; "argmax" class ids.
        precision: Of the weights; input and output stay float32.
        licence: Under which the model is given away, such as an SPDX identifier.
    """

    variant: Variant
    size: int | None = DEFAULT_SIZE
    normalisation: Normalisation = "metadata"
    outputs: Outputs = "prob"
    precision: Precision = "fp32"
    licence: str = "unspecified"
