"""The squares that can be revealed, and training data with some of them.

Axes: H row, W column, C red green blue, K class, N square.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from contest.protocol import CLASSES, HEAD, HIDDEN, ContestData, Memory, Picture, cells, pictures_of
from prepare_aerial import ROLES

from salakseg.classes import ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.pack import Pack
from salakseg.data.patches import PatchIndex, Photo
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError
from salakseg.suggest.sources import PatchSource
from salakseg.train.data import TrainingData

_APART = 1e6  # pixels between the planes of different images: far enough not to be neighbours


class Square(NamedTuple):
    """A square of a pool image, row and column counted in squares."""

    scene: str
    image: str
    row: int
    col: int


class Pool:
    """Everything in memory: labelled images, pool images with masks that only `training` opens, validation images.

    Args:
        prepared: Folder of ``selftraining.py --prepare``.
        side: Side of a square, pixels.
        window: Side of the windows that training draws from the labelled images, pixels.

    Raises:
        DataError: It is no such folder, or no image holds a square.
    """

    def __init__(self, prepared: Path, side: int, window: int) -> None:
        if not (prepared / HEAD).is_file():
            raise DataError(f"{prepared} was not made by selftraining.py --prepare.")
        self.root, self.side, self.window = prepared, side, window
        self.class_map = ClassMap.from_csv(prepared / CLASSES)
        self.labelled: list[Picture] = []
        self.validation: list[Picture] = []
        self.hidden: dict[tuple[str, str], Picture] = {}
        for path, part in pictures_of(prepared):
            scene, role = path.parents[1].name, ROLES[part]
            mask = path.parents[1] / (HIDDEN if role is Role.UNLABELLED else "masks") / f"{path.stem}.png"
            picture = Picture(f"{scene}/{path.stem}", read_image(path), read_mask(mask, self.class_map).label_HW)
            if role is Role.UNLABELLED:
                self.hidden[scene, path.stem] = picture
            else:
                (self.labelled if role is Role.LABELLED else self.validation).append(picture)
        self.squares = [
            Square(scene, image, row, col)
            for (scene, image), picture in self.hidden.items()
            for row in range(picture.image_HWC.shape[0] // side)
            for col in range(picture.image_HWC.shape[1] // side)
        ]
        if not self.squares:
            raise DataError(f"{prepared} has no pool image of {side} x {side} pixels; take a smaller --side.")

    def cut(self, square: Square) -> Picture:
        """A square with its label."""
        whole = self.hidden[square.scene, square.image]
        assert whole.label_HW is not None
        top, left = square.row * self.side, square.col * self.side
        here = slice(top, top + self.side), slice(left, left + self.side)
        return Picture(whole.name, whole.image_HWC[here], whole.label_HW[here])

    def training(self, revealed: Sequence[Square]) -> ContestData:
        """The labelled images and the revealed squares; no other mask of the pool is in it."""
        memory = Memory(self.class_map)
        roles: dict[Photo, Role] = {}
        pixels_K = np.zeros(256, np.int64)

        def add(picture: Picture, role: Role, windows: list[tuple[slice, slice]], name: str) -> None:
            memory.add(Picture(name, picture.image_HWC, picture.label_HW), windows)
            roles[Photo(*name.split("/"))] = role
            if role is Role.LABELLED:
                assert picture.label_HW is not None
                pixels_K[:] += np.bincount(picture.label_HW.ravel(), minlength=256)

        whole = [(slice(None), slice(None))]
        for picture in self.labelled:
            add(picture, Role.LABELLED, cells(picture.image_HWC.shape[:2], self.window), picture.name)
        for square in revealed:
            picture = self.cut(square)
            add(picture, Role.LABELLED, whole, f"{picture.name}-{square.row}-{square.col}")
        for picture in self.validation:
            add(picture, Role.VAL, whole, picture.name)
        index = PatchIndex(self.root, tuple(memory.patches), pack=cast(Pack, memory))
        training = TrainingData(index, self.class_map, Split(roles), pixels_K[: len(self.class_map)])
        return ContestData(training, tuple(self.validation))

    def source(self, revealed: Sequence[Square]) -> "SquareSource":
        """What suggestions are made from: all squares and the labelled images, without any mask."""
        return SquareSource(self, revealed)


class SquareSource(PatchSource):
    """Squares as patches; those that are revealed, and pieces of the labelled images, count as labelled.

    Args:
        pool: The images.
        revealed: Squares whose masks are known.
    """

    def __init__(self, pool: Pool, revealed: Sequence[Square]) -> None:
        memory = Memory(pool.class_map)
        side = pool.side
        for square in pool.squares:
            name = f"{square.scene}/{square.image}-{square.row}-{square.col}"
            memory.add(Picture(name, pool.cut(square).image_HWC, None), [(slice(None), slice(None))])
        for picture in pool.labelled:
            height, width = (length // side for length in picture.image_HWC.shape[:2])
            places = [(row * side, col * side) for row in range(height) for col in range(width)]
            windows = [(slice(top, top + side), slice(left, left + side)) for top, left in places]
            memory.add(Picture(picture.name, picture.image_HWC, None), windows)
        super().__init__(PatchIndex(pool.root, tuple(memory.patches), pack=cast(Pack, memory)), None, side)
        known = set(revealed)
        labelled = [square in known for square in pool.squares]
        self.labelled_N = np.array(labelled + [True] * (len(self.patches) - len(labelled)))
        # Every piece has a place of its own: only what is revealed is left out, not its whole image
        images = {key: number for number, key in enumerate(pool.hidden)}
        ground = [(images[s.scene, s.image] * _APART + s.col * side, -s.row * side) for s in pool.squares]
        rest = len(self.patches) - len(ground)
        self.ground_N2 = np.array(ground + [(-_APART * (number + 1), 0) for number in range(rest)], float)
        self.side_m = float(side)
