"""The whole state of a run, into a checkpoint and back."""

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from salakseg.data.blocks import BLOCKS, read_blocks
from salakseg.data.patches import Photo
from salakseg.data.splits import Role
from salakseg.network.checkpoint import Checkpoint
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.train.data import TrainingData

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer


def to_checkpoint(trainer: "Trainer") -> Checkpoint:
    """Everything that is needed to use the network and to go on training it."""
    recipe, data = trainer.recipe, trainer.data
    return Checkpoint(
        network=recipe.network,
        classes=data.class_map.to_records(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        patch_size=recipe.data.crop,
        student=trainer.network.state_dict(),
        ema=trainer.ema.model.state_dict(),
        recipe_name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        gsd_m=data.gsd_m,
        data_root=str(data.index.root.resolve()),
        split=data.split.to_rows(),
        learned_before=trainer.learned_before,
        iteration=trainer.iteration,
        history=trainer.validation.history,
        evaluation=trainer.validation.evaluation,
        training={
            "optimizer": trainer.optimizer.state_dict(),
            "precision": trainer.fabric.strategy.precision.state_dict(),
            "ema_updates": trainer.ema.updates,
            "best_score": trainer.validation.best_score,
            "labeller": trainer.labeller.state(),
            "parts": trainer.accumulation.parts,
            "watch": trainer.watch.state(),
            "random": random_states(),
            "data": trainer.data_digest,
        },
    )


def restore(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    """Puts a trainer of the same recipe and data where a checkpoint stopped; random states come last, by the loop."""
    state = checkpoint.training
    restore_learning(trainer, checkpoint)
    trainer.iteration = checkpoint.iteration
    trainer.learned_before = checkpoint.learned_before
    trainer.validation.history = list(checkpoint.history)
    trainer.validation.evaluation = dict(checkpoint.evaluation)
    trainer.validation.best_score = state["best_score"]
    trainer.accumulation.parts = state["parts"]
    trainer.watch.load_state(state.get("watch", {}))
    trainer.start_random = state["random"]
    if trainer.fabric.global_rank > 0:  # those are the first process's
        torch.manual_seed(process_seed(trainer))
        trainer.start_random = random_states()
    trainer.keeper.saved = checkpoint.iteration


def restore_learning(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    """Puts back what has been learned, and nothing of how far the run has come."""
    state = checkpoint.training
    trainer.network.load_state_dict(checkpoint.student)
    trainer.ema.model.load_state_dict(checkpoint.ema)
    trainer.ema.updates = state["ema_updates"]
    load_optimizer(trainer.optimizer, state["optimizer"])
    if state["precision"]:  # a gradient scaler, which only float16 has
        trainer.fabric.strategy.precision.load_state_dict(state["precision"])
    trainer.labeller.load_state(state["labeller"])


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Puts an optimizer's averages back; how its kernels run is a matter of the device it runs on now."""
    fused = optimizer.defaults["fused"]
    optimizer.load_state_dict({**state, "param_groups": [{**group, "fused": fused} for group in state["param_groups"]]})


def data_digest(data: TrainingData) -> dict[str, Any]:
    """What a resumed run must find again to be the same run: patches of each part, labelled pixels of each class.

    ``blocks`` tells which patches are in which block of ground: their names stay where a split is made anew. It is what
    the file says, so that a damaged patch may be removed.
    """
    parts = {role.value: len(data.part(role)) for role in Role if role is not Role.GAP}
    used = {photo for photo, role in data.split.roles.items() if role is not Role.GAP}
    found = read_blocks(data.index.root / BLOCKS) if data.index.ground_blocks else {}
    rows = [(folder, block, patch) for folder, blocks in found.items() for patch, block in blocks.items()]
    mine = sorted("\n".join(row) for row in rows if Photo(row[0], row[1]) in used)
    digest = sha256("\n\n".join(mine).encode("utf-8", "surrogateescape")).hexdigest()
    return {"patches": parts, "class_pixels": data.class_pixels.tolist(), "blocks": digest}


def is_same_data(found: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether two digests tell of the same data, by all that the older one knows."""
    return all(found[key] == value for key, value in before.items())


def process_seed(trainer: "Trainer") -> int:
    """Seed of what each process draws for itself from here on, another one in every process and at every step."""
    return trainer.recipe.seed + 1_000_003 * trainer.fabric.global_rank + trainer.iteration


def random_states() -> dict[str, Any]:
    """States of torch's generators, which dropout draws from; all else is drawn by seed and step."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """The reverse of `random_states`; CUDA states of another number of devices are left out."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    if torch.backends.mps.is_available() and states["mps"] is not None:
        torch.mps.set_rng_state(states["mps"])


def is_sound(trainer: "Trainer") -> bool:
    """Whether every weight is finite; a spoilt state must not replace the last good one."""
    tensors = (*trainer.network.state_dict().values(), *trainer.ema.model.state_dict().values())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
