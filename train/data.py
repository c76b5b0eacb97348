"""From patches on disk to batches.

Which patch is drawn when is a function of seed and position, so that a resumed run goes on with the very patches that
the unbroken one would have seen.

Axes: B image, C channel, H row, W column.
"""

import os
import signal
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.reading import read_patch, read_picture
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError, SalaksegError


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The parts of the data that a run touches.

    Attributes:
        index: Where the patches lie.
        class_map: Classes.
        split: Role of every photo.
        class_pixels: Labelled pixels of each class in the labelled part, int64 [K].
        gsd_m: Ground sampling distance in metres a pixel, None if unknown.
    """

    index: PatchIndex
    class_map: ClassMap
    split: Split
    class_pixels: NDArray[np.int64]
    gsd_m: float | None = None

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

Item = tuple[Tensor, Tensor] | SalaksegError
"""Image uint8 [3, H, W] and label uint8 [H, W], or what was wrong with them."""


class PatchStream(Dataset[Item]):
    """An endless, seeded sequence of patches: each is drawn once before any is drawn again.

    Args:
        index: Where the patches lie.
        patches: What to draw from.
        class_map: Classes to read masks by; None for unlabelled patches, whose masks are never opened.
        window: Largest side that is passed on, in pixels; a larger picture gives a random window of that side.
        seed: Seed of order and windows; streams of one run use different ones.
    """

    def __init__(
        self, index: PatchIndex, patches: Sequence[Patch], class_map: ClassMap | None, window: int, seed: int
    ) -> None:
        self.index = index
        self.patches = patches
        self.class_map = class_map
        self.window = window
        self.seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> Item:
        try:
            return self._read(position)
        except SalaksegError as error:  # returned, because a worker process would bury it in a traceback
            return error

    def _read(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(position, len(self.patches))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.patches))
            self._epoch = epoch
        patch = self.patches[int(self._order[place])]
        if self.class_map is None:
            image_HWC = read_picture(self.index, patch)
            label_HW = np.zeros(image_HWC.shape[:2], np.uint8)
        else:
            image_HWC, label_HW = read_patch(self.index, patch, self.class_map)
        window = random_window(image_HWC.shape[:2], self.window, np.random.default_rng([self.seed, 1, position]))
        image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC[window].transpose(2, 0, 1)))
        return image_CHW, torch.from_numpy(label_HW[window].copy())


def random_window(size: Sequence[int], side: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """A window of at most ``side`` pixels in each direction, anywhere in a picture of the given height and width."""
    starts = [int(generator.integers(0, max(length - side, 0) + 1)) for length in size]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def collate(items: Sequence[Item]) -> Batch | SalaksegError:
    """Stacks pictures of any size; what is added to the smaller ones is labelled 255. The first error is passed on."""
    pairs = [item for item in items if not isinstance(item, SalaksegError)]
    if len(pairs) < len(items):
        return next(item for item in items if isinstance(item, SalaksegError))
    sizes = torch.tensor([label.shape for _, label in pairs])
    height, width = (int(side) for side in sizes.amax(dim=0))
    image_BCHW = torch.zeros((len(pairs), 3, height, width), dtype=torch.uint8)
    label_BHW = torch.full((len(pairs), height, width), IGNORE_INDEX, dtype=torch.uint8)
    for b, (image_CHW, label_HW) in enumerate(pairs):
        h, w = label_HW.shape
        image_BCHW[b, :, :h, :w] = image_CHW
        label_BHW[b, :h, :w] = label_HW
    return Batch(image_BCHW, label_BHW, sizes)


def batches(
    stream: PatchStream,
    batch_size: int,
    first: int,
    steps: int,
    workers: int,
    pin_memory: bool,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Batches number ``first`` to ``first + steps - 1`` of a stream.

    Args:
        stream: What to draw from.
        batch_size: Patches in a batch of this process.
        first: Number of the first batch.
        steps: How many.
        workers: Processes that read.
        pin_memory: Whether batches lie in page-locked memory, from which a GPU can copy by itself.
        share: Number of this process, and of all that train together; each takes its part of every batch.

    Raises:
        DataError: The stream has no patches, or later, one of them cannot be read.
    """
    if not stream.patches:
        raise DataError(f"{stream.index.root} leaves no patch to train on; look at the splits.csv.")
    rank, world = share

    def positions(number: int) -> list[int]:
        start = (number * world + rank) * batch_size
        return list(range(start, start + batch_size))

    loader = DataLoader(
        stream,
        batch_sampler=[positions(n) for n in range(first, first + steps)],
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_trainer,
        # The loader seeds its workers from this one; the global generator belongs to dropout and must stay in step.
        generator=torch.Generator().manual_seed(stream.seed),
    )
    return _raise_errors(loader)


def _raise_errors(loader: DataLoader[Item]) -> Generator[Batch, None, None]:
    for batch in loader:
        if isinstance(batch, SalaksegError):
            raise batch
        yield batch


def _leave_signals_to_trainer(_: int) -> None:
    """Signals reach every process of a terminal or job; the trainer needs its workers until the checkpoint is written.

    A termination signal is obeyed late, not never: it is also how a worker is ended that does not end by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(_GRACE, os._exit, (0,)).start())
