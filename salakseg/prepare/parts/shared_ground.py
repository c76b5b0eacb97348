"""Ground that patches of different parts have in common, by their footprints. Axes: N patches."""

import numpy as np
import shapely

from salakseg.data.patches import PatchIndex, Photo
from salakseg.data.splits import HELD_OUT, Role, Split
from salakseg.prepare.parts.footprints import FILE_NAME, Footprints, read_footprints
from salakseg.prepare.parts.planes import place_on_planes

_TOUCH_M = 0.01
"""Metres that neighbours may share without sharing ground: footprints went through two projections."""


def shared_ground(index: PatchIndex, split: Split) -> list[tuple[Photo, Photo]] | None:
    """Photos, or blocks of ground, of different parts with patches that show the same ground.

    Args:
        index: The patches.
        split: Their parts.

    Returns:
        A held-out photo and one of another part, each pair once; None where there is no ``patches.gpkg``.

    Raises:
        DataError: ``patches.gpkg`` is damaged.
    """
    path = index.root / FILE_NAME
    if not path.is_file():
        return None
    footprints = read_footprints(path, index)
    known = np.flatnonzero(footprints.known_N)
    if not len(known):
        return []
    ground = place_on_planes(
        Footprints(footprints.corner_N42[known], tuple(footprints.source_N[place] for place in known))
    )
    photos = [index.patches[place].photo_key for place in known]
    role_N = np.array([split.roles[photo].value for photo in photos])
    shape_N = shapely.buffer(shapely.polygons(ground.corner_N42), -_TOUCH_M)
    pairs: dict[tuple[Photo, Photo], None] = {}
    for site in np.unique(ground.site_N):
        here = ground.site_N == site
        for held_out in HELD_OUT:
            ours = np.flatnonzero(here & (role_N == held_out.value))
            # a test photo beside a validation photo was found from the other side already
            found_already = HELD_OUT[: HELD_OUT.index(held_out)]
            free = [role.value for role in (Role.GAP, held_out, *found_already)]
            theirs = np.flatnonzero(here & ~np.isin(role_N, free))
            found = shapely.STRtree(shape_N[theirs]).query(shape_N[ours], predicate="intersects")
            for one, other in zip(ours[found[0]].tolist(), theirs[found[1]].tolist(), strict=True):
                pairs[photos[one], photos[other]] = None
    return list(pairs)
