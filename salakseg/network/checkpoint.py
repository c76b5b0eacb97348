"""The checkpoint: one versioned schema of tensors and plain values, so that loading it never runs foreign code."""

import contextlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salakseg import replacing
from salakseg.classes import ClassMap
from salakseg.errors import CheckpointError, ClassMapError, EngineError, first_line
from salakseg.network.bundle import read_bundle
from salakseg.network.config import NetworkConfig
from salakseg.network.model import Segmenter
from salakseg.network.variant import Variant, Weights, check_heads
from salakseg.replacing import FileInUseError

SCHEMA = "salakseg.checkpoint"
SCHEMA_VERSION = 3

LEAST_TILE = 128
"""Smaller tiles are mostly overlap."""

TILE_MULTIPLE = 32
"""What the deepest encoders need of the side of an input."""


@dataclass(slots=True)
class Checkpoint:
    """Everything that is needed to use, judge and continue a training run.

    Attributes:
        network: What the network is made of.
        classes: `ClassMap.to_records`.
        mean, std: Normalisation of red, green and blue on a scale of 0 to 1.
        patch_size: Side of the training crops in pixels.
        student, ema: State dictionaries of the trained network and of its exponential moving average; a lean bundle has
            no student.
        recipe_name: Name of the recipe, such as ``phase2``.
        recipe: The resolved recipe as plain values.
        gsd_m: Ground sampling distance of the patches in metres a pixel, None if unknown.
        data_root: Where the patches were.
        split: Rows of folder, photo and role.
        learned_before: Rows of folder and photo: what the weights had learned from that the run began with.
        iteration: Training steps done.
        history: One record for each evaluation: iteration, loss figures, mIoUs, IoU by class.
        evaluation: The stored validation of these weights: part, patches, confusion matrix [K][K].
        variant: How the network is used unless somebody asks otherwise; `salakseg report --write-default` chooses it.
        training: Optimizer, gradient scaler, random states and best score, for going on; empty when published.
        versions: Versions of the packages that wrote the file.
        created: Time of writing, ISO 8601, UTC.
    """

    network: NetworkConfig
    classes: list[dict[str, Any]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch_size: int
    student: dict[str, Tensor]
    ema: dict[str, Tensor]
    recipe_name: str
    recipe: dict[str, Any]
    gsd_m: float | None = None
    data_root: str = ""
    split: list[list[str]] = field(default_factory=list)
    learned_before: list[list[str]] = field(default_factory=list)
    iteration: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    variant: Variant = field(default_factory=Variant)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def default_tile(self) -> int:
        """Side of the tiles for inference, pixels: that of the training crops, on which a network is at its best."""
        return max(LEAST_TILE, -(-self.patch_size // TILE_MULTIPLE) * TILE_MULTIPLE)

    @property
    def class_map(self) -> ClassMap:
        """The classes that the network tells apart."""
        return ClassMap.from_records(self.classes, "the checkpoint's class map")

    @property
    def kept_weights(self) -> tuple[Weights, ...]:
        """Whose weights there are; a lean bundle has the average's alone."""
        return ("ema", "student") if self.student else ("ema",)

    def choose(self, weights: Weights | None = None, heads: str | None = None) -> Variant:
        """The checkpoint's own variant, changed where somebody asks for other weights or heads.

        Raises:
            EngineError: The network has no such head, or the student is asked for where only the average is left.
        """
        own = self.variant
        variant = Variant(own.weights if weights is None else weights, own.heads if heads is None else heads)
        check_heads(variant.heads, len(self.network.head_dropout))
        if variant.weights not in self.kept_weights:
            raise EngineError("This model holds the moving average alone; leave --weights student out.")
        # A temperature belongs to the variant that it was fitted on
        return own if (variant.weights, variant.heads) == (own.weights, own.heads) else variant

    def build(self, weights: Weights = "ema") -> Segmenter:
        """The network with its weights, in evaluation mode on the CPU."""
        model = Segmenter(self.network, len(self.classes), load_weights=False)
        try:
            model.load_state_dict(self.ema if weights == "ema" else self.student)
        except RuntimeError as error:
            versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
            raise CheckpointError(
                f"The {weights} weights of this checkpoint do not fit the network that it names "
                f"({self.network.encoder}); it was made with {versions}."
            ) from error
        return model.eval()


def save_checkpoint(checkpoint: Checkpoint, path: Path, previous: Path | None = None) -> None:
    """Writes a checkpoint; the file appears under its name only when whole.

    Args:
        checkpoint: What to write.
        path: The file; one of that name is replaced.
        previous: Name that the file of before gets once the new one is whole; None to let it go.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    content |= {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "network": checkpoint.network.model_dump(),
        "variant": checkpoint.variant.to_dict(),
        "versions": package_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        if previous is not None and path.exists():
            rename(path, previous)
        rename(temporary, path)
    except (OSError, RuntimeError) as error:
        # In the middle of a file torch's writer answers a full disk with an error of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if isinstance(cause, FileInUseError):
            raise CheckpointError(str(cause)) from error
        raise CheckpointError(f"{path} could not be written ({cause.strerror or cause}); is the disk full?") from error
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be written has no such file either
            temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, lazily: bool = False) -> Checkpoint:
    """Reads a checkpoint, tensors on the CPU.

    Args:
        path: A file of `salakseg train`, or the folder of a bundle, which holds no state of an optimizer.
        lazily: Whether tensors are read only where they are looked at, for a glance at all the rest.

    Raises:
        CheckpointError: The file is missing, truncated, foreign, or of a schema that this version does not know.
    """
    if path.is_dir():
        return _checked(read_bundle(path), f"{path} is an incomplete bundle", "copy it again")
    content = _read(path, lazily)
    if content.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} is a torch file, but no checkpoint of salakseg; train one with `salakseg train`."
        )
    found = content.get("schema_version")
    if found != SCHEMA_VERSION:
        remedy = "update salakseg" if isinstance(found, int) and found > SCHEMA_VERSION else "train it anew"
        raise CheckpointError(f"{path} has checkpoint schema {found}, this version reads {SCHEMA_VERSION}; {remedy}.")
    return _checked(content, f"{path} is an incomplete checkpoint", "take another one of the run")


def _checked(content: Mapping[str, Any], complaint: str, remedy: str) -> Checkpoint:
    """A checkpoint from the fields of a file.

    Raises:
        CheckpointError: One is missing or of another kind than everybody who reads it expects.
    """
    try:
        values = {field.name: content[field.name] for field in fields(Checkpoint)}
        values["network"] = NetworkConfig.model_validate(values["network"])
        values["variant"] = Variant.from_dict(values["variant"])
        checkpoint = Checkpoint(**values)
        _ = checkpoint.class_map
        _check_plain(checkpoint)
    except (KeyError, TypeError, ValueError, ClassMapError) as error:
        raise CheckpointError(f"{complaint} ({first_line(error)}); {remedy}.") from error
    return checkpoint


def _check_plain(checkpoint: Checkpoint) -> None:
    """Refuses plain values of another kind than everybody who reads them expects.

    Raises:
        ValueError: One is.
    """
    kinds = {
        "recipe": dict,
        "recipe_name": str,
        "iteration": int,
        "patch_size": int,
        "history": list,
        "evaluation": dict,
        "data_root": str,
        "versions": dict,
        "training": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(getattr(checkpoint, name), kind):
            raise ValueError(f"{name} is no {kind.__name__}")
    for name, table in checkpoint.recipe.items():
        if name in ("data", "selftraining", "evaluation", "schedule") and not isinstance(table, dict):
            raise ValueError(f"recipe.{name} is no table")
    if not all(isinstance(record, dict) for record in checkpoint.history):
        raise ValueError("history holds something else than records")
    if checkpoint.evaluation and not {"part", "patches", "matrix"} <= checkpoint.evaluation.keys():
        raise ValueError("evaluation lacks its part, patches or matrix")
    for name in ("mean", "std"):
        values = getattr(checkpoint, name)
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"{name} is no colour")
    if not all(len(row) == 3 and all(isinstance(cell, str) for cell in row) for row in checkpoint.split):
        raise ValueError("split holds something else than folder, photo and role")
    if not all(len(row) == 2 and all(isinstance(cell, str) for cell in row) for row in checkpoint.learned_before):
        raise ValueError("learned_before holds something else than folder and photo")


def rename(old: Path, new: Path) -> None:
    """Gives a file another name, in place of any file of that name, so that a power cut does not undo it.

    On Windows another process that reads the file, such as a virus scanner, is waited for.

    Raises:
        OSError: It cannot be done.
    """
    replacing.replace(old, new)
    with contextlib.suppress(OSError):  # Windows opens no folder, some network disks cannot force one to the disk
        folder = os.open(new.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide about a result."""
    names = ("salakseg", "torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning-fabric")
    found = {}
    for name in (*names, "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _read(path: Path, lazily: bool) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; checkpoints lie in a run's folder under checkpoints/.")
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(f"{path} is an exported model already; name the checkpoint (.pt) that it was made from.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no checkpoint of salakseg: it is damaged, or holds more than tensors and plain values and was "
            "not run for safety."
        ) from error
    # bytes that are no pickle at all make torch's reader stumble in any way
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or no torch file; was it copied in full?") from error
    return content if isinstance(content, Mapping) else {}
