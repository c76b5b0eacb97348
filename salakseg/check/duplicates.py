"""Findings on pictures that are there twice: harmless within a part, a leak between parts."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from salakseg.check.finding import MOST_EXAMPLES, Finding, Severity, counted
from salakseg.check.record import FINE
from salakseg.check.scan import Scan
from salakseg.check.similar import Ints, Pairs, near_pairs, same_groups
from salakseg.data.patches import Patch
from salakseg.data.splits import HELD_OUT, Role, Split

_TRAIN, _VAL, _TEST, _CALIBRATION = 1, 2, 4, 8
_SIDES = {
    Role.LABELLED: _TRAIN,
    Role.UNLABELLED: _TRAIN,
    Role.VAL: _VAL,
    Role.TEST: _TEST,
    Role.CALIBRATION: _CALIBRATION,
    Role.GAP: 0,
}
_NAMES = {0: "used nowhere", _TRAIN: "training", _VAL: "validation", _TEST: "test", _CALIBRATION: "calibration"}

_LEAK = "Give all copies the same part in the split, or remove all but one."
_WITHIN = "Nothing has to be done; copies count twice in training, so remove them if they are many."
_NO_SPLIT = "Remove the copies before a split is made, or they may end up on both sides of it."


def duplicate_findings(scan: Scan, split: Split | None) -> Iterator[Finding]:
    """Same and nearly same pictures, within a part and across parts.

    Pictures of a single colour are left out: they have their own finding.

    Args:
        scan: The patches.
        split: Their parts; None if there are none yet.
    """
    pictures = scan.pictures
    usable = np.flatnonzero((pictures["state"] == FINE) & ~pictures["constant"])
    groups = [usable[group] for group in same_groups(pictures["digest"][usable])]
    side_N = np.array([side_of(patch, split) for patch in scan.patches], np.uint8)
    yield from _same(scan, groups, side_N, split)
    yield from _contradictions(scan, groups)
    twins = [group[1:] for group in groups]
    copies = np.concatenate(twins) if twins else np.zeros(0, np.int64)
    pairs = near_pairs(pictures["grid"], np.setdiff1d(usable, copies))
    for group in groups:  # a picture that is there five times stands in all five parts
        side_N[group[0]] = np.bitwise_or.reduce(side_N[group])
    yield from _near(scan, pairs, side_N, split)


def side_of(patch: Patch, split: Split | None) -> int:
    """The part that a patch is used in, as a bit; 0 if it is used nowhere or there is no split."""
    role = None if split is None else split.roles.get(patch.photo_key)
    if role is None or (role in HELD_OUT and patch.mask is None):
        return 0
    return _SIDES[role]


def _is_leak(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether more than one part is among the bits."""
    several: NDArray[np.bool_] = np.bitwise_count(bits) > 1
    return several


def _same(scan: Scan, groups: Sequence[Ints], side_N: NDArray[np.uint8], split: Split | None) -> Iterator[Finding]:
    bits = np.array([np.bitwise_or.reduce(side_N[group]) for group in groups], np.uint8)
    leaks = _is_leak(bits)
    leaking = [group for group, leak in zip(groups, leaks, strict=True) if leak]
    harmless = [group for group, leak in zip(groups, leaks, strict=True) if not leak]
    if leaking:
        pairs = [_apart(group, side_N) for group in leaking]
        count = sum(len(group) for group in leaking)
        yield Finding(
            "leak-duplicate",
            Severity.ERROR,
            count,
            tuple(scan.image_name(one) for one, _ in pairs[:MOST_EXAMPLES]),
            f"{counted(count, 'picture stands', 'pictures stand')} in more than one part of the split, pixel for "
            "pixel: the network is examined on what it has seen.",
            _LEAK,
            tuple(_twin(scan, one, other, side_N) for one, other in pairs[:MOST_EXAMPLES]),
            tuple(scan.image_name(other) for _, other in pairs[:MOST_EXAMPLES]),
        )
    if harmless:
        spread = split is None and any(_photos(scan, group) > 1 for group in harmless)
        count = sum(len(group) - 1 for group in harmless)
        yield Finding(
            "duplicate",
            Severity.WARNING if spread else Severity.NOTE,
            count,
            tuple(scan.image_name(int(group[1])) for group in harmless[:MOST_EXAMPLES]),
            f"{counted(count, 'picture is', 'pictures are')} the same as another one, pixel for pixel.",
            _NO_SPLIT if spread else _WITHIN,
            tuple(f"same as {scan.image_name(int(group[0]))}" for group in harmless[:MOST_EXAMPLES]),
            tuple(scan.image_name(int(group[0])) for group in harmless[:MOST_EXAMPLES]),
        )


