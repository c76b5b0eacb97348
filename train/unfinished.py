"""Which run a bare ``--resume`` goes on with."""

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from salakseg.errors import CheckpointError, TrainingError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.train.ladder import is_ladder, is_left
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder
from salakseg.train.runs import State, ending_of
from salakseg.train.stopping import stop_reason
from salakseg.train.validate import scores_of


def newest_unfinished(runs: Path, say: Callable[[str], None], patience: int | None = None) -> Path:
    """The run that was trained last, maybe one of a ladder, of those that are neither over nor being trained now.

    A ladder that stopped between two rungs is found by the last one, though that is over: its folder is answered.

    Args:
        runs: Folder of the runs.
        say: Told which one it is, and which newer ones cannot be gone on with.
        patience: The one to go on with, if it is to change: a run that the old one has stopped can be unfinished then,
            unless it is one of a ladder, whose patience is fixed.

    Raises:
        TrainingError: There is none.
    """
    found: list[tuple[float, Path]] = [
        (max(times), folder)
        for folder in (*runs.glob("*/"), *runs.glob("*/*/"))
        if (times := _times(RunFolder(folder)))
    ]
    for _, folder in sorted(found, reverse=True):
        run = RunFolder(folder)
        try:
            with run.glance():
                checkpoint = _newest(run)
        except (CheckpointError, TrainingError) as error:
            say(f"attention: passed over: {error}")
            continue
        by_watch = ending_of(folder) is State.STOPPED and not _is_out_of_patience(checkpoint)
        if is_unfinished(checkpoint, None if is_ladder(folder.parent) else patience) and not by_watch:
            say(f"the newest unfinished run is {folder}")
            return folder
        if is_left(folder.parent):
            say(f"the newest unfinished run is the ladder {folder.parent}")
            return folder.parent
    raise TrainingError(f"{runs} holds no unfinished run; name one, as in --resume runs/NAME, or start a new one.")


def is_unfinished(checkpoint: Checkpoint, patience: int | None = None) -> bool:
    """Whether there are steps left, and early stopping, maybe with another patience, would let them be done."""
    recipe = _recipe_of(checkpoint)
    left = recipe is not None and checkpoint.iteration < recipe.schedule.iterations
    return left and not _is_out_of_patience(checkpoint, patience)


def _is_out_of_patience(checkpoint: Checkpoint, patience: int | None = None) -> bool:
    recipe = _recipe_of(checkpoint)
    if recipe is None:
        return False
    recipe = recipe if patience is None else recipe.with_patience(patience)
    return stop_reason(scores_of(checkpoint.history), recipe.evaluation) is not None


def _recipe_of(checkpoint: Checkpoint) -> Recipe | None:
    try:
        return Recipe.model_validate(checkpoint.recipe)
    except ValidationError:  # of another version
        return None


def _newest(run: RunFolder) -> Checkpoint:
    """A glance at the newest checkpoint that can be read."""
    try:
        return load_checkpoint(run.last, lazily=True)
    except CheckpointError:
        if not run.previous.exists():
            raise
        return load_checkpoint(run.previous, lazily=True)


def _times(run: RunFolder) -> list[float]:
    return [path.stat().st_mtime for path in (run.last, run.previous) if path.exists()]
