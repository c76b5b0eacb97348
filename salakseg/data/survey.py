"""What the masks hold: pixels of each class by photo, and colours that are no class."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX, ClassMap, Color
from salakseg.data.masks import image_size, read_mask
from salakseg.data.patches import Patch, PatchIndex, Photo
from salakseg.errors import DataError, UnreadableError

MOST_COLOURS = 50_000
"""Colours in no class that are remembered, those of the most pixels."""

_THREADS = 4  # decoding runs outside Python's lock, and reading waits for the disk


@dataclass(slots=True)
class Survey:
    """What a reading of all masks found.

    Attributes:
        pixels: Labelled pixels of each class for each photo, int64 [K].
        unknown: Pixels of each colour that is in no class.
        unknown_files: Number of masks with such a colour, and the first of them.
        patch_pixels: Labelled pixels of each class for each patch that was read, int64 [K].
        damaged: Patches whose picture or mask cannot be read, with what is wrong.
    """

    pixels: dict[Photo, NDArray[np.int64]]
    unknown: Counter[Color] = field(default_factory=Counter)
    unknown_files: list[str] = field(default_factory=list)
    patch_pixels: dict[Patch, NDArray[np.int64]] = field(default_factory=dict)
    damaged: dict[Patch, UnreadableError] = field(default_factory=dict)

    def total(self, photos: Sequence[Photo], num_classes: int) -> NDArray[np.int64]:
        """Labelled pixels of each class over some photos, int64 [K]."""
        empty = np.zeros(num_classes, np.int64)
        return sum((self.pixels.get(photo, empty) for photo in photos), start=empty)

    def is_misread(self, num_classes: int) -> bool:
        """Whether the masks were drawn by another class map: at most one class is understood, beside strangers."""
        total = self.total(list(self.pixels), num_classes)
        return bool(self.pixels) and bool(not total.any() or (self.unknown and (total > 0).sum() < 2))


def survey_masks(
    index: PatchIndex,
    patches: Sequence[Patch],
    class_map: ClassMap,
    progress: Callable[[int, int], None] | None = None,
    skip_damaged: bool = False,
) -> Survey:
    """Reads the masks of labelled patches and counts their classes.

    Args:
        index: The index that the patches belong to.
        patches: Labelled patches.
        class_map: Classes.
        progress: Called with the number of masks done and to do.
        skip_damaged: Whether patches that cannot be read are collected in `Survey.damaged` instead of ending it. Of
            pictures just the headers are read.

    Raises:
        DataError: An unreadable patch, an index that is no class, or a mask whose size differs from its picture's.
    """
    survey = Survey({})
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda patch: _count(index, patch, class_map), patches)
        for done, (patch, counted) in enumerate(zip(patches, found, strict=True), start=1):
            if isinstance(counted, UnreadableError):
                if not skip_damaged:
                    raise counted
                survey.damaged[patch] = counted
                continue
            counts, unknown = counted
            photo = patch.photo_key
            survey.patch_pixels[patch] = counts
            survey.pixels[photo] = survey.pixels.get(photo, np.zeros(len(class_map), np.int64)) + counts
            if unknown:
                survey.unknown.update(unknown)
                if len(survey.unknown) > 2 * MOST_COLOURS:  # photographs in place of masks: rare colours say nothing
                    survey.unknown = Counter(dict(survey.unknown.most_common(MOST_COLOURS)))
                survey.unknown_files.append(str(index.mask_path(patch).relative_to(index.root)))
            if progress is not None:
                progress(done, len(patches))
    return survey


def _count(
    index: PatchIndex, patch: Patch, class_map: ClassMap
) -> tuple[NDArray[np.int64], Counter[Color]] | UnreadableError:
    try:
        mask = read_mask(index.mask_path(patch), class_map)
        size = image_size(index.image_path(patch))
    except UnreadableError as error:
        return error
    check_size(index, patch, mask.label_HW.shape, size)
    counts = np.bincount(mask.label_HW.ravel(), minlength=IGNORE_INDEX + 1)[: len(class_map)]
    return counts.astype(np.int64), mask.unknown


def check_size(index: PatchIndex, patch: Patch, mask_size: tuple[int, ...], picture_size: tuple[int, ...]) -> None:
    """Refuses a mask that does not cover its picture pixel for pixel.

    Raises:
        DataError: The sizes differ.
    """
    if mask_size != picture_size:
        raise DataError(
            f"{index.mask_path(patch)} is {mask_size[1]} x {mask_size[0]} pixels, but its picture is "
            f"{picture_size[1]} x {picture_size[0]}; make both the same size."
        )
