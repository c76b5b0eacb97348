"""Pictures that are the same, or nearly: groups by digest, pairs by perceptual hash.

The hash is a difference hash (dHash) of 128 bits: a picture is averaged to 9 x 9 greys, and each bit says whether a
cell is brighter than its left neighbour (64 bits) or than the one above (64 bits). Brightness, contrast, scale and JPEG
change few bits. Two hashes that differ in at most 7 bits agree wholly in one of eight 16-bit bands at least, so only
pictures with a band in common are compared (multi-index hashing; Norouzi, Punjani and Fleet 2012), not all with all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salakseg.check.record import GRID

HASH_BITS = 128
BANDS = 8

MOST_BITS = BANDS - 1
"""Bits in which near-duplicates may differ."""

LEAST_CORRELATION = 0.97
"""Of the 81 greys of near-duplicates, whatever their brightness and contrast."""

LEAST_TEXTURE = 0.5
"""Share of the 128 differences that must be at least two grey levels for a picture to be compared at all: the bits of
water or bare ground are noise."""

_STEP = 2  # grey levels
_MOST_PAIRS = 2_000_000

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures that are nearly the same.

    Attributes:
        first: Place of one, int [P].
        second: Place of the other, above the first, int [P].
        is_all: False where the search ended early, because there were millions.
    """

    first: Ints
    second: Ints
    is_all: bool = True


def same_groups(digest_N2: NDArray[np.uint64]) -> list[Ints]:
    """Places of equal digests: every group of two and more, in the order of their first members.

    Args:
        digest_N2: 128 bits for each picture.
    """
    order = np.lexsort((digest_N2[:, 1], digest_N2[:, 0])).astype(np.int64)  # stable: places rise within a group
    ranked = digest_N2[order]
    same = np.concatenate([[False], (ranked[1:] == ranked[:-1]).all(axis=1), [False]])  # as the one before
    starts = np.flatnonzero(~same[:-1] & same[1:])  # alone until here, joined by the next
    ends = np.flatnonzero(same[:-1] & ~same[1:]) + 1
    groups = [order[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return sorted(groups, key=lambda group: int(group[0]))


def difference_hash(grid_NHW: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes of coarse grey pictures, uint64 [N, 2]: across and down.

    Args:
        grid_NHW: Greys [N, 9, 9].
    """
    across, down = _differences(grid_NHW)
    bits = np.concatenate([across.reshape(-1, HASH_BITS // 2), down.reshape(-1, HASH_BITS // 2)], axis=1) > 0
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


def has_texture(grid_NHW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether enough of a picture's hash is more than noise, bool [N].

    Args:
        grid_NHW: Greys [N, 9, 9].
    """
    across, down = _differences(grid_NHW)
    clear = (np.abs(across) >= _STEP).sum(axis=(1, 2)) + (np.abs(down) >= _STEP).sum(axis=(1, 2))
    enough: NDArray[np.bool_] = clear >= LEAST_TEXTURE * HASH_BITS
    return enough


def near_pairs(grid_NHW: NDArray[np.uint8], places: Ints, most_pairs: int = _MOST_PAIRS) -> Pairs:
    """Pairs of pictures that are nearly the same.

    Args:
        grid_NHW: Greys of all pictures, [N, 9, 9].
        places: Which of them are compared, rising; those without texture are left out.
        most_pairs: Ends the search early.
    """
    places = places[has_texture(grid_NHW[places])]
    hash_N2 = difference_hash(grid_NHW[places])
    keys: list[Ints] = []
    found = 0
    is_all = True
    for first, second in _candidates(hash_N2):
        near = np.bitwise_count(hash_N2[first] ^ hash_N2[second]).sum(axis=1) <= MOST_BITS
        first, second = first[near], second[near]
        alike = _correlation(grid_NHW[places[first]], grid_NHW[places[second]]) >= LEAST_CORRELATION
        low, high = np.minimum(first, second)[alike], np.maximum(first, second)[alike]
        keys.append(low * len(places) + high)
        found += len(low)
        if found >= most_pairs:
            is_all = False
            break
    key = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    return Pairs(places[key // max(1, len(places))], places[key % max(1, len(places))], is_all)


def _candidates(hash_N2: NDArray[np.uint64]) -> Iterator[tuple[Ints, Ints]]:
    """Pairs with a band in common, a band and a distance in its sorted order at a time."""
    bands = hash_N2.view(np.uint16)
    for number in range(bands.shape[1]):
        order = np.argsort(bands[:, number], kind="stable").astype(np.int64)
        key = bands[order, number]
        at = np.arange(len(order))
        distance = 1
        while len(at):
            at = at[at + distance < len(order)]
            at = at[key[at] == key[at + distance]]
            if len(at):
                yield order[at], order[at + distance]
            distance += 1


def _differences(grid_NHW: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """A cell less its left neighbour and less the one above, int16 [N, 8, 8] each."""
    grey = grid_NHW.astype(np.int16)
    inner = grey[:, : GRID - 1, : GRID - 1]
    return grey[:, : GRID - 1, 1:] - inner, grey[:, 1:, : GRID - 1] - inner


def _correlation(one_NHW: NDArray[np.uint8], other_NHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    one, other = (
        grid.reshape(-1, GRID * GRID).astype(np.float32) - grid.mean(axis=(1, 2), dtype=np.float32)[:, None]
        for grid in (one_NHW, other_NHW)
    )
    both = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    cosine: NDArray[np.float32] = (one * other).sum(axis=1) / np.maximum(both, 1e-6)
    return cosine
