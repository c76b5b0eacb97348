"""Train, validation and test parts that cannot leak into each other.

Neighbouring drone photos overlap by 70 % and more, so a split by patch, and even one by photo, shows the network its
own examination. Whole folders or blocks of consecutive photos are held out instead, and the photos next to a held-out
block (the gap) are used nowhere. The search balances the class shares of the parts, so that rare classes reach each.
Ground whose place is known is divided by `salakseg.data.spatial` instead.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg import replacing
from salakseg.classes import ClassMap
from salakseg.data.balance import division_cost, missing_classes, share_cost
from salakseg.data.blocks import BLOCKS
from salakseg.data.patches import Patch, PatchIndex, Photo, natural_key
from salakseg.data.survey import Survey
from salakseg.errors import DataError
from salakseg.shell import as_argument

SPLITS = "splits.csv"
"""The file's name in the data root."""

CANDIDATES = 4000
"""How many random divisions the search looks at; more gain nothing measurable on sets of the field's size."""


class Role(StrEnum):
    """What a photo is used for. Only `LABELLED` masks are ever trained on."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"
    VAL = "val"
    TEST = "test"
    CALIBRATION = "calibration"
    GAP = "gap"


HELD_OUT = (Role.VAL, Role.TEST, Role.CALIBRATION)
"""Roles whose photos the network is not shown in training; on `CALIBRATION` pseudo-labels are compared with labels."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How a split is made.

    Attributes:
        by: "block" holds out runs of consecutive photos, "folder" whole folders.
        val_share: Wanted share of the labelled pixels in the validation part, 0 to 1.
        test_share: The same for the test part; 0 for no test part.
        calibration_share: The same for the calibration part, which is taken from what the others leave to training
            and given up where that costs too much (`_draw_calibration`); 0 for none.
        gap: Photos to either side of a held-out photo that are used nowhere. At 70 % forward overlap the third
            neighbour still shows a tenth of the same ground, the fourth none.
        seed: Seed of the search.
    """

    by: str = "block"
    val_share: float = 0.15
    test_share: float = 0.15
    gap: int = 3
    seed: int = 0
    calibration_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """The role of every photo.

    Attributes:
        roles: Role by photo.
        missing: Classes that have no pixel in a part, as (part, class name).
    """

    roles: Mapping[Photo, Role]
    missing: tuple[tuple[str, str], ...] = ()

    def patches(self, index: PatchIndex, role: Role) -> tuple[Patch, ...]:
        """The patches of a part.

        Labelled, validation, test and calibration parts hold the patches with a mask. The unlabelled part holds every
        patch of an unlabelled photo, whether it has a mask or not, and the patches of a labelled photo that have none.
        """
        if role is not Role.UNLABELLED:
            return tuple(p for p in index.patches if self.roles[p.photo_key] is role and p.mask is not None)
        return tuple(
            p
            for p in index.patches
            if self.roles[p.photo_key] is role or (self.roles[p.photo_key] is Role.LABELLED and p.mask is None)
        )

    def to_rows(self) -> list[list[str]]:
        """Plain rows of folder, photo and role."""
        return [[photo.folder, photo.name, role.value] for photo, role in self.roles.items()]

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[str]]) -> "Split":
        """The reverse of `to_rows`."""
        return cls({Photo(folder, name): Role(role) for folder, name, role in rows})


def make_split(index: PatchIndex, survey: Survey, class_map: ClassMap, plan: SplitPlan) -> Split:
    """Searches a leak-free split with balanced classes.

    Args:
        index: The patches.
        survey: Class pixels of every labelled photo.
        class_map: Classes, for naming those that cannot reach every part.
        plan: Kind of split, shares, gap.

    Raises:
        DataError: There are too few labelled photos or folders for the wanted parts, or the patches are divided into
            blocks of ground, whose neighbourhood names do not tell.
    """
    refuse_ground_blocks(index)
    order = _Order(index, survey)
    if not order.photos:
        raise DataError(f"{index.root} has no labelled patch; put masks with the pictures' names into masks folders.")
    generator = np.random.default_rng(plan.seed)
    candidates = _folder_candidates(order, plan, generator) if plan.by == "folder" else _blocks(order, plan, generator)
    best: tuple[float, NDArray[np.int8]] | None = None
    for parts in candidates:
        sums_PK = np.stack([order.pixels[parts == part].sum(axis=0) for part in (_TRAIN, _VAL, _TEST)])
        cost = division_cost(sums_PK, order.pixels.sum(axis=0), plan.val_share, plan.test_share)
        if best is None or cost < best[0]:
            best = (cost, parts)
    if best is None:
        raise DataError(_too_few(index, order, plan))
    parts = best[1].copy()
    if plan.calibration_share > 0:
        _draw_calibration(order, parts, plan)
    return _finish(index, order, parts, plan, class_map)


def refuse_ground_blocks(index: PatchIndex) -> None:
    """Refuses to guess a split of blocks of ground: that takes their places, which names do not tell.

    Raises:
        DataError: Patches are in blocks of ground.
    """
    if index.ground_blocks:
        raise DataError(
            f"{index.root} has {BLOCKS} but no split to go with it; run: salakseg splits make "
            f"{as_argument(index.root)} --overwrite"
        )


def write_split(split: Split, path: Path) -> None:
    """Writes ``folder,photo,role`` lines; the file appears only when whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "photo", "role"])
        writer.writerows(split.to_rows())
    replacing.replace(temporary, path)


