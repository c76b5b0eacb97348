"""Patches that came after a split: they join training, and the held-out parts stay what they were.

So a network of before and one that has also learned from what is new are judged on the same ground. What lies too near
to a held-out part is used nowhere. Axes: N patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from salakseg.data.blocks import BLOCKS, GAP_ENDING, write_blocks
from salakseg.data.patches import PatchIndex, Photo, index_patches
from salakseg.data.splits import HELD_OUT, SPLITS, Role, Split, flight_places, read_roles, write_split
from salakseg.errors import DataError
from salakseg.prepare.parts.footprints import FILE_NAME, write_parts
from salakseg.prepare.parts.planes import Ground
from salakseg.prepare.parts.splitting import known_ground, uses_of_patches

_ROUNDING_M = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Extended:
    """A split that was extended.

    Attributes:
        index: The patches.
        split: Their roles.
        joined: New patches that join training.
        unused: New patches that lie too near to a held-out part.
        ground: Where the patches are; None where that is not known.
    """

    index: PatchIndex
    split: Split
    joined: int
    unused: int
    ground: Ground | None


def extend_split(root: Path, gap: int = 3) -> Extended:
    """Gives roles to patches that have none, and writes the split.

    Args:
        root: The data root.
        gap: Photos beside a held-out one that are used nowhere, where places are not known.

    Raises:
        DataError: There is no split, or a file is damaged or cannot be written.
    """
    path = root / SPLITS
    if not path.is_file():
        raise DataError(f"{path} does not exist; make a split with: salakseg splits make {root}")
    roles, index = read_roles(path), index_patches(root)
    new_N = np.array([patch.photo_key not in roles for patch in index.patches], bool)
    held_out_N = np.array([roles.get(patch.photo_key) in HELD_OUT for patch in index.patches], bool)
    ground = known_ground(index)
    if ground is None:
        near = _near_in_flight(index, roles, gap)
        near_N = np.array([patch.photo_key in near for patch in index.patches], bool) & new_N
    else:
        near_N = _near_on_ground(ground, new_N, held_out_N)
    if near_N.any() and (root / BLOCKS).is_file():
        patches = tuple(
            replace(patch, photo=f"{patch.photo}{GAP_ENDING}") if near else patch
            for patch, near in zip(index.patches, near_N.tolist(), strict=True)
        )
        index = replace(index, patches=patches)
    unused = {patch.photo_key for patch, near in zip(index.patches, near_N.tolist(), strict=True) if near}
    labelled = {patch.photo_key for patch in index.patches if patch.mask is not None}
    whole = {photo: roles.get(photo) or _role(photo, unused, labelled) for photo in index.photos()}
    extended = Extended(
        index=index,
        split=Split(whole),
        joined=sum(new and patch.photo_key not in unused for new, patch in zip(new_N, index.patches, strict=True)),
        unused=sum(new and patch.photo_key in unused for new, patch in zip(new_N, index.patches, strict=True)),
        ground=ground,
    )
    if new_N.any():
        _write(extended)
    return extended


def _role(photo: Photo, unused: set[Photo], labelled: set[Photo]) -> Role:
    if photo in unused:
        return Role.GAP
    return Role.LABELLED if photo in labelled else Role.UNLABELLED


def _near_on_ground(ground: Ground, new_N: NDArray[np.bool_], held_out_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """New patches nearer to a held-out one than a patch of their site is wide."""
    box_N4 = ground.box_N4
    near_N = np.zeros(len(box_N4), bool)
    for site in range(len(ground.epsg_S)):
        here_N = ground.site_N == site
        ours, theirs = np.flatnonzero(here_N & new_N), np.flatnonzero(here_N & held_out_N)
        if len(ours) == 0 or len(theirs) == 0:
            continue
        own = box_N4[here_N]
        buffer_m = float((own[:, 2:] - own[:, :2]).max()) - _ROUNDING_M
        tree = shapely.STRtree(shapely.box(*box_N4[theirs].T))
        left, bottom, right, top = box_N4[ours].T
        wide = shapely.box(left - buffer_m, bottom - buffer_m, right + buffer_m, top + buffer_m)
        near_N[ours[np.unique(tree.query(wide, predicate="intersects")[0])]] = True
    return near_N


def _near_in_flight(index: PatchIndex, roles: Mapping[Photo, Role], gap: int) -> set[Photo]:
    """New photos at most ``gap`` photos from a held-out one of their folder."""
    places = flight_places(list(index.photos()))
    held_out: dict[str, list[int]] = {}
    for photo, place in places.items():
        if roles.get(photo) in HELD_OUT:
            held_out.setdefault(photo.folder, []).append(place)
    return {
        photo
        for photo, place in places.items()
        if photo not in roles and any(abs(place - other) <= gap for other in held_out.get(photo.folder, ()))
    }


def _write(extended: Extended) -> None:
    index, root = extended.index, extended.index.root
    try:
        if (root / BLOCKS).is_file():
            write_blocks(root / BLOCKS, ((patch.folder, patch.stem, patch.photo) for patch in index.patches))
        write_split(extended.split, root / SPLITS)
        if (root / FILE_NAME).is_file():
            write_parts(root / FILE_NAME, index, [role.value for role in uses_of_patches(index, extended.split)])
    except OSError as error:
        raise DataError(
            f"{root} cannot take the split ({error.strerror}); choose a folder that you may write to, with space left."
        ) from error
