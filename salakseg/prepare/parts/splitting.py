"""A split of a patch folder, by place or by the photos' numbers or folders: what ``salakseg splits make`` does.

Read `make_parts` first. By place, ``blocks.csv`` names each patch's block of ground and ``splits.csv`` the role of each
block; by numbers or folders there is ``splits.csv`` alone. Axes: N patches, K classes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.data.balance import missing_classes
from salakseg.data.blocks import BLOCKS, GAP_ENDING, write_blocks
from salakseg.data.patches import Patch, PatchIndex, Photo, index_patches
from salakseg.data.spatial import GAP, TEST, VAL, SpatialDivision, SpatialPlan, divide_ground
from salakseg.data.splits import (
    HELD_OUT,
    SPLITS,
    Role,
    Split,
    SplitPlan,
    labelled_meanwhile,
    make_split,
    read_split,
    write_split,
)
from salakseg.data.survey import Survey, survey_masks
from salakseg.errors import DataError
from salakseg.prepare.parts.footprints import FILE_NAME, Footprints, read_footprints, write_parts
from salakseg.prepare.parts.photo_places import find_photos, photo_footprints
from salakseg.prepare.parts.planes import Ground, place_on_planes
from salakseg.prepare.parts.shared_ground import shared_ground
from salakseg.shell import as_argument

By = Literal["auto", "square", "gps", "block", "folder"]
Bar = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is to do."""

POSITION_ERROR_M = 10.0
"""Default buffer around photos placed by GPS, whose footprints already reach as far as a photo shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRequest:
    """How a patch folder is to be divided.

    Attributes:
        by: "square" takes ``patches.gpkg`` (and `photos` for what is not in it), "gps" the photos' EXIF, "block" runs
            of consecutive photos, "folder" whole folders. "auto" takes the first that is possible: "square" where
            there is a ``patches.gpkg``, "gps" where `photos` have a position, else "block".
        spatial: Blocks, buffer, shares and seed; by numbers or folders the shares and the seed.
        gap: Photos to either side of a held-out one that are used nowhere, by "block".
        calibration_share: Wanted share of the calibration part, by "block" or "folder"; by place there is none.
        photos: Folder of the photos that patches were cut from; None where the patches are whole photos.
        footprint_m: Metres from corner to corner that a photo shows; None works it out.
        overwrite: Whether an existing split may be replaced.
    """

    by: By = "auto"
    spatial: SpatialPlan = field(default_factory=SpatialPlan)
    gap: int = 3
    calibration_share: float = 0.05
    photos: Path | None = None
    footprint_m: float | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A divided patch folder.

    Attributes:
        index: The patches, in their blocks.
        split: Their roles.
        survey: Class pixels by photo or block.
        by: How it was divided.
        ground: Where the patches are; None where that is not known.
        division: Blocks and buffer; None where it was not divided by place.
    """

    index: PatchIndex
    split: Split
    survey: Survey
    by: By
    ground: Ground | None = None
    division: SpatialDivision | None = None


def _no_bar(what: str, done: int, total: int) -> None:
    pass


def make_parts(root: Path, class_map: ClassMap, request: SplitRequest, bar: Bar = _no_bar) -> Parts:
    """Divides a patch folder and writes the split.

    Args:
        root: The data root.
        class_map: Classes to read masks by.
        request: How.
        bar: Told the progress.

    Raises:
        DataError: There is a split that is not to be replaced, places are missing, a mask is broken, or the ground or
            the photos are too few for the wanted parts.
    """
    refuse_existing(root, request.overwrite)
    index = index_patches(root, use_blocks=False)
    by = _choose(root, index, request)
    if by in ("square", "gps"):
        ground = place_on_planes(_footprints(root, index, by, request, bar))
        parts = _by_place(index, class_map, ground, by, _with_buffer(request.spatial, by), bar)
    else:
        survey = survey_masks(index, _labelled(index), class_map, lambda done, all_: bar("masks", done, all_))
        spatial = request.spatial
        plan = SplitPlan(
            by, spatial.val_share, spatial.test_share, request.gap, spatial.seed, request.calibration_share
        )
        parts = Parts(index, make_split(index, survey, class_map, plan), survey, by)
    _write(parts)
    return parts


def refuse_existing(root: Path, overwrite: bool) -> None:
    """Refuses to replace a split.

    Raises:
        DataError: There is one, and it is not to be replaced.
    """
    found = [name for name in (SPLITS, BLOCKS) if (root / name).exists()]
    if found and not overwrite:
        raise DataError(
            f"{root / found[0]} exists, and runs that share it can be compared; replace it with --overwrite."
        )


def known_ground(index: PatchIndex, photos: Path | None = None, footprint_m: float | None = None) -> Ground | None:
    """Where patches are, for a picture of them; None where that of any is not known.

    Raises:
        DataError: ``patches.gpkg`` or a photo cannot be read.
    """
    found = known_footprints(index, photos, footprint_m)
    return place_on_planes(found) if found is not None and found.known_N.all() else None