def _contradictions(scan: Scan, groups: Sequence[Ints]) -> Iterator[Finding]:
    """Copies whose masks differ: one of them is wrong."""
    rows = {int(place): row for row, place in enumerate(scan.labelled)}
    found: list[tuple[int, int]] = []
    for group in groups:
        masks = [rows[place] for place in group.tolist() if place in rows]
        masks = [row for row in masks if scan.masks[row]["state"] == FINE]
        if len({int(scan.masks[row]["digest"]) for row in masks}) > 1:
            other = next(row for row in masks if scan.masks[row]["digest"] != scan.masks[masks[0]]["digest"])
            found.append((masks[0], other))
    if found:
        yield Finding(
            "contradiction",
            Severity.WARNING,
            len(found),
            tuple(scan.mask_name(one) for one, _ in found[:MOST_EXAMPLES]),
            f"{counted(len(found), 'picture has', 'pictures have')} copies whose masks differ.",
            "Keep the copy with the right mask and remove the others.",
            tuple(f"differs from {scan.mask_name(other)}" for _, other in found[:MOST_EXAMPLES]),
            tuple(scan.mask_name(other) for _, other in found[:MOST_EXAMPLES]),
        )


def _near(scan: Scan, pairs: Pairs, side_N: NDArray[np.uint8], split: Split | None) -> Iterator[Finding]:
    leaks = _is_leak(side_N[pairs.first] | side_N[pairs.second])
    least = "" if pairs.is_all else "At least "
    for leak in (True, False):
        first, second = pairs.first[leaks == leak], pairs.second[leaks == leak]
        count = len(np.union1d(first, second))
        if not count:
            continue
        shown = list(zip(first[:MOST_EXAMPLES].tolist(), second[:MOST_EXAMPLES].tolist(), strict=True))
        spread = split is None and any(
            scan.patches[one].photo_key != scan.patches[other].photo_key
            for one, other in zip(first.tolist(), second.tolist(), strict=True)
        )
        look = f"{least}{counted(count, 'picture looks', 'pictures look')} nearly like another one"
        yield Finding(
            "leak-near-duplicate" if leak else "near-duplicate",
            Severity.ERROR if leak else Severity.WARNING if spread else Severity.NOTE,
            count,
            tuple(scan.image_name(one) for one, _ in shown),
            f"{look} in another part of the split: the network is examined on what it has seen."
            if leak
            else f"{look}, such as the same photo saved twice.",
            _LEAK if leak else _NO_SPLIT if spread else _WITHIN,
            tuple(
                _twin(scan, one, other, side_N) if leak else f"like {scan.image_name(other)}" for one, other in shown
            ),
            tuple(scan.image_name(other) for _, other in shown),
        )


def _apart(group: Ints, side_N: NDArray[np.uint8]) -> tuple[int, int]:
    """Two members of a group that stand in different parts."""
    used = [place for place in group.tolist() if side_N[place]]
    return used[0], next(place for place in used if side_N[place] != side_N[used[0]])


def _twin(scan: Scan, one: int, other: int, side_N: NDArray[np.uint8]) -> str:
    return f"{_part(side_N[one])}; like {scan.image_name(other)}, {_part(side_N[other])}"


def _part(bits: np.uint8) -> str:
    return " and ".join(_NAMES[bit] for bit in (_TRAIN, _VAL, _TEST, _CALIBRATION) if int(bits) & bit) or _NAMES[0]


def _photos(scan: Scan, group: Ints) -> int:
    return len({scan.patches[place].photo_key for place in group.tolist()})
