"""The index of the patches: which pictures there are, which have a mask, and which photo each was cut from.

The layout is ``ROOT/<folder>/{images,masks}/<photo>_patch_<row>_<col>.png``, or plain ``ROOT/{images,masks}``. A
picture whose name does not follow the pattern is a photo of its own. Where ``ROOT/blocks.csv`` names a block of ground
for a patch, the block takes the photo's place. Nothing is decoded here: half a million patches are indexed from the
directory listings alone.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from salakseg.data.blocks import BLOCKS, read_blocks
from salakseg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".tif", ".tiff")

_PATCH_NAME = re.compile(r"(?P<photo>.+)_patch_(?P<row>\d+)_(?P<col>\d+)", re.IGNORECASE)


class Photo(NamedTuple):
    """What is never divided between parts of a split: one drone photo, or one block of ground, of one folder."""

    folder: str
    name: str


@dataclass(frozen=True, slots=True)
class Patch:
    """One picture on disk.

    Attributes:
        folder: Folder below the root, "" for the plain layout.
        image: File name in ``images/``.
        mask: File name in ``masks/``, None for an unlabelled patch.
        photo: Name of the photo that the patch was cut from, or of its block of ground.
    """

    folder: str
    image: str
    mask: str | None
    photo: str

    @property
    def photo_key(self) -> Photo:
        """Folder and photo."""
        return Photo(self.folder, self.photo)

    @property
    def name(self) -> str:
        """Folder and file name, as messages call it."""
        return f"{self.folder}/{self.image}" if self.folder else self.image

    @property
    def stem(self) -> str:
        """File name without its ending, by which mask and block are found."""
        return os.path.splitext(self.image)[0]

    @property
    def is_whole_photo(self) -> bool:
        """Whether the name says of no photo that the picture was cut from."""
        return self.stem == self.photo


class PatchStore(Protocol):
    """Where pixels are read from instead of single files: a pack, or memory."""

    def image(self, patch: Patch) -> NDArray[np.uint8]:
        """The picture of a patch, uint8 [H, W, 3]; it may be read-only."""

    def label(self, patch: Patch) -> NDArray[np.uint8]:
        """The class ids of a labelled patch, uint8 [H, W], 255 where ignored; they may be read-only."""


@dataclass(frozen=True, slots=True)
class PatchIndex:
    """All patches below a root, sorted by folder and file name.

    Attributes:
        root: The data root.
        patches: The patches.
        orphan_masks: Masks without a picture, relative to the root; they are left out.
        ground_blocks: Those of the photos that are blocks of ground, from ``blocks.csv``. Their names tell no order
            of flight: none is the neighbour of another because of its number.
        pack: Where their pixels are read from instead of their files, see `salakseg.data.reading`; None for the files.
    """

    root: Path
    patches: tuple[Patch, ...]
    orphan_masks: tuple[str, ...] = ()
    ground_blocks: frozenset[Photo] = frozenset()
    pack: PatchStore | None = None

    def image_path(self, patch: Patch) -> Path:
        """Where the picture of a patch lies."""
        return self.root / patch.folder / "images" / patch.image

    def mask_path(self, patch: Patch) -> Path:
        """Where the mask of a labelled patch lies."""
        if patch.mask is None:
            raise ValueError(f"{patch.image} is unlabelled")
        return self.root / patch.folder / "masks" / patch.mask

    def photos(self) -> dict[Photo, list[Patch]]:
        """The patches of each photo."""
        groups: dict[Photo, list[Patch]] = {}
        for patch in self.patches:
            groups.setdefault(patch.photo_key, []).append(patch)
        return groups

    @property
    def labelled_count(self) -> int:
        """How many patches have a mask."""
        return sum(patch.mask is not None for patch in self.patches)


@dataclass(frozen=True, slots=True)
class LayoutProblem:
    """A file that cannot be told from another one, or cannot be trusted.

    Attributes:
        kind: "jpeg-mask" or "doubled-stem".
        path: The file, relative to the root.
        message: One sentence on what is wrong and what to do.
    """

    kind: str
    path: str
    message: str


def index_patches(root: Path, use_blocks: bool = True) -> PatchIndex:
    """Lists every patch below a root.

    Args:
        root: The data root in one of the two layouts.
        use_blocks: Whether ``blocks.csv`` is followed where it exists; else names alone tell the photos.

    Raises:
        DataError: The root is missing, has neither layout, holds no pictures, two files claim the same patch, or
            ``blocks.csv`` is damaged.
    """
    index, problems = list_patches(root, use_blocks)
    if problems:
        raise DataError(problems[0].message)
    return index


def list_patches(root: Path, use_blocks: bool = True) -> tuple[PatchIndex, tuple[LayoutProblem, ...]]:
    """Lists every patch below a root, and what `index_patches` would refuse.

    Args:
        root: The data root in one of the two layouts.
        use_blocks: See `index_patches`.

    Returns:
        The index without the files of the problems, and the problems in the order in which they were met.

    Raises:
        DataError: The root is missing, has neither layout, or holds neither pictures nor problems; or ``blocks.csv``
            is damaged.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the folder with the patches with --data-root.")
    patches: list[Patch] = []
    orphans: list[str] = []
    problems: list[LayoutProblem] = []
    blocks = read_blocks(root / BLOCKS) if use_blocks and (root / BLOCKS).is_file() else {}
    ground: set[Photo] = set()
    for folder in _patch_folders(root):
        found, left_over, in_folder = _index_folder(root, folder, blocks.get(folder, {}), problems)
        patches += found
        orphans += left_over
        ground.update(Photo(folder, name) for name in in_folder)
    if not patches and not problems:
        raise DataError(f"{root} holds no pictures ({', '.join(IMAGE_SUFFIXES)}) in its images folders.")
    return PatchIndex(root, tuple(patches), tuple(orphans), frozenset(ground)), tuple(problems)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which ``salak-1-10`` follows ``salak-1-9``."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", name))


