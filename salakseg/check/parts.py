"""Findings on the split and on the shares of the classes: what is missing where, and what lies too near."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from salakseg.check.finding import MOST_EXAMPLES, Finding, Severity, counted, listed
from salakseg.classes import BACKGROUND, ClassMap
from salakseg.data.patches import PatchIndex, Photo, natural_key
from salakseg.data.splits import Role, Split, flight_places, labelled_meanwhile
from salakseg.data.survey import Survey
from salakseg.shell import as_argument

RARE = 0.001
"""Share of the labelled pixels below which a class is called rare: the field's rarest class has 0.0022, and is the one
that self-training loses first."""

LEAST_LABELLED = 0.01
"""Share of labelled patches below which a warning is due. The field set's is 0.035."""

Ground = Iterable[tuple[Photo, Photo]]
"""Photos that are known to show the same ground, such as by their footprints."""

_PARTS = {Role.LABELLED: "training", Role.VAL: "validation", Role.TEST: "test"}


def part_pixels(survey: Survey, split: Split, num_classes: int) -> dict[Role, NDArray[np.int64]]:
    """Labelled pixels of each class, int64 [K], in the parts whose masks were read, for whatever use."""
    photos: dict[Role, list[Photo]] = {}
    for photo in survey.pixels:
        photos.setdefault(split.roles[photo], []).append(photo)
    return {role: survey.total(photos[role], num_classes) for role in Role if role in photos}


def folder_pixels(survey: Survey, num_classes: int) -> dict[str, NDArray[np.int64]]:
    """Labelled pixels of each class, int64 [K], by folder."""
    photos: dict[str, list[Photo]] = {}
    for photo in survey.pixels:
        photos.setdefault(photo.folder, []).append(photo)
    return {folder: survey.total(photos[folder], num_classes) for folder in sorted(photos, key=natural_key)}


def class_findings(survey: Survey, split: Split | None, class_map: ClassMap) -> Iterator[Finding]:
    """Classes that are missing or rare.

    Args:
        survey: Of the masks. Parts that it does not cover are not judged.
        split: None if there is none yet.
        class_map: The classes.
    """
    if not survey.pixels:
        return
    everything = survey.total(list(survey.pixels), len(class_map))
    parts = {} if split is None else part_pixels(survey, split, len(class_map))
    nowhere = everything == 0
    # A survey of the training part alone cannot tell whether a class that it lacks is labelled elsewhere
    covered = split is None or any(role in parts for role in (Role.VAL, Role.TEST))
    if nowhere.any() and covered:
        yield _unlabelled(nowhere, class_map)
    if Role.LABELLED in parts:
        lost = parts[Role.LABELLED] == 0
        if covered:
            lost &= ~nowhere
        else:
            lost[BACKGROUND] = False  # many draw none, and it is not what a map is made for
        if lost.any():
            names = _names(lost, class_map)
            yield Finding(
                "class-not-in-train",
                Severity.ERROR,
                len(names),
                names[:MOST_EXAMPLES],
                f"Training has no pixel of {listed(names)}, so the network cannot learn "
                f"{'it' if len(names) == 1 else 'them'}.",
                "Label some of it in photos of the training part, or make a new split with it in each part.",
            )
    yield from _held_out(parts, nowhere, class_map)
    trained = parts.get(Role.LABELLED, everything)
    total = int(trained.sum())
    rare = (trained > 0) & (trained < RARE * total)
    if rare.any():
        names = _names(rare, class_map)
        where = "in training" if Role.LABELLED in parts else "labelled"
        yield Finding(
            "rare-class",
            Severity.WARNING,
            len(names),
            names[:MOST_EXAMPLES],
            f"{counted(len(names), 'class makes', 'classes make')} less than {100 * RARE:g} % of the pixels {where}: "
            f"{listed(names)}.",
            "Label more of it, or expect it to be missed; self-training loses rare classes first.",
            tuple(
                f"{100 * trained[k] / total:.3f} %, {trained[k]:,} pixels" for k in np.flatnonzero(rare)[:MOST_EXAMPLES]
            ),
        )


def _unlabelled(nowhere: NDArray[np.bool_], class_map: ClassMap) -> Finding:
    names = _names(nowhere, class_map)
    only_background = names == (class_map.names[BACKGROUND],)
    return Finding(
        "class-unlabelled",
        Severity.NOTE if only_background else Severity.WARNING,
        len(names),
        names[:MOST_EXAMPLES],
        f"No mask holds a pixel of {listed(names)}, so no map will show {'it' if len(names) == 1 else 'them'}.",
        "Label some of it, or take it out of the class mapping.",
    )


def _held_out(
    parts: Mapping[Role, NDArray[np.int64]], nowhere: NDArray[np.bool_], class_map: ClassMap
) -> Iterator[Finding]:
    lacks = {role: _names((parts[role] == 0) & ~nowhere, class_map) for role in (Role.VAL, Role.TEST) if role in parts}
    lacks = {role: names for role, names in lacks.items() if names}
    if not lacks:
        return
    names = tuple(dict.fromkeys(name for names in lacks.values() for name in names))
    told = "; ".join(f"{_PARTS[role]} has no pixel of {listed(missing)}" for role, missing in lacks.items())
    yield Finding(
        "class-not-held-out",
        Severity.WARNING,
        len(names),
        names[:MOST_EXAMPLES],
        f"{told[0].upper()}{told[1:]}: no figure there will tell how well the network knows "
        f"{'it' if len(names) == 1 else 'them'}.",
        "Label some of it elsewhere and make a new split.",
        tuple(
            f"missing from {listed([_PARTS[role] for role, missing in lacks.items() if name in missing])}"
            for name in names[:MOST_EXAMPLES]
        ),
    )


