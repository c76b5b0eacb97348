"""The pictures that exported files are judged and calibrated on: patches of the run, laid out as tiles.

Axes: C channel, H row, W column.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.data.patches import Patch, PatchIndex, index_patches
from salakseg.data.reading import read_picture
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError, ExportError, UnreadableError
from salakseg.evaluate.inference import read_batches
from salakseg.network.checkpoint import Checkpoint

FEW_TILES = 3
"""Real tiles that files are compared on where there are no labels."""

Thing = TypeVar("Thing")

Sides = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture of the size of a file's input.

    Attributes:
        image_CHW: uint8 [3, H, W].
        label_HW: Class ids, uint8 [H, W], 255 where unknown.
    """

    image_CHW: NDArray[np.uint8]
    label_HW: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RunData:
    """The data that a checkpoint was trained on, as far as it is at hand.

    Attributes:
        index: All patches.
        split: Their roles; photos that came after the training are in no part.
        class_map: The checkpoint's.
    """

    index: PatchIndex
    split: Split
    class_map: ClassMap

    def labelled_tiles(self, sides: Sides, most: int) -> list[Tile]:
        """Tiles with labels of the validation part; none where it has none.

        Args:
            sides: Of a tile.
            most: Number of tiles; the patches for them are drawn evenly from the whole part, and of a patch that is
                larger than a tile some pieces, evenly too.

        Raises:
            DataError: A picture or mask that cannot be used.
        """
        patches = self.split.patches(self.index, Role.VAL)
        if not patches:
            return []
        probe = next(self._readable(patches), None)
        if probe is None:
            return []
        a_tile = max(1, sides[0] // probe.shape[0]) * max(1, sides[1] // probe.shape[1])
        chosen = _evenly(patches, most * a_tile)
        each = -(-most * a_tile // len(chosen))
        pieces = (
            piece
            for batch in read_batches(self.index, chosen, self.class_map, on_unreadable=lambda patch, error: None)
            for example in batch
            for piece in _evenly(list(_cut(example.image_HWC, example.label_HW, sides)), each)
        )
        return _evenly(list(_lay_out(pieces, sides)), most)

    def plain_tiles(self, sides: Sides, most: int) -> list[Tile]:
        """Tiles of any patches, without labels."""
        return self._without_labels(_evenly(self.index.patches, most), sides)[:most]

    def training_tiles(self, sides: Sides, most: int) -> list[Tile]:
        """Tiles of the patches that the network learnt from, as many labelled as unlabelled, never of held-out ones.

        Raises:
            ExportError: There are none.
            DataError: A picture cannot be read.
        """
        parts = [self.split.patches(self.index, role) for role in (Role.LABELLED, Role.UNLABELLED)]
        patches = [patch for part in parts for patch in _evenly(part, -(-most // sum(map(bool, parts))) if part else 0)]
        if not patches:
            raise ExportError(
                f"{self.index.root} holds no patch that this checkpoint was trained on, and int8 is calibrated on "
                "those; name the run's patches with --data-root."
            )
        return self._without_labels(patches[:most], sides)

    def _readable(self, patches: Iterable[Patch]) -> Iterator[NDArray[np.uint8]]:
        """The pictures, without damaged ones, which training skips as well."""
        for patch in patches:
            with suppress(UnreadableError):
                yield read_picture(self.index, patch)

    def _without_labels(self, patches: Iterable[Patch], sides: Sides) -> list[Tile]:
        images = list(self._readable(patches))
        unknown = (np.full(image.shape[:2], IGNORE_INDEX, np.uint8) for image in images)
        cut = (_cut(image, label, sides) for image, label in zip(images, unknown, strict=True))
        return [tile for pieces in cut for tile in list(_lay_out(pieces, sides))[:1]]


def open_run_data(checkpoint: Checkpoint, data_root: Path | None) -> RunData | None:
    """The data of a run; None where it is not at hand and nobody said where it is.

    Args:
        checkpoint: Of the run.
        data_root: Where the patches are; None looks where they were at training time.

    Raises:
        DataError: There are no patches at `data_root`.
    """
    if data_root is None and not os.path.isdir(checkpoint.data_root or ""):  # is_dir() fails where one may not look
        return None
    try:
        index = index_patches(data_root or Path(checkpoint.data_root))
    except (DataError, OSError):
        if data_root is not None:
            raise
        return None
    roles = Split.from_rows(checkpoint.split).roles
    split = Split({photo: roles.get(photo, Role.GAP) for photo in index.photos()})
    return RunData(index, split, checkpoint.class_map)


def random_tiles(sides: Sides, count: int) -> list[Tile]:
    """Noise, the same at every call."""
    images = np.random.default_rng(0).integers(0, 256, (count, 3, *sides), dtype=np.uint8)
    return [Tile(image, np.full(sides, IGNORE_INDEX, np.uint8)) for image in images]


def _evenly(things: Sequence[Thing], most: int) -> list[Thing]:
    """At most so many of them, from the first to the last."""
    chosen = np.unique(np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int))
    return [things[int(place)] for place in chosen]


def _lay_out(pieces: Iterable[Tile], sides: Sides) -> Iterator[Tile]:
    """Lays pieces of one size side by side; what is left of a tile is filled by repetition and labelled 255."""
    waiting: list[Tile] = []
    for piece in pieces:
        if waiting and piece.label_HW.shape != waiting[0].label_HW.shape:
            yield _joined(waiting, sides)
            waiting = []
        waiting.append(piece)
        height, width = piece.label_HW.shape
        if len(waiting) == (sides[0] // height) * (sides[1] // width):
            yield _joined(waiting, sides)
            waiting = []
    if waiting:
        yield _joined(waiting, sides)


def _cut(image_HWC: NDArray[np.uint8], label_HW: NDArray[np.uint8], sides: Sides) -> Iterator[Tile]:
    """Pieces of a picture that are no larger than a tile; what is left of the picture is dropped."""
    image_CHW = image_HWC.transpose(2, 0, 1)
    height, width = (min(own, side) for own, side in zip(label_HW.shape, sides, strict=True))
    for top in range(0, label_HW.shape[0] - height + 1, height):
        for left in range(0, label_HW.shape[1] - width + 1, width):
            place = (slice(top, top + height), slice(left, left + width))
            yield Tile(image_CHW[:, *place].copy(), label_HW[place].copy())  # the picture itself need not stay


def _joined(pieces: Sequence[Tile], sides: Sides) -> Tile:
    """One tile of at most as many pieces of one size as fit in."""
    height, width = pieces[0].label_HW.shape
    columns = sides[1] // width
    rows = -(-len(pieces) // columns)
    image = np.empty((3, rows * height, columns * width), np.uint8)
    label = np.full((rows * height, columns * width), IGNORE_INDEX, np.uint8)
    for place in range(rows * columns):
        top, left = place // columns * height, place % columns * width
        piece = pieces[place % len(pieces)]
        image[:, top : top + height, left : left + width] = piece.image_CHW
        if place < len(pieces):
            label[top : top + height, left : left + width] = piece.label_HW
    beyond = tuple(side - own for side, own in zip(sides, label.shape, strict=True))
    border = ((0, beyond[0]), (0, beyond[1]))
    return Tile(np.pad(image, ((0, 0), *border), "wrap"), np.pad(label, border, constant_values=IGNORE_INDEX))
