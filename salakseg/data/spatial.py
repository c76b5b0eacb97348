"""Train, validation and test parts of ground: square blocks with a buffer between parts, so that nothing leaks.

Every patch belongs to the square block that its centre lies in; blocks are drawn into the parts, and whatever patch of
another part comes nearer to a held-out block than the buffer is used nowhere. That holds for all patches, labelled or
not, of whatever mosaic: two of different parts neither share ground nor are nearer to each other than the buffer.

Footprints are taken as boxes along the axes of a metric plane and a block's ground as the box around its patches, and
distances are the larger of those along x and y. All three can only make a gap wider than it needs to be.

Axes: N patches, B blocks, Z zones (patches of a block that are near to the same other blocks), K class, P parts
(train, validation, test).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from salakseg.data.balance import division_cost
from salakseg.data.squares import REACH, Squares, neighbours, square_blocks
from salakseg.errors import DataError

TRAIN, VAL, TEST, GAP = range(4)
"""Parts that a patch can be in; training ground without labels serves as unlabelled data."""

BLOCK_SIDES = (16, 8, 4, 2)
"""Sides of a block that are tried where none is given, in longest sides of a footprint."""

ENOUGH_BLOCKS = 10
"""Labelled blocks that a held-out part should have, where the side of a block is free: they are what is resampled."""

_ROUNDING_M = 1e-4  # coordinates that went through a projection are right to less than a tenth of a millimetre
_CANDIDATES = 1000
_WORK = 60_000_000  # entries looked at in one search; more candidates gain little where there are many blocks
_FEWEST = 200
_MOST_CLUMPS = 16


@dataclass(frozen=True, slots=True)
class SpatialPlan:
    """How ground is divided.

    Attributes:
        block_m: Side of a square block in metres; None tries `BLOCK_SIDES` and takes the best.
        buffer_m: Least distance between patches of different parts in metres; None takes the longest side of any
            footprint on that site: a flight that shows more in a patch does not widen the gaps of the others.
        val_share: Wanted share of the labelled pixels in the validation part, 0 to 1.
        test_share: The same for the test part; 0 for no test part.
        seed: Seed of the search, not negative.
    """

    block_m: float | None = None
    buffer_m: float | None = None
    val_share: float = 0.15
    test_share: float = 0.15
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SpatialDivision:
    """Which part each patch is in.

    Attributes:
        part_N: `TRAIN`, `VAL`, `TEST` or `GAP`, int8 [N].
        squares: The blocks.
        pixels_PK: Labelled pixels of each class in train, validation and test, float64 [3, K].
        buffer_m: Metres kept between parts; without a wish for blocks or buffer, those of the site with the longest
            footprints, and elsewhere less in proportion, as the blocks are.
    """

    part_N: NDArray[np.int8]
    squares: Squares
    pixels_PK: NDArray[np.float64]
    buffer_m: float


def divide_ground(
    box_N4: NDArray[np.float64], site_N: NDArray[np.int64], pixels_NK: NDArray[np.int64], plan: SpatialPlan
) -> SpatialDivision | None:
    """Divides ground into parts, with the classes' shares as near as possible to those wanted.

    Args:
        box_N4: Least x, least y, greatest x and greatest y of each footprint in metres, float64 [N, 4].
        site_N: Number of the plane that the coordinates are in; patches of different sites are far from each other.
        pixels_NK: Labelled pixels of each class [N, K]; zeros for an unlabelled patch.
        plan: Blocks, buffer and shares.

    Returns:
        The division; None where there is no way to give every part a labelled pixel.

    Raises:
        DataError: Blocks are smaller than a footprint or narrower than the buffer.
    """
    longest_N = (box_N4[:, 2:] - box_N4[:, :2]).max(axis=1)
    longest = float(longest_N.max())
    if plan.block_m is None and plan.buffer_m is None:  # sites are far apart, so that each may have its own scale
        longest_S = np.zeros(int(site_N.max()) + 1)
        np.maximum.at(longest_S, site_N, longest_N)
        box_N4 = box_N4 * (longest / longest_S[site_N])[:, None]
    buffer_m = longest if plan.buffer_m is None else plan.buffer_m
    least = max(longest, buffer_m, _ROUNDING_M)
    if plan.block_m is not None and plan.block_m < least - _ROUNDING_M:
        raise DataError(
            f"--block {plan.block_m:g} is too small: a block must be as wide as a patch ({longest:.4g} m) and as the "
            f"buffer ({buffer_m:.4g} m); give {least:.4g} or more, or leave it out."
        )
    sides = [factor * least for factor in BLOCK_SIDES] if plan.block_m is None else [plan.block_m]
    best: tuple[float, _Search, NDArray[np.int8]] | None = None
    for side in sides:
        search = _Search(square_blocks(box_N4, site_N, side), box_N4, pixels_NK, buffer_m, plan)
        found = search.best()
        if found is not None and (best is None or found[0] < best[0]):
            best = (found[0], search, found[1])
    if best is None:
        return None
    _, search, part_B = best
    part_Z = search.parts_of_zones(part_B)
    return SpatialDivision(part_Z[search.zone_N], search.squares, search.sums(part_Z), buffer_m)


class _Search:
    """The search over one grid of blocks.

    Args:
        squares: The blocks.
        box_N4: Footprints.
        pixels_NK: Labelled pixels.
        buffer_m: Metres between parts.
        plan: Shares and seed.

    Attributes:
        squares: The blocks.
        zone_N: Zone of each patch.
    """

    def __init__(
        self,
        squares: Squares,
        box_N4: NDArray[np.float64],
        pixels_NK: NDArray[np.int64],
        buffer_m: float,
        plan: SpatialPlan,
    ) -> None:
        self.squares = squares
        self._plan = plan
        blocks = len(squares.cell_B3)
        other_BO = neighbours(squares)
        near_N = _near_mask(squares, box_N4, other_BO, buffer_m - _ROUNDING_M)
        offsets = other_BO.shape[1]
        key_Z, self.zone_N = np.unique((squares.block_N << offsets) | near_N, return_inverse=True)
        self._block_Z = key_Z >> offsets
        bits_ZO = (key_Z[:, None] >> np.arange(offsets)) & 1 == 1
        zone, offset = np.nonzero(bits_ZO)
        there = (np.ones(len(zone), np.int32), (zone, other_BO[self._block_Z[zone], offset]))
        self._near_ZB = csr_array(there, shape=(len(key_Z), blocks))
        self._pixels_ZK = _sums_by(self.zone_N, pixels_NK, len(key_Z))
        self._pixels_BK = _sums_by(squares.block_N, pixels_NK, blocks)
        self._total_K = self._pixels_BK.sum(axis=0)

    def best(self) -> tuple[float, NDArray[np.int8]] | None:
        """Cost and parts [B] of the best division; None where none has labelled pixels in every part."""
        plan, found = self._plan, None
        wanted = [TRAIN, VAL] + ([TEST] if plan.test_share > 0 else [])
        labelled_B = np.flatnonzero(self._pixels_BK.sum(axis=1) > 0)
        if len(labelled_B) < len(wanted):
            return None
        generator = np.random.default_rng(plan.seed)
        tries = int(np.clip(_WORK // (self._near_ZB.nnz + self._pixels_ZK.size), _FEWEST, _CANDIDATES))
        for _ in range(tries):
            part_B = self._draw(labelled_B, generator)
            part_Z = self.parts_of_zones(part_B)
            pixels_PK = self.sums(part_Z)
            if not all(pixels_PK[part].any() for part in wanted):
                continue
            cost = division_cost(pixels_PK, self._total_K, plan.val_share, plan.test_share)
            if plan.block_m is None:
                for part in wanted[1:]:
                    count = np.count_nonzero(part_B[labelled_B] == part)
                    cost += max(0.0, 1.0 - count / ENOUGH_BLOCKS)
            if found is None or cost < found[0]:
                found = (cost, part_B)
        return found

    def parts_of_zones(self, part_B: NDArray[np.int8]) -> NDArray[np.int8]:
        """Puts what is too near to another part into the gap; between two held-out parts the larger one gives way."""
        part_Z: NDArray[np.int8] = part_B[self._block_Z]
        near_Z = {part: self._near_ZB @ (part_B == part).astype(np.int32) > 0 for part in (VAL, TEST)}
        size = {part: self._pixels_ZK[part_Z == part].sum() for part in (VAL, TEST)}
        large, small = (VAL, TEST) if size[VAL] >= size[TEST] else (TEST, VAL)
        gap_Z = ((part_Z == TRAIN) & (near_Z[VAL] | near_Z[TEST])) | ((part_Z == large) & near_Z[small])
        part_Z[gap_Z] = GAP
        return part_Z

    def sums(self, part_Z: NDArray[np.int8]) -> NDArray[np.float64]:
        """Labelled pixels of each class in train, validation and test, [3, K]."""
        chosen_PZ = (part_Z == np.array([[TRAIN], [VAL], [TEST]])).astype(np.float64)
        sums_PK: NDArray[np.float64] = chosen_PZ @ self._pixels_ZK
        return sums_PK

    def _draw(self, labelled_B: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.int8]:
        """Some clumps of labelled blocks for each held-out part; compact ones lose less to the buffer."""
        cell_L3 = self.squares.cell_B3[labelled_B]
        pixels_LK = self._pixels_BK[labelled_B]
        pixels_L = pixels_LK.sum(axis=1)
        present = np.flatnonzero(self._total_K)
        part_B = np.zeros(len(self.squares.cell_B3), np.int8)
        free_L = np.ones(len(labelled_B), bool)
        for part, share in ((VAL, self._plan.val_share), (TEST, self._plan.test_share)):
            if share <= 0:
                continue
            most = min(max(1.0, share * len(labelled_B)), _MOST_CLUMPS)
            clumps = int(np.exp(generator.uniform(0, np.log(most + 1))))
            for _ in range(clumps):
                # A class first, then a block by its pixels of it: else rare classes would hardly ever be hit
                weight_L = np.cumsum(pixels_LK[:, generator.choice(present)])
                centre = int(np.searchsorted(weight_L, generator.uniform(0, weight_L[-1]), side="right"))
                away_L3 = (cell_L3 - cell_L3[min(centre, len(cell_L3) - 1)]).astype(np.float64)
                distance_L = np.hypot(away_L3[:, 1], away_L3[:, 2]) + 1e9 * (away_L3[:, 0] != 0)
                order = np.argsort(distance_L, kind="stable")
                order = order[free_L[order]]
                size = share / clumps * generator.uniform(0.6, 1.4) * pixels_L.sum()
                taken = order[: 1 + int(np.searchsorted(np.cumsum(pixels_L[order]), size))]
                part_B[labelled_B[taken]] = part
                free_L[taken] = False
        return part_B


def _near_mask(
    squares: Squares, box_N4: NDArray[np.float64], other_BO: NDArray[np.int64], nearer_than: float
) -> NDArray[np.int64]:
    """Which neighbouring blocks a patch is near to, as bits in the order of `other_BO`, [N]."""
    near_N = np.zeros(len(box_N4), np.int64)
    for offset in range(other_BO.shape[1]):
        other_N = other_BO[squares.block_N, offset]
        patch = np.flatnonzero(other_N >= 0)
        own_M4, other_M4 = box_N4[patch], squares.box_B4[other_N[patch]]
        apart_M = np.maximum(own_M4[:, :2] - other_M4[:, 2:], other_M4[:, :2] - own_M4[:, 2:]).max(axis=1)
        near_N[patch[apart_M < nearer_than]] |= 1 << offset
    return near_N


def _sums_by(group_N: NDArray[np.int64], values_NK: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Sums of rows by their group, float64 [groups, K]."""
    columns = [np.bincount(group_N, values_N, groups) for values_N in values_NK.T]
    return np.stack(columns, axis=1)


assert (2 * REACH + 1) ** 2 - 1 <= 24  # the bits of the neighbours must leave room for the block's number
