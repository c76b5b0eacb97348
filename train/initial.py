"""Weights of another run to start from: the moving average of a checkpoint, for the student and its average alike.

Optimizer, schedule and everything that a run learns about itself start fresh, unlike in `--resume`. Where a checkpoint
tells other classes apart, the last layer of each head keeps those of the same name and is new for the others.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from salakseg.data.splits import HELD_OUT, Role
from salakseg.errors import CheckpointError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.config import NetworkConfig

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer


def network_settings(path: Path) -> dict[str, Any]:
    """Settings by which a run's network takes a checkpoint's encoder and decoder; those of the heads are the recipe's.

    Raises:
        CheckpointError: It cannot be read.
    """
    network = load_checkpoint(path, lazily=True).network
    keys = {"architecture", "encoder"} | ({"output_stride"} if network.architecture.startswith("deeplab") else set())
    return {"network": network.model_dump(include=keys)}


def load_initial(path: Path, network: NetworkConfig) -> Checkpoint:
    """Reads a checkpoint that a run can start from.

    Args:
        path: The checkpoint, or the folder of a bundle.
        network: What the run's network is made of.

    Raises:
        CheckpointError: It cannot be read, or is of another network.
    """
    checkpoint = load_checkpoint(path)
    wanted, found = _shape(network), _shape(checkpoint.network)
    different = [f"network.{key} is {found[key]}, here {value}" for key, value in wanted.items() if found[key] != value]
    if different:
        raise CheckpointError(
            f"{path} is of another network: {'; '.join(different)}; set the same, or leave out --init."
        )
    return checkpoint


def start_from(trainer: "Trainer", checkpoint: Checkpoint) -> list[str]:
    """Gives a fresh trainer the checkpoint's moving average.

    Returns:
        Names of classes that it did not know, whose part of the last layers begins anew.
    """
    names, theirs = trainer.data.class_map.names, list(checkpoint.class_map.names)
    weights = dict(checkpoint.ema)
    if list(names) != theirs:
        fresh = trainer.network.state_dict()
        for key in trainer.network.classifier_keys():
            known = [(k, theirs.index(name)) for k, name in enumerate(names) if name in theirs]
            layer = fresh[key].clone()
            for k, row in known:
                layer[k] = weights[key][row]
            weights[key] = layer
    trainer.learned_before = learned_photos(checkpoint)
    trainer.network.load_state_dict(weights)
    trainer.ema.model.load_state_dict(weights)
    return [name for name in names if name not in theirs]


def learned_photos(checkpoint: Checkpoint) -> list[list[str]]:
    """Rows of folder and photo that a checkpoint, or one that it came from, has learned from, labelled or not."""
    self_training = checkpoint.recipe.get("selftraining", {}).get("enabled", True)
    taught = {Role.LABELLED.value, *([Role.UNLABELLED.value] if self_training else [])}
    own = {(folder, photo) for folder, photo, role in checkpoint.split if role in taught}
    return sorted([folder, photo] for folder, photo in own | {(f, p) for f, p in checkpoint.learned_before})


def judged_by_what_was_learned(trainer: "Trainer") -> list[str]:
    """Names of photos of the parts that judge the run which its first weights have learned from."""
    learned = {(folder, photo) for folder, photo in trainer.learned_before}
    roles = trainer.data.split.roles
    return [p.name for p, role in roles.items() if role in HELD_OUT and (p.folder, p.name) in learned]


def _shape(network: NetworkConfig) -> dict[str, Any]:
    """What decides about the weights: neither how much is dropped, nor what the encoder started from."""
    values = network.model_dump(exclude={"head_dropout", "encoder_weights"})
    return {**values, "head_dropout": f"{len(network.head_dropout)} heads"}
