"""The data of a run: classes, patches and their split, with a line on everything that a user should notice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from salakseg.check.finding import Severity
from salakseg.check.quick import quick_findings
from salakseg.classes import ClassMap
from salakseg.data.packing import cache_patches, packed_index
from salakseg.data.patches import PatchIndex, count_by_folder, index_patches
from salakseg.data.reading import read_patch, read_picture
from salakseg.data.splits import (
    SPLITS,
    Role,
    Split,
    SplitPlan,
    labelled_meanwhile,
    make_split,
    read_split,
    refuse_ground_blocks,
    write_split,
)
from salakseg.data.survey import Survey, survey_masks
from salakseg.errors import DataError, UnreadableError
from salakseg.shell import as_argument
from salakseg.train.data import TrainingData
from salakseg.train.in_memory import MemoryStore
from salakseg.train.settings import DataConfig
from salakseg.train.skipped import Skip, Skipped, skip_of

Say = Callable[[str], None]
Progress = Callable[[int, int], None]

_MOST_TOLD = 30
"""Damaged masks that are told one by one."""


def read_data(
    data_root: Path,
    class_map: ClassMap,
    config: DataConfig,
    seed: int,
    *,
    splits: Path | None = None,
    gsd_m: float | None = None,
    cache: bool = False,
    say: Say,
    progress: Progress,
) -> tuple[TrainingData, Path | None]:
    """Indexes the patches, and reads or makes their split.

    Args:
        data_root: Folder with the patches.
        class_map: Classes to read masks by.
        config: How a new split is made.
        seed: Seed of a new split.
        splits: File with the split, made where it is missing; None means ``splits.csv`` in the data root.
        gsd_m: Ground sampling distance of the patches in metres a pixel.
        cache: Whether the patches are packed first, unless they are.
        say: Called with a line worth reading.
        progress: Called with masks done and to do.

    Returns:
        The data, and the file that a new split is to be written to once all else is known to work.

    Raises:
        DataError: Whatever is wrong with patches, masks or split.
    """
    index = index_patches(data_root)
    folders = count_by_folder(index.patches)
    labelled = index.labelled_count
    photos, blocks = len(index.photos()) - len(index.ground_blocks), len(index.ground_blocks)
    sources = [f"{photos:,} photos"] if photos or not blocks else []
    sources += [f"{blocks:,} blocks of ground"] if blocks else []
    say(
        f"patches: {len(index.patches):,} in {len(folders)} folder(s), {labelled:,} with a mask, "
        f"{' and '.join(sources)}"
    )
    path = splits or data_root / SPLITS
    if path.is_file():
        split = read_split(path, index)
        say(f"split: as in {path}; data.split, its shares, gap and seed only make new ones, without that file")
        return survey_labelled(index, split, class_map, gsd_m, config, say, progress, cache), None
    refuse_ground_blocks(index)
    masks = [p for p in index.patches if p.mask is not None]
    survey = survey_masks(index, masks, class_map, progress, skip_damaged=True)
    _refuse_misread(survey, index, class_map)  # before a split is made of nothing and written down
    plan = SplitPlan(
        config.split, config.val_share, config.test_share, config.gap, seed, calibration_share=config.calibration_share
    )
    split = make_split(index, survey, class_map, plan)
    say(f"split: a new one by {config.split}")
    return _finish_data(index, split, class_map, survey, gsd_m, config, say, progress, cache), path


def keep_split(split: Split, path: Path, say: Say) -> None:
    """Writes a new split down, so that later runs are comparable.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        write_split(split, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); name a file with --splits.") from error
    say(f"split written to {path}; later runs reuse it")


def survey_labelled(
    index: PatchIndex,
    split: Split,
    class_map: ClassMap,
    gsd_m: float | None,
    config: DataConfig,
    say: Say,
    progress: Progress,
    cache: bool = False,
) -> TrainingData:
    """The data of a split that is there already; only the masks of its labelled part are read.

    Args:
        index: The patches.
        split: Their parts.
        class_map: Classes to read masks by.
        gsd_m: Ground sampling distance of the patches in metres a pixel.
        config: Photos to either side of a held-out photo that should be used nowhere, of which fewer are told; whether
            to read everything into memory.
        say: Called with a line worth reading.
        progress: Called with masks done and to do.
        cache: Whether the patches are packed first, unless they are.

    Raises:
        DataError: A mask that cannot be used, or none with a pixel of any class.
    """
    survey = survey_masks(index, split.patches(index, Role.LABELLED), class_map, progress, skip_damaged=True)
    return _finish_data(index, split, class_map, survey, gsd_m, config, say, progress, cache)