def known_footprints(
    index: PatchIndex, photos: Path | None = None, footprint_m: float | None = None
) -> Footprints | None:
    """What is known of the places of patches; None for nothing.

    Args:
        index: The patches.
        photos: Folder of the photos that they were cut from, with GPS in their EXIF.
        footprint_m: Ground that a photo shows from corner to corner, metres; by height and focal length if None.

    Raises:
        DataError: ``patches.gpkg`` or a photo cannot be read.
    """
    path = index.root / FILE_NAME
    found = read_footprints(path, index) if path.is_file() else None
    if photos is not None and (found is None or not found.known_N.all()):
        by_name = index_patches(index.root, use_blocks=False)
        places = photo_footprints(by_name, _without_place(by_name, find_photos(by_name, photos), found), footprint_m)
        found = places if found is None else found.or_else(places)
    return found


def _without_place(index: PatchIndex, photos: dict[Photo, Path], found: Footprints | None) -> dict[Photo, Path]:
    """The photos of patches whose place is not known yet; an orthomosaic that lies beside them is none to look into."""
    if found is None:
        return photos
    lost = {patch.photo_key for patch, known in zip(index.patches, found.known_N, strict=True) if not known}
    return {photo: path for photo, path in photos.items() if photo in lost}


def split_after_cutting(root: Path, class_map: ClassMap, photos: Path | None, bar: Bar = _no_bar) -> str:
    """Divides patches that were just cut, so that training can begin; a split that is there already is kept.

    Args:
        root: The data root.
        class_map: Classes to read masks by.
        photos: Folder of the photos that patches were cut from; None where there is no single one.
        bar: Told the progress.

    Returns:
        A sentence on the split, or on why there is none.

    Raises:
        DataError: A mask is broken, or the split cannot be written.
    """
    path = root / SPLITS
    if not path.is_file():
        try:
            parts = make_parts(root, class_map, SplitRequest(photos=photos), bar)
        except DataError as error:
            return f"attention: no split was made: {error}"
        return f"split by {parts.by}: {path}; look at it with `salakseg splits show {as_argument(root)}`"
    try:
        index = index_patches(root)
        split = read_split(path, index)
    except DataError as error:
        return f"attention: the split is older than the patches: {error}"
    if (root / FILE_NAME).is_file():
        write_parts(root / FILE_NAME, index, [role.value for role in uses_of_patches(index, split)])
    shared = shared_ground(index, split)
    if shared:
        (one, other), anew = shared[0], f"salakseg splits make {as_argument(root)} --overwrite"
        return (
            f"attention: {path} is kept, but was made for other patches: {one.name} and {other.name}, of different "
            f"parts, show the same ground. Make it anew with: {anew}"
        )
    if fresh := len(labelled_meanwhile(index, split.roles)):
        return (
            f"attention: {path} is kept; {fresh:,} labelled patches of it are unlabelled data still, and "
            f"`salakseg splits extend {as_argument(root)}` lets them join the labelled part"
        )
    return f"split: {path} is kept"


def uses_of_patches(index: PatchIndex, split: Split) -> list[Role]:
    """What each patch is used for: its photo's role, but for those without a mask.

    In a labelled photo these are unlabelled data; in a held-out one they are used nowhere.
    """
    without = {Role.LABELLED: Role.UNLABELLED, **dict.fromkeys(HELD_OUT, Role.GAP)}
    roles = [split.roles[patch.photo_key] for patch in index.patches]
    return [
        without.get(role, role) if patch.mask is None else role
        for patch, role in zip(index.patches, roles, strict=True)
    ]


def _choose(root: Path, index: PatchIndex, request: SplitRequest) -> By:
    if request.by != "auto":
        return request.by
    if (root / FILE_NAME).is_file():
        return "square"
    if request.photos is not None:
        found = find_photos(index, request.photos)
        some = dict(list(found.items())[:5])
        if some and photo_footprints(index, some, request.footprint_m).known_N.any():
            return "gps"
    return "block"


def _footprints(root: Path, index: PatchIndex, by: By, request: SplitRequest, bar: Bar) -> Footprints:
    path = root / FILE_NAME
    found: Footprints | None = None
    if by == "square":
        if not path.is_file():
            raise DataError(
                f"{path} does not exist, so the places of the patches are not known; make patches with salakseg "
                "prepare, or divide --by gps, block or folder."
            )
        found = read_footprints(path, index)
    if found is None or (request.photos is not None and not found.known_N.all()):
        photos = _without_place(index, find_photos(index, request.photos), found)
        places = photo_footprints(index, photos, request.footprint_m, lambda done, all_: bar("photos", done, all_))
        found = places if found is None else found.or_else(places)
    lost = np.flatnonzero(~found.known_N)
    if len(lost):
        first = index.patches[lost[0]]
        raise DataError(
            f"{root}: the places of {len(lost):,} of {len(index.patches):,} patches are not known, the first is "
            f"{index.image_path(first).relative_to(root)}; name the folder of their photos, with GPS in them, with "
            "--photos, or divide --by block or --by folder."
        )
    return found


