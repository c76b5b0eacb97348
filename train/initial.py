"""Weights of another run to start from: the moving average of a checkpoint, for the student and its average alike.

Optimizer, schedule and everything that a run learns about itself start fresh, unlike in `--resume`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from salakseg.classes import ClassMap
from salakseg.errors import CheckpointError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.config import NetworkConfig

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer


def load_initial(path: Path, network: NetworkConfig, class_map: ClassMap) -> Checkpoint:
    """Reads a checkpoint that a run can start from.

    Args:
        path: The checkpoint.
        network: What the run's network is made of.
        class_map: The run's classes.

    Raises:
        CheckpointError: It cannot be read, or is of another network or other classes.
    """
    checkpoint = load_checkpoint(path)
    wanted, found = _shape(network), _shape(checkpoint.network)
    different = [f"network.{key} is {found[key]}, here {value}" for key, value in wanted.items() if found[key] != value]
    if different:
        raise CheckpointError(
            f"{path} is of another network: {'; '.join(different)}; set the same, or leave out --init."
        )
    names, theirs = list(class_map.names), list(checkpoint.class_map.names)
    if names != theirs:
        raise CheckpointError(
            f"{path} tells {len(theirs)} classes apart ({', '.join(theirs)}), {class_map.source} has {len(names)} "
            f"({', '.join(names)}); take a checkpoint of the same classes, or leave out --init."
        )
    return checkpoint


def start_from(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    """Gives a fresh trainer the checkpoint's moving average."""
    trainer.network.load_state_dict(checkpoint.ema)
    trainer.ema.model.load_state_dict(checkpoint.ema)


def _shape(network: NetworkConfig) -> dict[str, Any]:
    """What decides about the weights: neither how much is dropped, nor what the encoder started from."""
    values = network.model_dump(exclude={"head_dropout", "encoder_weights"})
    return {**values, "head_dropout": f"{len(network.head_dropout)} heads"}