def read_split(path: Path, index: PatchIndex) -> Split:
    """Reads a split and checks that it covers the patches.

    Raises:
        DataError: A bad line, a photo without a role, or a labelled, validation or test part without masks.
    """
    roles = read_roles(path)
    photos = index.photos()
    strangers = [photo for photo in photos if photo not in roles]
    if strangers:
        raise DataError(
            f"{path} gives no role to {len(strangers)} photos, the first is {_spell(strangers[0])}; let them join "
            f"training with `salakseg splits extend {as_argument(index.root)}`, or remove the file to make a new split."
        )
    split = Split({photo: roles[photo] for photo in photos})
    for role in (Role.LABELLED, Role.VAL):
        if not split.patches(index, role):
            raise DataError(f"{path} leaves no patch with a mask in the {role.value} part; give it at least one photo.")
    return split


def labelled_meanwhile(index: PatchIndex, roles: Mapping[Photo, Role]) -> list[Patch]:
    """Patches with a mask whose photos a split calls unlabelled: training does not look at those masks."""
    return [p for p in index.patches if p.mask is not None and roles.get(p.photo_key) is Role.UNLABELLED]


def read_roles(path: Path) -> dict[Photo, Role]:
    """Reads the lines of a split, whatever patches there are.

    Raises:
        DataError: A bad line, or a column is missing.
    """
    roles: dict[Photo, Role] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            if not {"folder", "photo", "role"} <= set(lines.fieldnames or ()):
                raise DataError(f"{path} line 1: expected the columns folder, photo and role.")
            for line, row in enumerate(lines, start=2):
                photo, role = _parse_row(row, f"{path} line {line}")
                if roles.setdefault(photo, role) is not role:
                    raise DataError(f"{path} line {line}: photo {photo.name!r} has two roles; keep one.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file ({error}).") from error
    return roles


def _parse_row(row: Mapping[str | None, str | None], where: str) -> tuple[Photo, Role]:
    folder, name, role = (row.get(column) for column in ("folder", "photo", "role"))
    if folder is None or name is None or role is None:
        raise DataError(f"{where}: expected the columns folder, photo and role.")
    try:
        return Photo(folder, name), Role(role.strip())
    except ValueError as error:
        raise DataError(f"{where}: {role!r} is no role; use {', '.join(r.value for r in Role)}.") from error


class _Order:
    """Labelled photos in flight order, with what the search needs of them as arrays.

    Attributes:
        photos: Labelled photos, by folder and flight order.
        folder: Folder number of each, int [N].
        place: Place of each along its flight, int [N]; a difference of one is the next photo.
        pixels: Class pixels of each, float [N, K].
        places: Place of every photo, labelled or not.
    """

    def __init__(self, index: PatchIndex, survey: Survey) -> None:
        everything = list(index.photos())
        self.places = flight_places(everything)
        labelled = [photo for photo in everything if photo in survey.pixels]
        labelled.sort(key=lambda photo: (natural_key(photo.folder), self.places[photo]))
        self.photos = labelled
        folders = sorted({photo.folder for photo in labelled}, key=natural_key)
        self.folder = np.array([folders.index(photo.folder) for photo in labelled], dtype=int)
        self.place = np.array([self.places[photo] for photo in labelled], dtype=int)
        self.pixels = np.array([survey.pixels[photo] for photo in labelled], dtype=float)