def _with_buffer(plan: SpatialPlan, by: By) -> SpatialPlan:
    return replace(plan, buffer_m=POSITION_ERROR_M) if by == "gps" and plan.buffer_m is None else plan


def _by_place(index: PatchIndex, class_map: ClassMap, ground: Ground, by: By, plan: SpatialPlan, bar: Bar) -> Parts:
    labelled = _labelled(index)
    if not labelled:
        raise DataError(f"{index.root} has no labelled patch; put masks with the pictures' names into masks folders.")
    # Each patch counts as a photo of its own here: blocks are yet to be made
    single = tuple(replace(patch, photo=patch.image) for patch in index.patches)
    survey = survey_masks(
        replace(index, patches=single), _labelled(replace(index, patches=single)), class_map,
        lambda done, all_: bar("masks", done, all_),
    )  # fmt: skip
    nothing = np.zeros(len(class_map), np.int64)
    pixels_NK = np.stack([survey.pixels.get(patch.photo_key, nothing) for patch in single])
    division = divide_ground(ground.box_N4, ground.site_N, pixels_NK, plan)
    if division is None:
        longest = float((ground.box_N4[:, 2:] - ground.box_N4[:, :2]).max())
        buffer_m = longest if plan.buffer_m is None else plan.buffer_m
        raise DataError(
            f"{index.root}: the labelled ground is too small or too scattered for train, validation and test with "
            f"{buffer_m:.4g} m between them; set --test-share 0, lower --buffer, try another --block, or label more."
        )
    names = _block_names(ground, division)
    patches = tuple(replace(patch, photo=name) for patch, name in zip(index.patches, names, strict=True))
    index = replace(index, patches=patches, ground_blocks=frozenset(patch.photo_key for patch in patches))
    pixels: dict[Photo, NDArray[np.int64]] = {}
    for patch, pixels_K in zip(patches, pixels_NK, strict=True):
        if patch.mask is not None:
            pixels[patch.photo_key] = pixels.get(patch.photo_key, nothing) + pixels_K
    split = Split(
        _roles(patches, division.part_N),
        missing_classes(division.pixels_PK, class_map.names, plan.test_share > 0),
    )
    return Parts(index, split, replace(survey, pixels=pixels), by, ground, division)


def _roles(patches: Sequence[Patch], part_N: NDArray[np.int8]) -> dict[Photo, Role]:
    held_out = {VAL: Role.VAL, TEST: Role.TEST, GAP: Role.GAP}
    roles: dict[Photo, Role] = {}
    for patch, part in zip(patches, part_N.tolist(), strict=True):
        if part in held_out:
            roles[patch.photo_key] = held_out[part]
        elif patch.mask is not None:
            roles[patch.photo_key] = Role.LABELLED
        else:
            roles.setdefault(patch.photo_key, Role.UNLABELLED)
    return roles


def _block_names(ground: Ground, division: SpatialDivision) -> list[str]:
    """``<source>.<grid>.<row>_<column>`` of each patch's block, the same for all sources on its ground.

    The grid's name changes with its place and its side: by the blocks of one grid a run can then not be judged that
    was trained with those of another.
    """
    squares = division.squares
    shown: list[Counter[str]] = [Counter() for _ in squares.cell_B3]
    for block, source in zip(squares.block_N.tolist(), ground.source_N, strict=True):
        shown[block][source] += 1
    names: list[str] = []
    first = {
        site: squares.cell_B3[squares.cell_B3[:, 0] == site, 1:].min(axis=0).tolist()
        for site in range(len(ground.epsg_S))
    }
    for (site, row, col), sources in zip(squares.cell_B3.tolist(), shown, strict=True):
        top, left = first[site]
        source = min(sources, key=lambda name: (-sources[name], name))
        told = f"{ground.epsg_S[site]} {squares.side_m:.4f} {top} {left}"
        grid = hashlib.sha256(told.encode()).hexdigest()[:6]
        names.append(f"{source}.{grid}.{row - top:03d}_{col - left:03d}")
    return [
        names[block] + (GAP_ENDING if part == GAP else "")
        for block, part in zip(squares.block_N.tolist(), division.part_N.tolist(), strict=True)
    ]


def _labelled(index: PatchIndex) -> list[Patch]:
    return [patch for patch in index.patches if patch.mask is not None]


def _write(parts: Parts) -> None:
    """Writes the files; roles and blocks that do not belong together never stand side by side."""
    index, root = parts.index, parts.index.root
    try:
        (root / SPLITS).unlink(missing_ok=True)
        if parts.division is None:
            (root / BLOCKS).unlink(missing_ok=True)
        else:
            rows = ((patch.folder, patch.stem, patch.photo) for patch in index.patches)
            write_blocks(root / BLOCKS, rows)
        if (root / FILE_NAME).is_file():
            write_parts(root / FILE_NAME, index, [role.value for role in uses_of_patches(index, parts.split)])
        write_split(parts.split, root / SPLITS)
    except OSError as error:
        raise DataError(
            f"{root} cannot take the split ({error.strerror}); choose a folder that you may write to, with space left."
        ) from error
