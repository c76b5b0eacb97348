"""What the parts of a split hold, for a table. Axes: R roles, K classes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex
from salakseg.data.splits import Role, Split
from salakseg.data.survey import Survey
from salakseg.prepare.parts.splitting import uses_of_patches


@dataclass(frozen=True, slots=True, eq=False)
class PartShares:
    """Patches and classes of each part.

    Attributes:
        class_map: The classes, K.
        patches: Patches by what they are used for.
        places: Photos or blocks by their role.
        pixels: Labelled pixels of each class by role, int64 [K]; the gap's are those that nobody uses. Masks of the
            unlabelled part are never read, and have none here.
    """

    class_map: ClassMap
    patches: Mapping[Role, int]
    places: Mapping[Role, int]
    pixels: Mapping[Role, NDArray[np.int64]]

    @property
    def gap_share(self) -> float:
        """Share of the labelled pixels that the gap takes, 0 to 1; NaN without any."""
        total = sum(float(pixels_K.sum()) for pixels_K in self.pixels.values())
        return float(self.pixels[Role.GAP].sum()) / total if total else float("nan")

    def shares(self, role: Role) -> NDArray[np.float64]:
        """Share of each class in a part's labelled pixels [K], 0 to 1; NaN for a part without any."""
        pixels_K = self.pixels[role]
        total = pixels_K.sum()
        return pixels_K / total if total else np.full(len(pixels_K), np.nan)

    @property
    def missing(self) -> tuple[tuple[Role, str], ...]:
        """Classes that some part has, but not this one: part and class name. An empty test part is no part."""
        seen_K = sum(self.pixels.values(), np.zeros(len(self.class_map), np.int64)) > 0
        return tuple(
            (role, self.class_map.names[k])
            for role in (Role.LABELLED, Role.VAL, Role.TEST)
            if role is not Role.TEST or self.patches[role]
            for k in np.flatnonzero(seen_K & (self.pixels[role] == 0)).tolist()
        )


def part_shares(index: PatchIndex, split: Split, survey: Survey, class_map: ClassMap) -> PartShares:
    """Counts the parts of a split.

    Args:
        index: The patches.
        split: Their roles.
        survey: Class pixels of the labelled patches, by photo.
        class_map: The classes.
    """
    uses = uses_of_patches(index, split)
    photos = {role: [photo for photo, found in split.roles.items() if found is role] for role in Role}
    nothing = np.zeros(len(class_map), np.int64)
    return PartShares(
        class_map,
        {role: uses.count(role) for role in Role},
        {role: len(photos[role]) for role in Role},
        {role: nothing if role is Role.UNLABELLED else survey.total(photos[role], len(class_map)) for role in Role},
    )
