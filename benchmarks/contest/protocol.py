"""The protocol: which image of a scene plays which part, and the only folder that training is given.

In every scene ("Tile") part 1 is labelled, parts 2 to 4 are unlabelled, part 5 is validation; all later parts are test.
`prepare` copies parts 1 to 5 and nothing else, so that training and tuning have no test image and no test mask to open.
Masks of parts 2 to 4 lie in a folder of their own, which only the run that learns from all labels looks into.

Axes: H row, W column, C red green blue.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prepare_aerial import ROLES, even_parts, shrink

from contest.settings import Budget
from salakseg.classes import ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.pack import Pack
from salakseg.data.patches import Patch, PatchIndex, Photo, natural_key
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError
from salakseg.train.data import TrainingData

HEAD = "protocol.json"
CLASSES = "class_mapping.csv"
HIDDEN = "masks-of-unlabelled"
"""Folder beside `images` and `masks` with the masks that only `supervised-all` may read."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image in memory.

    Attributes:
        name: Scene and image, such as ``Tile 1/image_part_005``.
        image_HWC: uint8 [H, W, 3].
        label_HW: Class ids, uint8 [H, W], 255 where ignored; None where training may not know them.
    """

    name: str
    image_HWC: NDArray[np.uint8]
    label_HW: NDArray[np.uint8] | None


def prepare(source: Path, out: Path, reduce: int) -> None:
    """Copies what training may see; the folder appears under its name only when whole.

    Args:
        source: Folder with `Tile 1`, `Tile 2`, ... as published.
        out: Folder to be made.
        reduce: What the sides of the images are divided by; with 1 the files are copied as they are.

    Raises:
        DataError: The source lacks something, or the folder is there already with another content.
    """
    if (out / HEAD).is_file():
        if json.loads((out / HEAD).read_text(encoding="utf-8"))["reduce"] != reduce:
            raise DataError(f"{out} was prepared for another --budget; name another folder.")
        return
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} holds something else; name another folder.")
    class_map = ClassMap.from_csv(source / CLASSES)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path, part in pictures_of(source):
        role = ROLES.get(part, Role.TEST)
        if role is Role.TEST:
            continue
        folder = partial / path.parents[1].name
        masks = folder / (HIDDEN if role is Role.UNLABELLED else "masks")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        masks.mkdir(exist_ok=True)
        picture = read_labelled(path, class_map, reduce)
        assert picture.label_HW is not None
        Image.fromarray(picture.label_HW).save(masks / f"{path.stem}.png")
        if reduce == 1:
            shutil.copy(path, folder / "images")
        else:
            Image.fromarray(picture.image_HWC).save(folder / "images" / f"{path.stem}.png")
    shutil.copy(source / CLASSES, partial)
    (partial / HEAD).write_text(json.dumps({"reduce": reduce}), encoding="utf-8")
    os.replace(partial, out)


def pictures_of(source: Path) -> Iterator[tuple[Path, int]]:
    """The images below a folder in order, each with the number of its part.

    Raises:
        DataError: There are none.
    """
    found = False
    for tile in sorted(source.glob("Tile *"), key=lambda path: natural_key(path.name)):
        for path in sorted((tile / "images").glob("image_part_*")):
            found = True
            yield path, int(path.stem.rpartition("_")[2])
    if not found:
        raise DataError(f"{source} holds no `Tile N/images/image_part_00P.jpg`; name the folder as it was published.")


def read_labelled(path: Path, class_map: ClassMap, reduce: int) -> Picture:
    """An image with its mask, both made smaller."""
    image_HWC = read_image(path)
    label_HW = read_mask(path.parents[1] / "masks" / f"{path.stem}.png", class_map).label_HW
    if reduce > 1:
        image_HWC = shrink(image_HWC, reduce, Image.Resampling.LANCZOS)
        label_HW = shrink(label_HW, reduce, Image.Resampling.NEAREST)
    return Picture(f"{path.parents[1].name}/{path.stem}", image_HWC, label_HW)


@dataclass(frozen=True, slots=True)
class ContestData:
    """What a run is given.

    Attributes:
        training: Patches in memory, roles and counts, as the trainer wants them.
        validation: Whole validation images.
    """

    training: TrainingData
    validation: tuple[Picture, ...]


def load_data(prepared: Path, all_labelled: bool, budget: Budget) -> ContestData:
    """Reads a prepared folder into memory.

    Args:
        prepared: See `prepare`.
        all_labelled: Whether parts 2 to 4 are labelled too; else their masks are not opened.
        budget: Says how much smaller its images must be, and how large the windows are that training draws.

    Raises:
        DataError: It is no such folder, or one of another budget.
    """
    if not (prepared / HEAD).is_file():
        raise DataError(f"{prepared} was not made by --prepare; run `selftraining.py --prepare SOURCE --data FOLDER`.")
    if json.loads((prepared / HEAD).read_text(encoding="utf-8"))["reduce"] != budget.reduce:
        raise DataError(f"{prepared} was not prepared for --budget {budget.name}; name another folder, or prepare one.")
    class_map = ClassMap.from_csv(prepared / CLASSES)
    memory = Memory(class_map)
    roles: dict[Photo, Role] = {}
    validation: list[Picture] = []
    pixels = np.zeros(256, np.int64)
    for path, part in pictures_of(prepared):
        role = ROLES[part]
        hidden = role is Role.UNLABELLED
        if hidden and all_labelled:
            role = Role.LABELLED
        label_HW = None
        if role is not Role.UNLABELLED:
            mask = path.parents[1] / (HIDDEN if hidden else "masks") / f"{path.stem}.png"
            label_HW = read_mask(mask, class_map).label_HW
        picture = Picture(f"{path.parents[1].name}/{path.stem}", read_image(path), label_HW)
        roles[Photo(path.parents[1].name, path.stem)] = role
        if role is Role.VAL:
            validation.append(picture)
            memory.add(picture, [(slice(None), slice(None))])
            continue
        memory.add(picture, cells(picture.image_HWC.shape[:2], budget.window))
        if label_HW is not None:
            pixels += np.bincount(label_HW.ravel(), minlength=256)
    index = PatchIndex(prepared, tuple(memory.patches), pack=cast(Pack, memory))
    split = Split(roles)
    labels = [memory.label(patch) for patch in split.patches(index, Role.LABELLED)]
    counts = [np.bincount(label_HW.ravel(), minlength=256)[: len(class_map)] for label_HW in labels]
    data = TrainingData(index, class_map, split, pixels[: len(class_map)], patch_pixels=np.array(counts, np.int64))
    return ContestData(data, tuple(validation))


def cells(size: tuple[int, ...], side: int) -> list[tuple[slice, slice]]:
    """Overlapping pieces of an image; a window drawn anywhere in one of them has its middle in that piece's own cell.

    Windows of ``side`` are so drawn from everywhere in an image, and from large images more of them, while each
    piece remains a patch that can be drawn more often if it shows something rare.

    Args:
        size: Height and width of the image.
        side: Side of a cell, and of the windows, pixels.
    """
    half = side // 2
    pieces: list[list[slice]] = []
    for length in size[:2]:
        parts = even_parts(length, side)
        pieces.append([slice(max(part.start - half, 0), min(part.stop + half, length)) for part in parts])
    return [(rows, cols) for rows in pieces[0] for cols in pieces[1]]


class Memory:
    """Pictures and labels of patches as the trainer reads them from a pack, without a copy and without a file."""

    def __init__(self, class_map: ClassMap) -> None:
        self.class_map = class_map
        self.patches: list[Patch] = []
        self._pixels: dict[tuple[str, str], tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = {}

    def add(self, picture: Picture, windows: list[tuple[slice, slice]]) -> None:
        folder, _, photo = picture.name.partition("/")
        for number, window in enumerate(windows):
            image = f"{photo}_patch_{number:03d}_000.png"
            label_HW = None if picture.label_HW is None else picture.label_HW[window]
            self._pixels[folder, image] = (picture.image_HWC[window], label_HW)
            self.patches.append(Patch(folder, image, None if label_HW is None else image, photo))

    def image(self, patch: Patch) -> NDArray[np.uint8]:
        return self._pixels[patch.folder, patch.image][0]

    def label(self, patch: Patch) -> NDArray[np.uint8]:
        label_HW = self._pixels[patch.folder, patch.image][1]
        assert label_HW is not None
        return label_HW

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        raise AttributeError(f"images in memory have no {name!r}; the trainer asks a pack for something new")
