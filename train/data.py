"""From patches on disk to batches.

Which patch is drawn when is a function of seed and position, so that a resumed run goes on with the very patches that
the unbroken one would have seen.

Axes: B image, C channel, H row, W column.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.data.ahead import read_ahead
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.reading import read_patch, read_picture
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError, SalaksegError, UnreadableError
from salakseg.train.sampling import Order, Shuffled, window_generator
from salakseg.train.skipped import Skip, skip_of


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The parts of the data that a run touches.

    Attributes:
        index: Where the patches lie.
        class_map: Classes.
        split: Role of every photo.
        class_pixels: Labelled pixels of each class in the labelled part, int64 [K].
        gsd_m: Ground sampling distance in metres a pixel, None if unknown.
        patch_pixels: The same of each labelled patch, in the order of the part, int64 [N, K]; 0 where it is damaged.
        damaged: Patches of the run's parts that were found to be unreadable.
    """

    index: PatchIndex
    class_map: ClassMap
    split: Split
    class_pixels: NDArray[np.int64]
    gsd_m: float | None = None
    patch_pixels: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 0), np.int64))
    damaged: tuple[Skip, ...] = ()

    def part(self, role: Role) -> tuple[Patch, ...]:
        """The patches of one part."""
        return self.split.patches(self.index, role)


class Batch(NamedTuple):
    """Patches as they come from disk, padded to one size.

    Attributes:
        image_BCHW: Red, green, blue, uint8.
        label_BHW: Class ids, uint8, 255 where ignored and in the padding; 0 stands for "exists" in unlabelled patches.
        size_B2: Height and width of each picture without its padding, int64.
    """

    image_BCHW: Tensor
    label_BHW: Tensor
    size_B2: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; the sizes stay on the CPU, where they are read without waiting for the device."""
        image, label = (tensor.to(device, non_blocking=True) for tensor in (self.image_BCHW, self.label_BHW))
        return Batch(image, label, self.size_B2)


_GRACE = 20.0  # seconds that a worker goes on after a termination signal
_ATTEMPTS = 100  # patches in a row that may be unreadable

Item = tuple[NDArray[np.uint8], NDArray[np.uint8]] | SalaksegError
"""Image uint8 [H, W, 3] and label uint8 [H, W], or what was wrong with them."""

_AHEAD = 3  # steps that are read in advance by a thread of this process


class PatchStream:
    """An endless, seeded sequence of patches: each is drawn once before any is drawn again, unless told otherwise.

    A patch that cannot be read is skipped, and the position takes another one, which depends on seed and position
    alone. Whatever else is wrong with a patch is an error.

    Args:
        index: Where the patches lie.
        patches: What to draw from.
        class_map: Classes to read masks by; None for unlabelled patches, whose masks are never opened.
        window: Largest side that is passed on, in pixels; a larger picture gives a random window of that side.
        seed: Seed of order and windows; streams of one run use different ones.
        order: Which patch is drawn when; None for each once before any again.
        part: What the patches are to the run, for the list of those that were skipped.

    Attributes:
        skips: Patches that were skipped since somebody took them out of here.
    """

    def __init__(
        self,
        index: PatchIndex,
        patches: Sequence[Patch],
        class_map: ClassMap | None,
        window: int,
        seed: int,
        order: Order | None = None,
        part: str = "",
    ) -> None:
        self.index = index
        self.patches = patches
        self.class_map = class_map
        self.window = window
        self.seed = seed
        self.order = order or Shuffled(len(patches), seed)
        self.part = part
        self.skips: list[Skip] = []

    def __getitem__(self, position: int) -> Item:
        try:
            return self._read(position)
        except SalaksegError as error:  # returned, because a worker process would bury it in a traceback
            return error

    def _read(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image_HWC, label_HW = self._readable(position)
        window = random_window(image_HWC.shape[:2], self.window, window_generator(self.seed, position))
        return image_HWC[window], label_HW[window]

    def _readable(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pixels and label of the first patch for this position that can be read."""
        for attempt in range(_ATTEMPTS):
            patch = self.patches[self.order.draw(position, attempt)]
            try:
                if self.class_map is not None:
                    return read_patch(self.index, patch, self.class_map)
                image_HWC = read_picture(self.index, patch)
                return image_HWC, np.zeros(image_HWC.shape[:2], np.uint8)
            except UnreadableError as error:
                self.skips.append(skip_of(patch, self.part, error, self.index.root))
        raise DataError(f"{self.skips[-1].reason}; so are {_ATTEMPTS - 1} others in a row.")


