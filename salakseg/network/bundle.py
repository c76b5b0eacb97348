"""A release folder as a checkpoint: what `salakseg export --bundle` writes is read back here; nothing is unpickled."""

import json
from pathlib import Path
from typing import Any

from salakseg.errors import CheckpointError

SCHEMA = "salakseg.bundle"
SCHEMA_VERSION = 2

MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"

TENSORS = ("student", "ema")
"""State dictionaries of a checkpoint; in the file of weights their names come before each tensor's."""

LEFT_OUT: dict[str, Any] = {"training": {}, "data_root": ""}
"""What a release does not hold of a checkpoint, and what stands in its place: the optimizer, and a folder of ours."""


def is_bundle(path: Path) -> bool:
    """Whether a path is a folder that claims to be a bundle."""
    return path.is_dir() and (path / CONFIG).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a bundle.

    Raises:
        CheckpointError: The folder is no bundle, or one of another schema.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        schema, found = config["schema"], config["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is no bundle of `salakseg export --bundle` ({CONFIG}: {error}).") from error
    if schema != SCHEMA:
        raise CheckpointError(f"{folder} is no bundle of salakseg; make one with `salakseg export --bundle`.")
    if found != SCHEMA_VERSION:
        remedy = "update salakseg" if isinstance(found, int) and found > SCHEMA_VERSION else "export it anew"
        raise CheckpointError(f"{folder} has bundle schema {found}, this version reads {SCHEMA_VERSION}; {remedy}.")
    return dict(config)


def bundled_source(folder: Path) -> str:
    """Digest of the checkpoint that a bundle was made from, as hexadecimal text.

    Raises:
        CheckpointError: The folder is no bundle.
    """
    source = read_config(folder).get("source_sha256")
    if not isinstance(source, str):
        raise CheckpointError(f"{folder} is an incomplete bundle (it names no checkpoint); copy it again.")
    return source


def read_bundle(folder: Path) -> dict[str, Any]:
    """The fields of the checkpoint in a bundle, as plain values and tensors on the CPU.

    Raises:
        CheckpointError: The folder is no bundle, or its weights are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
        values = {**config["checkpoint"], **LEFT_OUT}
        for name in ("mean", "std"):
            values[name] = tuple(values[name])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} is an incomplete bundle ({error}); copy it again.") from error
    for name in TENSORS:
        start = f"{name}."
        values[name] = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
    # A lean bundle holds the average alone, rounded to half precision
    values["ema"] = {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in values["ema"].items()
    }
    return values
