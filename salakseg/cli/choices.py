"""Values that an option takes, checked by the command line itself."""

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from salakseg.mapping.stretch import Stretch


class Weights(StrEnum):
    """Which weights of a checkpoint."""

    ema = "ema"
    student = "student"


def as_choice(weights: Weights | None) -> Literal["ema", "student"] | None:
    """The option as the library has it."""
    return None if weights is None else weights.value


class PackCodec(StrEnum):
    """How patches lie in a pack."""

    raw = "raw"
    webp = "webp"
    jpeg = "jpeg"


class Normalisation(StrEnum):
    """Who brings colours to the network's scale, the caller or the exported file."""

    metadata = "metadata"
    baked = "baked"


class Outputs(StrEnum):
    """What an exported file gives."""

    prob = "prob"
    prob_confidence = "prob+confidence"
    argmax = "argmax"


class Precision(StrEnum):
    """Of an exported file."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class Part(StrEnum):
    """Which held-out part of the data."""

    test = "test"
    val = "val"


class Unit(StrEnum):
    """What is drawn as a whole for an interval."""

    block = "block"
    photo = "photo"
    folder = "folder"


class LabelUnit(StrEnum):
    """What is labelled in one go."""

    photo = "photo"
    patch = "patch"
    area = "area"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class MapDevice(StrEnum):
    """Where to compute a map: ONNX Runtime knows one way more than torch."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"
    mps = "mps"


class Window(StrEnum):
    """How a tile counts from its middle to its edge."""

    hann = "hann"
    triangle = "triangle"
    flat = "flat"


class Fill(StrEnum):
    """What an unlabelled pixel within a labelled source is."""

    ignore = "ignore"
    background = "background"


class ProbabilityKind(StrEnum):
    """As what probabilities are written."""

    uint8 = "uint8"
    float16 = "float16"


def parse_gsd(text: str) -> float | Literal["auto", "off"]:
    """Reads --gsd."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    (value,) = _numbers(text, 1, "--gsd", "auto, off, or metres a pixel such as 0.05")
    if not 1e-4 <= value <= 1000:
        raise typer.BadParameter(f"--gsd {text}: metres a pixel are wanted, 0.0001 to 1000.")
    return value


def parse_bands(text: str | None) -> tuple[int, int, int] | None:
    """Reads --bands."""
    if text is None:
        return None
    wanted = "three numbers from 1 on, such as 3,2,1"
    values = _numbers(text, 3, "--bands", wanted)
    if not all(value >= 1 and value == int(value) for value in values):
        raise typer.BadParameter(f"--bands {text}: {wanted}.")
    red, green, blue = map(int, values)
    return red, green, blue


def parse_scale(text: str | None) -> "Stretch | Literal['percentile'] | None":
    """Reads --scale."""
    from salakseg.mapping.stretch import Stretch

    if text is None:
        return None
    if text == "percentile":
        return "percentile"
    low, high = _numbers(text, 2, "--scale", "percentile, or two values such as 0,4095")
    try:
        return Stretch(low, high)
    except ValueError as error:
        raise typer.BadParameter(f"--scale {text}: {error}.") from error


def parse_channels(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Reads three numbers for red, green and blue; those of --std must be above 0."""
    if text is None:
        return None
    red, green, blue = _numbers(text, 3, option, "three numbers, for red, green and blue, such as 0.485,0.456,0.406")
    if option == "--std" and min(red, green, blue) <= 0:
        raise typer.BadParameter(f"{option} {text}: three numbers above 0 are wanted.")
    return red, green, blue


def _numbers(text: str, count: int, option: str, wanted: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise typer.BadParameter(f"{option} {text}: {wanted}.")
    return values