def flight_places(photos: Sequence[Photo]) -> dict[Photo, int]:
    """Place of each photo along the flight of its folder.

    The number in the name, where all names of a folder share what stands before it (``DJI_0462``) and half of the
    numbers or more follow each other; else the position in natural order, which can only make the gap wider, because
    missing numbers are not seen. Numbers that are times, or that step by ten, would tell nothing of what lies side by
    side. Names that differ behind the number alone (``DJI_0462_T``, ``DJI_0462_W``) are pictures of one place.
    """
    folders: dict[str, list[Photo]] = {}
    for photo in photos:
        folders.setdefault(photo.folder, []).append(photo)
    places: dict[Photo, int] = {}
    for members in folders.values():
        shots: dict[tuple[str, int], list[Photo]] = {}
        for photo in members:
            match = re.fullmatch(r"(.*?)(\d+)\D*", photo.name)
            shots.setdefault((match[1], int(match[2])) if match else (photo.name, -1), []).append(photo)
        order = sorted(shots, key=lambda shot: natural_key(f"{shot[0]}{shot[1]}"))
        steps = [after[1] - before[1] for before, after in pairwise(order)]
        numbered = len({name for name, _ in order}) == 1 and 2 * steps.count(1) >= len(steps)
        for position, shot in enumerate(order):
            places |= dict.fromkeys(shots[shot], shot[1] if numbered else position)
    return places


_TRAIN, _VAL, _TEST, _GAP, _CALIBRATION = range(5)


def _blocks(order: _Order, plan: SplitPlan, generator: np.random.Generator) -> Iterator[NDArray[np.int8]]:
    """Random divisions that hold out one to three runs of consecutive labelled photos for each part."""
    count = len(order.photos)
    for _ in range(CANDIDATES):
        parts = np.zeros(count, np.int8)
        for part, share in ((_VAL, plan.val_share), (_TEST, plan.test_share)):
            if share <= 0:
                continue
            runs = int(generator.integers(1, 4))
            length = max(1, round(share * count / runs * generator.uniform(0.6, 1.4)))
            for start in generator.integers(0, count, size=runs):
                inside = np.arange(start, min(start + length, count))
                parts[inside[order.folder[inside] == order.folder[start]]] = part
        if _apply_gap(order, parts, plan):
            yield parts


def _folder_candidates(order: _Order, plan: SplitPlan, generator: np.random.Generator) -> Iterator[NDArray[np.int8]]:
    """Divisions that hold out whole folders; there is nothing to keep a gap from."""
    folders = int(order.folder.max()) + 1
    wanted = [_TRAIN, _VAL] + ([_TEST] if plan.test_share > 0 else [])
    if folders < len(wanted):
        return
    for _ in range(CANDIDATES):
        of_folder = generator.choice(wanted, size=folders)
        if set(of_folder.tolist()) == set(wanted):
            yield of_folder[order.folder].astype(np.int8)


def _apply_gap(order: _Order, parts: NDArray[np.int8], plan: SplitPlan) -> bool:
    """Turns training photos next to a held-out photo into gap; False where parts are empty or too near each other."""
    wanted = [_VAL] + ([_TEST] if plan.test_share > 0 else [])
    near = {part: _near(order, np.flatnonzero(parts == part), plan.gap) for part in wanted}
    if len(wanted) == 2 and (near[_VAL] & (parts == _TEST)).any():
        return False
    for part in wanted:
        parts[near[part] & (parts == _TRAIN)] = _GAP
    return all((parts == part).any() for part in [_TRAIN, *wanted])


_MOST_LOST = 0.25
"""Share of the training part's labelled pixels that a calibration part may cost, with the gap around it."""


