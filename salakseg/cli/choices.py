"""Values that an option takes, checked by the command line itself."""

from enum import StrEnum


class Weights(StrEnum):
    """Which weights of a checkpoint."""

    ema = "ema"
    student = "student"


class Part(StrEnum):
    """Which held-out part of the data."""

    test = "test"
    val = "val"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"
