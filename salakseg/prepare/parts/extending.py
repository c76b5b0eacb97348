"""What came after a split: new patches join training, and so do photos that were labelled meanwhile.

The held-out parts stay what they were, so a network of before and one that has also learned from what is new are judged
on the same ground. What lies too near to a held-out part, or may, is used nowhere. Axes: N patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from salakseg.data.blocks import BLOCKS, GAP_ENDING, read_blocks, write_blocks
from salakseg.data.patches import PatchIndex, Photo, index_patches
from salakseg.data.splits import (
    HELD_OUT,
    SPLITS,
    Role,
    Split,
    flight_places,
    labelled_meanwhile,
    read_roles,
    write_split,
)
from salakseg.errors import DataError
from salakseg.prepare.parts.footprints import FILE_NAME, Footprints, write_parts
from salakseg.prepare.parts.planes import Ground, place_on_planes
from salakseg.prepare.parts.splitting import known_footprints, uses_of_patches
from salakseg.shell import as_argument

_ROUNDING_M = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Extended:
    """A split that was extended.

    Attributes:
        index: The patches.
        split: Their roles, and those of other photos that are not there at present.
        joined: New patches that join training.
        labelled: Patches with a mask whose photos were unlabelled data so far.
        unused: New patches that lie too near to a held-out part.
        placeless: New patches of which that cannot be told, since their place is not known; they are used nowhere.
        unsure: New patches that join training and whose place is known, while that of held-out photos is not.
        ground: Where the patches are; None where that of any is not known.
    """

    index: PatchIndex
    split: Split
    joined: int
    labelled: int
    unused: int
    placeless: int
    unsure: int
    ground: Ground | None

    @property
    def changes(self) -> bool:
        """Whether anything has."""
        return self.joined + self.labelled + self.unused + self.placeless > 0


def extend_split(root: Path, gap: int = 3, photos: Path | None = None, footprint_m: float | None = None) -> Extended:
    """Gives roles to patches that have none, and to unlabelled photos that have masks now; writes the split.

    Args:
        root: The data root.
        gap: Photos beside a held-out one that are used nowhere, where places are not known.
        photos: Folder of the photos that patches were cut from, with GPS in their EXIF.
        footprint_m: Ground that a photo shows from corner to corner, metres; by height and focal length if None.

    Raises:
        DataError: There is no split, it holds nothing out, what it holds out is not there or its ground is needed and
            not known, or a file is damaged or cannot be written.
    """
    path = root / SPLITS
    if not path.is_file():
        raise DataError(f"{path} does not exist; make a split with: salakseg splits make {as_argument(root)}")
    roles, index = read_roles(path), index_patches(root)
    if not set(HELD_OUT) & set(roles.values()):
        raise DataError(
            f"{path} holds nothing out; make it anew with: salakseg splits make {as_argument(root)} --overwrite"
        )
    present = set(index.photos())
    away = [photo for photo, role in roles.items() if role in HELD_OUT and photo not in present]
    if away:
        raise DataError(
            f"{len(away):,} held-out photos of {path} are not there, the first is {'/'.join(away[0])}, so what lies "
            "near them cannot be told; bring their patches back, or take their lines out of the file."
        )
    new_N = np.array([patch.photo_key not in roles for patch in index.patches], bool)
    held_out_N = np.array([roles.get(patch.photo_key) in HELD_OUT for patch in index.patches], bool)
    footprints = known_footprints(index, photos, footprint_m)
    known_N = footprints.known_N if footprints is not None else np.zeros(len(index.patches), bool)
    near_N, placeless_N = np.zeros_like(new_N), np.zeros_like(new_N)
    if footprints is not None and known_N.any():
        near_N[known_N] = _near_on_ground(_ground_of(footprints, known_N), new_N[known_N], held_out_N[known_N])
    if index.ground_blocks:
        if new_N.any() and not known_N[held_out_N].all():
            raise DataError(
                f"{root} was divided by place, and where its held-out patches lie is not known; name the folder of "
                "their photos, with GPS in them, with --photos."
            )
        placeless_N = new_N & ~known_N
    else:
        near = _near_in_flight(index, roles, gap)
        near_N |= np.array([patch.photo_key in near for patch in index.patches], bool) & new_N & ~known_N
    unused_N = near_N | placeless_N
    if unused_N.any() and (root / BLOCKS).is_file():
        patches = tuple(
            replace(patch, photo=f"{patch.photo}{GAP_ENDING}") if unused else patch
            for patch, unused in zip(index.patches, unused_N.tolist(), strict=True)
        )
        index = replace(index, patches=patches)
    unused = {patch.photo_key for patch, unused in zip(index.patches, unused_N.tolist(), strict=True) if unused}
    masked = {patch.photo_key for patch in index.patches if patch.mask is not None}
    promoted = labelled_meanwhile(index, roles)
    added = {photo: _role(photo, unused, masked) for photo in index.photos() if photo not in roles}
    extended = Extended(
        index=index,
        split=Split(roles | added | dict.fromkeys((patch.photo_key for patch in promoted), Role.LABELLED)),
        joined=sum(new and patch.photo_key not in unused for new, patch in zip(new_N, index.patches, strict=True)),
        labelled=len(promoted),
        unused=sum(
            bool(new) and not lost and patch.photo_key in unused
            for new, lost, patch in zip(new_N, placeless_N, index.patches, strict=True)
        ),
        placeless=int(placeless_N.sum()),
        unsure=0 if known_N[held_out_N].all() else int((new_N & known_N & ~unused_N).sum()),
        ground=place_on_planes(footprints) if footprints is not None and known_N.all() else None,
    )
    if extended.changes:
        _write(extended)
    return extended


def _ground_of(footprints: Footprints, known_N: NDArray[np.bool_]) -> Ground:
    names = tuple(name for name, known in zip(footprints.source_N, known_N.tolist(), strict=True) if known)
    return place_on_planes(Footprints(footprints.corner_N42[known_N], names))


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
    """New photos at most ``gap`` photos from a held-out one of their folder, or in a folder that is held out whole."""
    open_to_training = {photo.folder for photo, role in roles.items() if role in (Role.LABELLED, Role.UNLABELLED)}
    places = flight_places(list(index.photos()))
    held_out: dict[str, list[int]] = {}
    for photo, place in places.items():
        if roles.get(photo) in HELD_OUT:
            held_out.setdefault(photo.folder, []).append(place)
    return {
        photo
        for photo, place in places.items()
        if photo not in roles
        and photo.folder in held_out
        and (photo.folder not in open_to_training or any(abs(place - other) <= gap for other in held_out[photo.folder]))
    }


def _write(extended: Extended) -> None:
    index, root = extended.index, extended.index.root
    try:
        if (root / BLOCKS).is_file():
            blocks = read_blocks(root / BLOCKS)  # also of patches that are not there at present
            for patch in index.patches:
                blocks.setdefault(patch.folder, {})[patch.stem] = patch.photo
            write_blocks(
                root / BLOCKS, ((folder, stem, block) for folder in blocks for stem, block in blocks[folder].items())
            )
        write_split(extended.split, root / SPLITS)
        if (root / FILE_NAME).is_file():
            write_parts(root / FILE_NAME, index, [role.value for role in uses_of_patches(index, extended.split)])
    except OSError as error:
        raise DataError(
            f"{root} cannot take the split ({error.strerror}); choose a folder that you may write to, with space left."
        ) from error
