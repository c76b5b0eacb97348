"""What the network looks at, from a patch folder or from an orthomosaic.

Axes: N picture, M cell, C red green blue, H row, W column.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from salakseg.data.blocks import GAP_ENDING
from salakseg.data.patches import Patch, PatchIndex, Photo, photo_of
from salakseg.data.reading import read_picture
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError
from salakseg.mapping.geodesy import metres_a_radian
from salakseg.prepare.parts.footprints import FILE_NAME, read_footprints

_SPECK = 9  # pixels
_LARGE = 2  # tiles: a picture with a longer side is looked at in windows


class Cell(NamedTuple):
    """One picture for the network.

    Attributes:
        row, col: Place of a window in its photo, or of a tile in its orthomosaic, counted in cells.
        image_CHW: uint8 [3, H, W].
        valid_HW: Which pixels count, bool.
    """

    row: int
    col: int
    image_CHW: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]


class Source(ABC):
    """Pictures that candidates are made of.

    Attributes:
        title: What it is called in messages.
        names: Names of the pictures, none of them twice.
        threads: How many may read at once.
        about: Plain values beside the model that decide what the network sees.
        base_N: Number of the photo of each picture, int64.
        place_N2: Row and column of each picture in its photo, int64, counted in cells.
        labelled_N: Which pictures are labelled, bool.
        ground_N2: Where each lies in metres east and north of some point, float64; NaN where nobody knows.
        side_m: Side of a cell on the ground in metres; None if unknown.
        step_m: From one cell to the next of its row, metres; less than the side where cells overlap.
    """

    title: str
    names: Sequence[str]
    threads: int
    about: Mapping[str, Any]
    base_N: NDArray[np.int64]
    place_N2: NDArray[np.int64]
    labelled_N: NDArray[np.bool_]
    ground_N2: NDArray[np.float64]
    side_m: float | None
    step_m: float | None

    @abstractmethod
    def read(self, number: int) -> list[Cell]:
        """The cells of a picture, those without a valid pixel left out.

        Raises:
            UnreadableError: A damaged picture.
            SalaksegError: Anything else.
        """


class PatchSource(Source):
    """The labelled and the unlabelled patches of a folder; see `Source`.

    Patches of the validation and test parts, and those beside them that nobody uses, are left out: a label for them
    would teach nothing.

    Args:
        index: All patches.
        split: Roles of the photos; None takes every patch for labelled or unlabelled by its mask.
        tile: Side of the windows of photos that are not cut, pixels.

    Attributes:
        patches: Those that are looked at, in the order of `names`.
        photos: The photo of each number in `base_N`.

    Raises:
        DataError: There is no unlabelled patch.
    """

    threads = 2

    def __init__(self, index: PatchIndex, split: Split | None, tile: int) -> None:
        self.index, self.title, self._tile = index, str(index.root), tile
        self.patches = tuple(_with_a_part(index, split))
        self.names = [patch.name for patch in self.patches]
        self.about = {"root": str(index.root.resolve()), "tile": tile}
        self.labelled_N = np.array([patch.mask is not None for patch in self.patches], bool)
        if self.labelled_N.all():
            raise DataError(f"{index.root} has no unlabelled patch to suggest; add imagery that nobody has labelled.")
        self.place_N2 = np.array([_place(patch) or (0, 0) for patch in self.patches], np.int64).reshape(-1, 2)
        self.ground_N2, self.side_m = _ground(index, self.patches)
        known_N: NDArray[np.bool_] = np.asarray(np.isfinite(self.ground_N2).all(axis=1))
        photo_N = [_photo(index, patch, bool(known)) for patch, known in zip(self.patches, known_N, strict=True)]
        self.photos = tuple(dict.fromkeys(photo_N))
        number = {photo: place for place, photo in enumerate(self.photos)}
        self.base_N = np.array([number[photo] for photo in photo_N], np.int64)
        self.step_m = _step(self.base_N, self.place_N2, self.ground_N2) or self.side_m

    def read(self, number: int) -> list[Cell]:
        """The cells of a patch; black areas do not count: `salakseg prepare` paints what is not valid black."""
        image_HWC = read_picture(self.index, self.patches[number])
        height, width = image_HWC.shape[:2]
        # A cut patch is one cell, whatever its size, or its windows would have the places of other patches
        longer = 0 if _place(self.patches[number]) else max(height, width)
        rows, cols = (self._windows(length, longer) for length in (height, width))
        cells = []
        for row, ys in enumerate(rows):
            for col, xs in enumerate(cols):
                image_CHW = np.ascontiguousarray(np.moveaxis(image_HWC[ys, xs], -1, 0))
                valid_HW = _valid(image_HWC[ys, xs])
                if valid_HW.any():
                    cells.append(Cell(row, col, image_CHW, valid_HW))
        return cells

    def _windows(self, length: int, longer: int) -> list[slice]:
        """Windows side by side, all of one size near the tile's; what a division leaves over, some pixels, is cut."""
        if longer <= _LARGE * self._tile:
            return [slice(0, length)]
        count = max(1, round(length / self._tile))
        side = length // count
        start = (length - count * side) // 2
        return [slice(start + side * n, start + side * (n + 1)) for n in range(count)]


