"""The state of a run on disk: two generations of it, so that one is whole whatever happens while the other is written.

A checkpoint is written beside its place, forced to the disk, and renamed. ``last.pt`` becomes ``previous.pt`` only
when the new one is whole. A kill at any moment, a power cut or a full disk leaves one of the two; a damaged
``last.pt`` is noticed by its checksums, and the run goes on from the other.
"""

import time
import zipfile
from collections.abc import Callable
from contextlib import suppress

from salakseg.errors import CheckpointError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint, rename, save_checkpoint
from salakseg.train.run import RunFolder

SHARE = 0.05
"""Most of the time that checkpoints between two evaluations may take, so that a slow disk does not stop the device."""


class Keeper:
    """Writes ``last.pt``.

    Args:
        run: The run.
        every: Steps between two checkpoints.
        saved: Step of the checkpoint that is there already, -1 for none.
        say: Called with a line worth reading.
        clock: Seconds, from any start.

    Attributes:
        saved: Step of the newest checkpoint on disk, -1 if there is none, or one that must be replaced at once.
    """

    def __init__(
        self,
        run: RunFolder,
        every: int,
        say: Callable[[str], None],
        saved: int = -1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.saved = saved
        self._run = run
        self._every = every
        self._say = say
        self._clock = clock
        self._until = -float("inf")  # before this moment the next checkpoint would take too much of the time
        self._failed = False

    def is_due(self, iteration: int) -> bool:
        """Whether it is time for a checkpoint between two evaluations."""
        return iteration % self._every == 0 and iteration > self.saved and self._clock() >= self._until

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint as the newest one; the one before becomes ``previous.pt``.

        Raises:
            CheckpointError: The disk is full or the folder cannot be written; what was there is left as it was.
        """
        start = self._clock()
        save_checkpoint(checkpoint, self._run.last, previous=self._run.previous)
        self.saved = checkpoint.iteration
        now = self._clock()
        self._until = now + (now - start) * (1 / SHARE - 1)
        if self._failed:
            self._say(f"step {checkpoint.iteration:,}: the run is saved again")
            self._failed = False

    def try_to_save(self, checkpoint: Checkpoint) -> None:
        """The same, but a disk that is full for now does not end the run: it is said, and tried again later."""
        try:
            self.save(checkpoint)
        except CheckpointError as error:
            if not self._failed:
                kept = f"the state of step {self.saved:,} is kept" if self.saved >= 0 else "nothing is saved yet"
                self._say(f"attention: {error} Meanwhile {kept}; it is tried again every {self._every:,} steps")
            self._failed = True


def load_newest(run: RunFolder, say: Callable[[str], None]) -> Checkpoint:
    """The newest whole checkpoint of a run. A damaged ``last.pt`` is set aside as ``last.damaged.pt``.

    Args:
        run: The run.
        say: Called if it is not ``last.pt``.

    Raises:
        CheckpointError: There is none.
    """
    try:
        return _load_whole(run)
    except CheckpointError as error:
        if not run.previous.exists():
            raise
        older = load_checkpoint(run.previous)
        say(f"attention: {error} Going on from {run.previous.name}, step {older.iteration:,}")
    if run.last.exists():
        with suppress(OSError):  # or it would push the good one out
            rename(run.last, run.last.with_name("last.damaged.pt"))
    return older


def _load_whole(run: RunFolder) -> Checkpoint:
    checkpoint = load_checkpoint(run.last)
    # torch reads without looking at the checksums that it writes
    with zipfile.ZipFile(run.last) as archive:
        if archive.testzip() is not None:
            raise CheckpointError(f"{run.last} is damaged: its checksums do not fit.")
    return checkpoint


def clear_leftovers(run: RunFolder) -> None:
    """Removes what a kill left half-written."""
    for path in run.last.parent.glob(".*.partial"):
        with suppress(OSError):
            path.unlink()