def _finish_data(
    index: PatchIndex,
    split: Split,
    class_map: ClassMap,
    survey: Survey,
    gsd_m: float | None,
    config: DataConfig,
    say: Say,
    progress: Progress,
    cache: bool,
) -> TrainingData:
    photos = {patch.photo_key for patch in split.patches(index, Role.LABELLED)}
    pixels = survey.total(sorted(photos), len(class_map))
    for finding in quick_findings(index, survey, split, class_map, config.gap):
        if finding.severity is not Severity.NOTE:
            say(f"attention: {finding.line}")
    _refuse_misread(survey, index, class_map)
    damaged = _damaged(index, split, survey, say)
    if cache:
        cache_patches(index, class_map, say, progress)
    index, told = packed_index(index, class_map)
    if told is not None:
        say(told)
    if config.in_memory:
        index = _in_memory(index, split, class_map, say, progress)
    empty = np.zeros(len(class_map), np.int64)
    patch_pixels = np.array([survey.patch_pixels.get(p, empty) for p in split.patches(index, Role.LABELLED)], np.int64)
    data = TrainingData(index, class_map, split, pixels, gsd_m, patch_pixels, damaged)
    counts = ", ".join(
        f"{len(data.part(role)):,} {role.value}" for role in Role if role is not Role.CALIBRATION or data.part(role)
    )
    say(f"parts: {counts} (labelled, but too near to held-out photos to be used)")
    if fresh := len(labelled_meanwhile(index, split.roles)):
        say(
            f"attention: {fresh:,} patches of the unlabelled part have masks, which are not looked at; "
            f"`salakseg splits extend {as_argument(index.root)}` lets them join the labelled part"
        )
    shares = ", ".join(
        f"{name} {100 * share:.1f} %" for name, share in zip(class_map.names, pixels / pixels.sum(), strict=True)
    )
    say(f"labelled pixels: {shares}")
    return data


def part_sizes(index: PatchIndex, split: Split) -> dict[str, int]:
    """Patches of each part that a run reads."""
    roles = (Role.LABELLED, Role.UNLABELLED, Role.VAL, Role.CALIBRATION)
    return {role.value: len(split.patches(index, role)) for role in roles}


def _damaged(index: PatchIndex, split: Split, survey: Survey, say: Say) -> tuple[Skip, ...]:
    """Patches of the run's parts that the survey could not read.

    Raises:
        DataError: They are too many; each is told before.
    """
    skips = []
    for patch, error in survey.damaged.items():
        role = split.roles[patch.photo_key]
        if role in (Role.LABELLED, Role.VAL, Role.CALIBRATION):
            skips.append(skip_of(patch, role.value, error, index.root))
    for skip in skips[:_MOST_TOLD]:
        say(f"attention: skipped {skip.name}: {skip.reason}")
    if len(skips) > _MOST_TOLD:
        say(f"attention: skipped {len(skips) - _MOST_TOLD} more")
    Skipped(part_sizes(index, split), None, say).add(skips)
    return tuple(skips)


def is_unreadable(data: TrainingData, skip: Skip) -> bool:
    """Whether a patch that was skipped still cannot be read; one that is gone, or wrong otherwise, is none of these."""
    patch = next((p for p in data.index.patches if (p.folder, p.image) == (skip.folder, skip.image)), None)
    if patch is None or (patch.mask is None and skip.part in (Role.VAL.value, Role.CALIBRATION.value)):
        return False  # without its mask it is in no part
    try:
        if skip.part == Role.UNLABELLED.value or patch.mask is None:
            read_picture(data.index, patch)
        else:
            read_patch(data.index, patch, data.class_map)
    except UnreadableError:
        return True
    except DataError:  # which the run tells when it comes to it
        return False
    return False


def _in_memory(index: PatchIndex, split: Split, class_map: ClassMap, say: Say, progress: Progress) -> PatchIndex:
    with_labels = (Role.LABELLED, Role.VAL, Role.CALIBRATION)
    labelled = [patch for role in with_labels for patch in split.patches(index, role)]
    store = MemoryStore(index, labelled, split.patches(index, Role.UNLABELLED), class_map, progress)
    say(f"patches: {store.bytes / 1e9:.2f} GB in memory")
    return replace(index, pack=store)


def _refuse_misread(survey: Survey, index: PatchIndex, class_map: ClassMap) -> None:
    if survey.is_misread(len(class_map)):
        colors = ", ".join(str(color) for color, _ in survey.unknown.most_common(3))
        seen = f"they hold the colours {colors}" if colors else "every pixel is 255"
        raise DataError(
            f"{index.root}: the masks do not fit {class_map.source}; {seen}, its classes have "
            f"{', '.join(str(c.color) for c in class_map.classes[:3])} ... Name the mapping that they were drawn by "
            "with --class-mapping, a colour for every class in it."
        )