def _patch_folders(root: Path) -> list[str]:
    if (root / "images").is_dir():
        return [""]
    folders = sorted((p.name for p in root.iterdir() if (p / "images").is_dir()), key=natural_key)
    if not folders:
        raise DataError(
            f"{root} has no folder 'images', nor have its subfolders; expected {root}/<folder>/images and .../masks."
        )
    return folders


def _index_folder(
    root: Path, folder: str, blocks: Mapping[str, str], problems: list[LayoutProblem]
) -> tuple[list[Patch], list[str], set[str]]:
    """Patches, masks without a picture, and the blocks of ground that some of the patches are in."""
    masks = _by_stem(root, os.path.join(folder, "masks"), MASK_SUFFIXES, problems)
    images = _by_stem(root, os.path.join(folder, "images"), IMAGE_SUFFIXES, problems)
    folder = sys.intern(folder)
    patches = [
        Patch(folder, name, masks.pop(stem, None), blocks.get(stem) or sys.intern(photo_of(stem)))
        for stem, name in images.items()
    ]
    ground = {blocks[stem] for stem in images if stem in blocks}
    return patches, [os.path.join(folder, "masks", name) for name in masks.values()], ground


def _by_stem(root: Path, folder: str, suffixes: tuple[str, ...], problems: list[LayoutProblem]) -> dict[str, str]:
    """File names by stem, sorted; a lossy mask or a doubled stem is a problem. A folder that is missing is empty."""
    names: dict[str, str] = {}
    if not (root / folder).is_dir():
        return names
    for name in sorted(_visible_files(root / folder)):
        stem, suffix = os.path.splitext(name)
        suffix = suffix.lower()
        if suffix not in suffixes:
            if suffix in IMAGE_SUFFIXES:
                problem = f"{root / folder / name} is a JPEG mask, whose colours are blurred; save masks as PNG."
                problems.append(LayoutProblem("jpeg-mask", os.path.join(folder, name), problem))
        elif stem in names:
            problem = f"{root / folder} holds both {names[stem]} and {name}; remove one, a patch is known by its stem."
            problems.append(LayoutProblem("doubled-stem", os.path.join(folder, name), problem))
        else:
            names[stem] = name
    return names


def _visible_files(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())


def photo_of(stem: str) -> str:
    """The photo or mosaic that a patch was cut from, by the stem of its file; the stem itself if it does not say."""
    match = _PATCH_NAME.fullmatch(stem)
    return match["photo"] if match else stem


def count_by_folder(patches: Iterable[Patch]) -> dict[str, tuple[int, int]]:
    """Labelled and all patches of each folder, for a first look at the data."""
    counts: dict[str, tuple[int, int]] = {}
    for patch in patches:
        labelled, total = counts.get(patch.folder, (0, 0))
        counts[patch.folder] = (labelled + (patch.mask is not None), total + 1)
    return counts
