"""All patches of a run, decoded once into memory: for small sets, whose batches then cost no more than indexing.

Axes: H row, W column, C red green blue.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.data.ahead import read_ahead
from salakseg.data.masks import image_size
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.reading import read_patch, read_picture
from salakseg.errors import DataError, UnreadableError

_RESERVE = 0.8
"""Most of the free memory that patches may take; network and batches need some, too."""

_SAMPLE = 200  # headers that the size is estimated from
_THREADS = 4
_AHEAD = 64

Pixels = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]


class MemoryStore:
    """Patches in memory; reads like a pack.

    Args:
        index: Where the patches lie.
        labelled: Patches whose masks are wanted.
        unlabelled: Patches whose masks are not opened.
        class_map: Classes to read masks by.
        progress: Called with patches read and to read.

    Raises:
        DataError: There is too little memory, or a patch holds what it must not. Patches that cannot be read are an
            error only when they are asked for.
    """

    def __init__(
        self,
        index: PatchIndex,
        labelled: Sequence[Patch],
        unlabelled: Sequence[Patch],
        class_map: ClassMap,
        progress: Callable[[int, int], None],
    ) -> None:
        _refuse_too_much(index, labelled, unlabelled)
        wanted = [*((patch, True) for patch in labelled), *((patch, False) for patch in unlabelled)]

        def read(one: tuple[Patch, bool]) -> Pixels | UnreadableError:
            patch, with_label = one
            try:
                return read_patch(index, patch, class_map) if with_label else (read_picture(index, patch), None)
            except UnreadableError as error:
                return error

        self._pixels: dict[Patch, Pixels | UnreadableError] = {}
        found = read_ahead(read, wanted, _THREADS, _AHEAD)
        for done, ((patch, _), pixels) in enumerate(zip(wanted, found, strict=True), start=1):
            self._pixels[patch] = pixels
            progress(done, len(wanted))

    def image(self, patch: Patch) -> NDArray[np.uint8]:
        """The picture of a patch, uint8 [H, W, 3].

        Raises:
            UnreadableError: It could not be read.
        """
        return self._of(patch)[0]

    def label(self, patch: Patch) -> NDArray[np.uint8]:
        """The class ids of a labelled patch, uint8 [H, W], 255 where ignored.

        Raises:
            UnreadableError: It could not be read.
            ValueError: The patch is unlabelled.
        """
        label_HW = self._of(patch)[1]
        if label_HW is None:
            raise ValueError(f"{patch.image} is unlabelled")
        return label_HW

    @property
    def bytes(self) -> int:
        """Size of all pixels."""
        return sum(
            array.nbytes
            for pixels in self._pixels.values()
            if not isinstance(pixels, UnreadableError)
            for array in pixels
            if array is not None
        )

    def _of(self, patch: Patch) -> Pixels:
        pixels = self._pixels[patch]
        if isinstance(pixels, UnreadableError):
            raise UnreadableError(str(pixels))
        return pixels


def _refuse_too_much(index: PatchIndex, labelled: Sequence[Patch], unlabelled: Sequence[Patch]) -> None:
    needed = _pixels(index, labelled) * 4 + _pixels(index, unlabelled) * 3
    free = free_memory()
    if free is not None and needed > _RESERVE * free:
        raise DataError(
            f"The patches of {index.root} would take about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
            "are free; leave data.in_memory out, and pack them with --cache instead."
        )


def _pixels(index: PatchIndex, patches: Sequence[Patch]) -> float:
    """About how many pixels the patches have, from some of their headers."""
    if not patches:
        return 0
    sizes = []
    for place in np.linspace(0, len(patches) - 1, min(_SAMPLE, len(patches))).astype(int):
        with suppress(UnreadableError):
            height, width = image_size(index.image_path(patches[int(place)]))
            sizes.append(height * width)
    return float(np.mean(sizes)) * len(patches) if sizes else 0


def free_memory() -> int | None:
    """Bytes that a process can still take without pushing others out; None where the system does not say."""
    if sys.platform == "win32":
        return _free_on_windows()
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # a container's own bound
        group = Path("/sys/fs/cgroup")
        bound = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        told = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        used -= int(told.get("inactive_file", 0))  # files that were read, which make room for others
        found.append(max(0, bound - used))
    return min(found, default=None)


def _free_on_windows() -> int | None:
    # MEMORYSTATUSEX: its length and the load in percent, 32 bits each, then seven sizes; the second is the free memory
    status = (ctypes.c_uint64 * 8)(64)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # which other systems do not have
    return int(status[2]) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
