"""Going back: weights, moving average and optimizer of the best checkpoint, half the weight of self-training.

The count of the steps goes on, and with it the learning rate and the order of the patches: the run does not repeat what
led it astray, and ends when it was meant to.
"""

from typing import TYPE_CHECKING

from salakseg.errors import CheckpointError
from salakseg.evaluate.history import ROLLBACK
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.train.run import RunLog
from salakseg.train.state import restore_learning

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer


def roll_back(trainer: "Trainer", reason: str, log: RunLog) -> bool:
    """Takes a trainer back to the best checkpoint of its run; all processes that train together must ask.

    Args:
        trainer: The trainer.
        reason: Why, as a clause or a sentence.
        log: Where it is written down.

    Returns:
        Whether it went back; False where there is no best checkpoint, or it cannot be read, which is said.
    """
    best: Checkpoint | None = None
    if trainer.fabric.is_global_zero and not trainer.run_folder.best.exists():
        trainer.say("attention: the run cannot go back, since no network has been validated yet")
    elif trainer.fabric.is_global_zero:
        try:
            best = load_checkpoint(trainer.run_folder.best)
        except CheckpointError as error:
            trainer.say(f"attention: the run cannot go back to its best checkpoint: {error}")
    best = trainer.fabric.broadcast(best)  # the others may not see the first one's disk
    if best is None:
        return False
    restore_learning(trainer, best)
    watch = trainer.watch
    watch.rolled_back()
    log.write(
        "event",
        trainer.iteration,
        {
            "event": ROLLBACK,
            "reason": reason,
            "to": best.iteration,
            "rollbacks": watch.rollbacks,
            "weight_factor": watch.weight_factor,
        },
    )
    trainer.say(
        f"step {trainer.iteration:,}: back to the network of step {best.iteration:,}, and on with "
        f"{watch.weight_factor:g} times the weight of self-training (time {watch.rollbacks} of at most "
        f"{watch.config.rollbacks}): {reason}"
    )
    return True