def _valid(image_HWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Everything but black areas; black specks, such as deep shadow, are pictures of something."""
    black_HW = image_HWC.max(axis=2) == 0
    if not black_HW.any():
        return np.ones(black_HW.shape, bool)
    return np.asarray(~ndimage.binary_opening(black_HW, np.ones((_SPECK, _SPECK), bool)), bool)


def _with_a_part(index: PatchIndex, split: Split | None) -> Sequence[Patch]:
    if split is None:
        return index.patches
    useful = {photo for photo, role in split.roles.items() if role in (Role.LABELLED, Role.UNLABELLED)}
    return [patch for patch in index.patches if patch.photo_key in useful and not patch.photo.endswith(GAP_ENDING)]


def _photo(index: PatchIndex, patch: Patch, is_known: bool) -> Photo:
    """What a patch was cut from; a block of ground tells of no flight, and holds patches of several photos."""
    if patch.photo_key in index.ground_blocks and not is_known:
        return Photo(patch.folder, photo_of(patch.stem))
    return patch.photo_key


def _place(patch: Patch) -> tuple[int, int] | None:
    """Row and column by the name; None of a photo that is not cut."""
    parts = patch.stem.rsplit("_", 2)
    if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal() and parts[0].lower().endswith("_patch"):
        return int(parts[1]), int(parts[2])
    return None


def _ground(index: PatchIndex, patches: Sequence[Patch]) -> tuple[NDArray[np.float64], float | None]:
    """Middle of each patch in metres, and the side of a patch; from ``patches.gpkg`` where there is one."""
    ground_N2 = np.full((len(patches), 2), np.nan)
    path: Path = index.root / FILE_NAME
    if not path.is_file():
        return ground_N2, None
    corner_N42 = np.radians(read_footprints(path, replace(index, patches=tuple(patches))).corner_N42)
    known_N = np.isfinite(corner_N42).all(axis=(1, 2))
    if not known_N.any():
        return ground_N2, None
    metres = np.array(metres_a_radian(float(corner_N42[known_N, :, 1].mean())))
    corner_N42 = corner_N42 * metres
    ground_N2 = corner_N42.mean(axis=1)
    edge_N2 = corner_N42[known_N, 1] - corner_N42[known_N, 0]
    return ground_N2, float(np.median(np.hypot(edge_N2[:, 0], edge_N2[:, 1])))


def _step(base_N: NDArray[np.int64], place_N2: NDArray[np.int64], ground_N2: NDArray[np.float64]) -> float | None:
    """Metres from a patch to the next one of its row; None where there is no such pair."""
    order = np.lexsort((place_N2[:, 1], place_N2[:, 0], base_N))
    base_N, place_N2, ground_N2 = base_N[order], place_N2[order], ground_N2[order]
    beside_N = (np.diff(base_N) == 0) & (np.diff(place_N2[:, 0]) == 0) & (np.diff(place_N2[:, 1]) == 1)
    apart_N = np.hypot(*np.diff(ground_N2, axis=0).T)[beside_N]
    apart_N = apart_N[np.isfinite(apart_N)]
    return float(np.median(apart_N)) if len(apart_N) else None


def photo_name(photo: Photo) -> str:
    """Folder and photo for people."""
    return f"{photo.folder}/{photo.name}" if photo.folder else photo.name