def label_findings(index: PatchIndex, split: Split | None) -> Iterator[Finding]:
    """How many patches are labelled, and whether any is left for self-training."""
    if split is not None:
        yield from _unused_masks(index, split)
    labelled, total = index.labelled_count, len(index.patches)
    unlabelled = total - labelled
    if not labelled:
        yield Finding(
            "no-labels",
            Severity.ERROR,
            total,
            (),
            "No patch has a mask, and without labels nothing can be learned.",
            "Put masks with the pictures' names into masks folders beside images.",
        )
    elif split is not None and not split.patches(index, Role.UNLABELLED):
        yield Finding(
            "no-unlabelled",
            Severity.WARNING,
            total,
            (),
            "The split leaves no unlabelled patch, and recipes with self-training refuse to start.",
            "Add patches without masks, or train with --set selftraining.enabled=false.",
        )
    elif not unlabelled:
        yield Finding(
            "no-unlabelled",
            Severity.NOTE,
            total,
            (),
            "Every patch has a mask, so self-training has only the photos that the split calls unlabelled.",
            "Add patches without masks, or train with --set selftraining.enabled=false.",
        )
    else:
        share = labelled / total
        few = share < LEAST_LABELLED
        yield Finding(
            "labelled-share",
            Severity.WARNING if few else Severity.NOTE,
            labelled,
            (),
            f"{labelled:,} of {total:,} patches are labelled, {100 * share:.2g} %, with {unlabelled / labelled:.1f} "
            "unlabelled ones for each.",
            "Label more photos first: with so few labels, pseudo-labels are wrong more often."
            if few
            else "Nothing has to be done.",
        )


def _unused_masks(index: PatchIndex, split: Split) -> Iterator[Finding]:
    """Photos that were labelled after the split was made."""
    fresh = labelled_meanwhile(index, split.roles)
    if fresh:
        yield Finding(
            "unused-masks",
            Severity.WARNING,
            len(fresh),
            tuple(patch.name for patch in fresh[:MOST_EXAMPLES]),
            f"{len(fresh):,} patches with a mask are in the unlabelled part; training does not look at their labels.",
            f"Let them join the labelled part with: salakseg splits extend {as_argument(index.root)}",
        )


def overlap_findings(
    split: Split, gap: int, ground: Ground | None = None, unordered: Collection[Photo] = ()
) -> Iterator[Finding]:
    """Photos of different parts that show the same ground.

    Args:
        split: Their parts.
        gap: Photos to either side of a held-out photo that should be used nowhere.
        ground: Photos that are known to overlap; None where only their numbers can tell.
        unordered: Photos whose numbers tell no neighbourhood, such as the blocks of a mosaic.
    """
    known = ground is not None
    pairs = [
        (one, other)
        for one, other in (
            _neighbours([photo for photo in split.roles if photo not in unordered], gap) if ground is None else ground
        )
        if _differ(split.roles.get(one), split.roles.get(other))
    ]
    if not pairs:
        return
    photos = tuple(dict.fromkeys(photo for pair in pairs for photo in pair))
    names = tuple(_spell(one) for one, _ in pairs[:MOST_EXAMPLES])
    if known:
        message = f"{counted(len(photos), 'photo shares', 'photos share')} ground with a photo of another part."
    else:
        message = (
            f"{counted(len(photos), 'photo stands', 'photos stand')} within {gap} numbers of a photo of another part; "
            "drone photos in a row overlap by 70 % and more, so the parts share ground."
        )
    yield Finding(
        "overlap",
        Severity.ERROR if known else Severity.WARNING,
        len(photos),
        names,
        message,
        "Make a new split by blocks with a gap, or give the photos between the parts the role gap.",
        tuple(
            f"{split.roles[one].value}; {_spell(other)} is {split.roles[other].value}"
            for one, other in pairs[:MOST_EXAMPLES]
        ),
    )


def _neighbours(photos: Sequence[Photo], gap: int) -> Iterator[tuple[Photo, Photo]]:
    """Photos of a folder whose places differ by at most the gap, each with the nearest of every other role's run."""
    places = flight_places(photos)
    folders: dict[str, list[Photo]] = {}
    for photo in photos:
        folders.setdefault(photo.folder, []).append(photo)
    for folder in sorted(folders, key=natural_key):
        members = sorted(folders[folder], key=lambda photo: places[photo])
        for start, one in enumerate(members):
            for other in members[start + 1 :]:
                if places[other] - places[one] > gap:
                    break
                yield one, other


def _differ(one: Role | None, other: Role | None) -> bool:
    """Whether two photos are used in parts that must not see each other."""
    training = (Role.LABELLED, Role.UNLABELLED)
    used = [Role.LABELLED if role in training else role for role in (one, other) if role not in (None, Role.GAP)]
    return len(used) == 2 and used[0] is not used[1]


def _names(flags: NDArray[np.bool_], class_map: ClassMap) -> tuple[str, ...]:
    return tuple(class_map.names[k] for k in np.flatnonzero(flags))


def _spell(photo: Photo) -> str:
    return f"{photo.folder}/{photo.name}" if photo.folder else photo.name