def random_window(size: Sequence[int], side: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """A window of at most ``side`` pixels in each direction, anywhere in a picture of the given height and width."""
    starts = [int(generator.integers(0, max(length - side, 0) + 1)) for length in size]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def collate(items: Sequence[Item]) -> Batch | SalaksegError:
    """Stacks pictures of any size; what is added to the smaller ones is labelled 255. The first error is passed on."""
    pairs = [item for item in items if not isinstance(item, SalaksegError)]
    if len(pairs) < len(items):
        return next(item for item in items if isinstance(item, SalaksegError))
    size_B2 = np.array([label_HW.shape for _, label_HW in pairs])
    height, width = (int(side) for side in size_B2.max(axis=0))
    image_BHWC = np.zeros((len(pairs), height, width, 3), np.uint8)
    label_BHW = np.full((len(pairs), height, width), IGNORE_INDEX, np.uint8)
    for b, (image_HWC, label_HW) in enumerate(pairs):
        h, w = label_HW.shape
        image_BHWC[b, :h, :w] = image_HWC
        label_BHW[b, :h, :w] = label_HW
    # The channels stay innermost in memory: turning them round costs more than reading the patch
    return Batch(
        torch.from_numpy(image_BHWC).permute(0, 3, 1, 2), torch.from_numpy(label_BHW), torch.from_numpy(size_B2)
    )


class Steps(Dataset["_Step"]):
    """The batches of each step of several streams, read together: one set of worker processes serves all of them.

    Args:
        streams: Each with the first step that it takes part in, None for none.
        batch_size: Patches of each stream in a batch of this process.
        share: Number of this process, and of all that train together; each takes its part of every batch.

    Raises:
        DataError: A stream has no patches.
    """

    def __init__(
        self, streams: Sequence[tuple[PatchStream, int | None]], batch_size: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        for stream, first in streams:
            if first is not None and not stream.patches:
                raise DataError(f"{stream.index.root} leaves no patch to train on; look at the splits.csv.")
        self._streams = streams
        self._batch_size = batch_size
        self._rank, self._world = share

    def __getitem__(self, step: int) -> "_Step":
        start = (step * self._world + self._rank) * self._batch_size
        found: list[Batch | None] = []
        error: SalaksegError | None = None
        for stream, first in self._streams:
            takes_part = first is not None and step >= first
            batch = collate([stream[start + n] for n in range(self._batch_size)]) if takes_part else None
            if isinstance(batch, SalaksegError):
                error, batch = error or batch, None
            found.append(batch)
        skips = tuple(skip for stream, _ in self._streams for skip in stream.skips)
        for stream, _ in self._streams:
            stream.skips.clear()
        return _Step(found, skips, error)


class _Step(NamedTuple):
    """What a worker process sends: a batch of each stream, what was skipped for them, and what went wrong."""

    batches: list[Batch | None]
    skips: tuple[Skip, ...]
    error: SalaksegError | None


def step_batches(
    steps: Steps,
    first: int,
    count: int,
    workers: int,
    pin_memory: bool,
    *,
    on_skips: Callable[[Iterable[Skip]], None] = lambda _: None,
    start_method: str | None = None,
) -> Generator[list[Batch | None], None, None]:
    """The batches of one step after the other; the worker processes stay until the end.

    Args:
        steps: What to read.
        first: Number of the first step.
        count: How many steps.
        workers: Processes that read; 0 reads in a thread of this one, which is enough for packs.
        pin_memory: Whether batches lie in page-locked memory, from which a GPU can copy by itself.
        on_skips: Called with patches that could not be read, before the step that misses them.
        start_method: How worker processes are started, such as "spawn"; None for what the system does.

    Yields:
        A batch of each stream, None where it does not take part yet.

    Raises:
        DataError: A patch holds what it must not, or what `on_skips` raises.
    """
    if workers == 0:
        found_ones = read_ahead(partial(_read_step, steps, pin_memory), range(first, first + count), 1, _AHEAD)
        yield from _batches_of(found_ones, on_skips)
        return
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, first + count),
        num_workers=workers,
        collate_fn=_as_it_is,  # a step is collated already
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_trainer,
        multiprocessing_context=start_method,
        # The loader seeds its workers from this one; the global generator belongs to dropout and must stay in step.
        generator=torch.Generator().manual_seed(0),
    )
    yield from _batches_of(loader, on_skips)


def _read_step(steps: Steps, pin_memory: bool, step: int) -> _Step:
    found = steps[step]
    if not pin_memory:
        return found
    pinned = [None if batch is None else Batch(*(tensor.pin_memory() for tensor in batch)) for batch in found.batches]
    return found._replace(batches=pinned)


def _batches_of(
    steps: Iterable[_Step], on_skips: Callable[[Iterable[Skip]], None]
) -> Generator[list[Batch | None], None, None]:
    for found in steps:
        if found.skips:
            on_skips(found.skips)
        if found.error is not None:
            raise found.error
        yield found.batches


def _as_it_is(step: Any) -> Any:  # noqa: ANN401  # what the loader declares
    return step


def _leave_signals_to_trainer(_: int) -> None:
    """Signals reach every process of a terminal or job; the trainer needs its workers until the checkpoint is written.

    A termination signal is obeyed late, not never: it is also how a worker is ended that does not end by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(_GRACE, os._exit, (0,)).start())