def _draw_calibration(order: _Order, parts: NDArray[np.int8], plan: SplitPlan) -> None:
    """Takes one or two runs of consecutive labelled photos, and the gap around them, from the training part.

    The other parts are chosen before, so that they are the same with a calibration part as without. None is taken where
    training would lose a class, or more than a quarter of its labelled pixels.

    Args:
        order: The labelled photos.
        parts: Their parts, changed in place.
        plan: Share, gap and seed.
    """
    generator = np.random.default_rng([plan.seed, 1])
    train_N = np.flatnonzero(parts == _TRAIN)
    before_K, total_K = order.pixels[train_N].sum(axis=0), order.pixels.sum(axis=0)
    best: tuple[float, NDArray[np.int8]] | None = None
    for _ in range(CANDIDATES // 4):
        drawn = parts.copy()
        runs = int(generator.integers(1, 3))
        length = max(1, round(plan.calibration_share * len(parts) / runs * generator.uniform(0.6, 1.4)))
        for start in generator.choice(train_N, size=runs):
            inside = np.arange(start, min(start + length, len(parts)))
            drawn[inside[(order.folder[inside] == order.folder[start]) & (drawn[inside] == _TRAIN)]] = _CALIBRATION
        chosen_N = np.flatnonzero(drawn == _CALIBRATION)
        drawn[_near(order, chosen_N, plan.gap) & (drawn == _TRAIN)] = _GAP
        left_K, own_K = order.pixels[drawn == _TRAIN].sum(axis=0), order.pixels[chosen_N].sum(axis=0)
        lost = 1 - left_K.sum() / before_K.sum()
        if ((left_K == 0) & (before_K > 0)).any() or lost > _MOST_LOST:
            continue
        cost = share_cost(own_K, total_K, plan.calibration_share) + lost
        if best is None or cost < best[0]:
            best = (cost, drawn)
    if best is not None:
        parts[:] = best[1]


def _near(order: _Order, held_out: NDArray[np.intp], gap: int) -> NDArray[np.bool_]:
    """Which labelled photos lie within the gap of a held-out one, bool [N]."""
    # Folders are laid end to end, further apart than any gap, so that one sorted search finds the nearest on each side
    span = int(order.place.max()) + 2 * gap + 2
    along = order.folder * span + order.place
    held = np.sort(along[held_out])
    if len(held) == 0:
        return np.zeros(len(along), bool)
    after = np.searchsorted(held, along)
    before_distance = along - held[np.maximum(after - 1, 0)]
    after_distance = held[np.minimum(after, len(held) - 1)] - along
    nearest = np.minimum(np.abs(before_distance), np.abs(after_distance))
    nearby: NDArray[np.bool_] = nearest <= gap
    return nearby


def _finish(index: PatchIndex, order: _Order, parts: NDArray[np.int8], plan: SplitPlan, class_map: ClassMap) -> Split:
    meaning = {
        _TRAIN: Role.LABELLED, _VAL: Role.VAL, _TEST: Role.TEST, _GAP: Role.GAP, _CALIBRATION: Role.CALIBRATION,
    }  # fmt: skip
    found = {photo: meaning[int(part)] for photo, part in zip(order.photos, parts, strict=True)}
    held_out: dict[str, list[tuple[int, int | None]]] = {}
    for photo, role in found.items():
        if role in HELD_OUT:
            # The calibration part is always one of blocks, in folders that are trained on
            reach = plan.gap if plan.by == "block" or role is Role.CALIBRATION else None
            held_out.setdefault(photo.folder, []).append((order.places[photo], reach))
    roles = {
        photo: found.get(photo) or _unlabelled_role(order.places[photo], held_out.get(photo.folder, []))
        for photo in index.photos()
    }
    sums_PK = np.stack([order.pixels[parts == part].sum(axis=0) for part in (_TRAIN, _VAL, _TEST)])
    return Split(roles, missing_classes(sums_PK, class_map.names, plan.test_share > 0))


def _unlabelled_role(place: int, held_out: Sequence[tuple[int, int | None]]) -> Role:
    """An unlabelled photo near held-out ground is used nowhere; in a split by folder, none of a held-out folder is."""
    near = any(reach is None or abs(place - other) <= reach for other, reach in held_out)
    return Role.GAP if near else Role.UNLABELLED


def _too_few(index: PatchIndex, order: _Order, plan: SplitPlan) -> str:
    if plan.by == "folder":
        return (
            f"{index.root} has labelled patches in {int(order.folder.max()) + 1} folder(s), too few for train, "
            "validation and test; split by block, or set the test share to 0."
        )
    return (
        f"{index.root} has {len(order.photos)} labelled photos, too few for train, validation and test with a gap of "
        f"{plan.gap} photos; set the test share to 0 (`salakseg splits make {as_argument(index.root)} --test-share 0`)"
        ", lower the gap if the photos overlap little, or write splits.csv."
    )


def _spell(photo: Photo) -> str:
    return f"{photo.folder}/{photo.name}" if photo.folder else photo.name
