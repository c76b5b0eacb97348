"""From a patch folder to a result: everything that `salakseg check` shows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.check.duplicates import duplicate_findings
from salakseg.check.files import file_findings
from salakseg.check.finding import Finding, Severity, by_severity
from salakseg.check.layout import layout_findings
from salakseg.check.masks import mask_findings
from salakseg.check.parts import (
    Ground,
    class_findings,
    folder_pixels,
    label_findings,
    overlap_findings,
    part_pixels,
)
from salakseg.check.scan import Scan, scan_patches
from salakseg.check.shift import Colours, folder_colours, shift_findings
from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex, count_by_folder, list_patches
from salakseg.data.splits import Role, Split, SplitPlan, make_split, read_split
from salakseg.errors import DataError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder in figures.

    Attributes:
        colours: Its name and its colours, of the pictures that were looked at.
        patches: All patches.
        labelled: Those with a mask.
        pixels_K: Labelled pixels of each class in the masks that were looked at, int64 [K].
    """

    colours: Colours
    patches: int
    labelled: int
    pixels_K: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the split in figures.

    Attributes:
        name: The role, such as "val".
        photos: Photos that have it.
        patches: Patches that are used in it.
        pixels_K: Labelled pixels of each class in the masks that were looked at, int64 [K].
    """

    name: str
    photos: int
    patches: int
    pixels_K: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    Attributes:
        root: The data root.
        class_map: Classes that the masks were read by.
        splits: File with the split; None if there is none.
        findings: Errors first.
        folders: In natural order.
        parts: Empty without a usable split.
        patches: All patches.
        labelled: Those with a mask.
        photos: All photos.
        looked_at: Patches that were read; fewer than all in a sample.
    """

    root: Path
    class_map: ClassMap
    splits: Path | None
    findings: tuple[Finding, ...]
    folders: tuple[Folder, ...]
    parts: tuple[Part, ...]
    patches: int
    labelled: int
    photos: int
    looked_at: int

    @property
    def is_sample(self) -> bool:
        """Whether patches were left out."""
        return self.looked_at < self.patches

    @property
    def has_errors(self) -> bool:
        """Whether the exit status is 1."""
        return self.count(Severity.ERROR) > 0

    def count(self, severity: Severity) -> int:
        """Findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence."""
        errors, warnings, notes = (self.count(severity) for severity in Severity)
        told = f"{_number(errors, 'error')}, {_number(warnings, 'warning')}, {_number(notes, 'note')}"
        of = f" in a sample of {self.looked_at:,} patches" if self.is_sample else ""
        if errors:
            return f"Not ready for training{of}: {told}."
        return (
            f"Ready for training{of}, but look at the warnings: {told}."
            if warnings
            else f"Ready for training{of}: {told}."
        )

    @property
    def caption(self) -> str:
        """What was looked at, by what."""
        folders = "1 folder" if len(self.folders) == 1 else f"{len(self.folders)} folders"
        photos = "1 photo" if self.photos == 1 else f"{self.photos:,} photos"
        looked = (
            f"Only {self.looked_at:,} of them were looked at, drawn evenly: counts are of these, rare faults and most "
            "copies are missed, and missing classes are not judged. "
            if self.is_sample
            else ""
        )
        split = f"the split is {self.splits.name}" if self.splits else "there is no split yet, training makes one"
        return (
            f"{self.patches:,} patches of {photos} in {folders}, {self.labelled:,} with a mask. {looked}Masks were "
            f"read by {self.class_map.source}; {split}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``check.json``; see `salakseg.check.output` for the schema."""
        names = self.class_map.names
        return {
            "schema": SCHEMA,
            "root": str(self.root),
            "class_mapping": self.class_map.source,
            "classes": self.class_map.to_records(),
            "splits": None if self.splits is None else str(self.splits),
            "patches": self.patches,
            "labelled": self.labelled,
            "photos": self.photos,
            "looked_at": self.looked_at,
            "is_sample": self.is_sample,
            **{f"{severity.value}s": self.count(severity) for severity in Severity},
            "findings": [finding.to_dict() for finding in self.findings],
            "folders": [
                {
                    "name": one.colours.name,
                    "patches": one.patches,
                    "labelled": one.labelled,
                    "class_pixels": dict(zip(names, one.pixels_K.tolist(), strict=True)),
                    **one.colours.to_dict(),
                }
                for one in self.folders
            ],
            "parts": [
                {
                    "name": one.name,
                    "photos": one.photos,
                    "patches": one.patches,
                    "class_pixels": dict(zip(names, one.pixels_K.tolist(), strict=True)),
                }
                for one in self.parts
            ],
        }


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be checked.

    Attributes:
        root: The data root.
        class_map: Classes.
        splits: File with the split; None if there is none yet.
        sample: Look at so many patches only; None for all.
        gap: Photos to either side of a held-out photo that should be used nowhere.
        ground: Photos that are known to overlap; None where only their numbers can tell.
    """

    root: Path
    class_map: ClassMap
    splits: Path | None = None
    sample: int | None = None
    gap: int = SplitPlan().gap
    ground: Ground | None = None


def check_patches(question: Question, progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Looks at every patch once and tells what would ruin a run.

    Args:
        question: What is to be checked.
        progress: Called with patches done and to do.

    Raises:
        DataError: There is nothing to look at: no folder, or neither of the two layouts in it.
    """
    index, problems = list_patches(question.root)
    split, refused = _split_of(question, index)
    scan = scan_patches(index, question.class_map, question.sample, progress)
    misread = scan.survey.is_misread(len(question.class_map))  # what follows from it need not be told as well
    colours = folder_colours(scan)
    findings = [
        *layout_findings(index, problems),
        *file_findings(scan),
        *mask_findings(scan),
        *refused,
        *(() if question.splits or scan.is_sample or misread else _split_to_be(scan, question.gap)),
        *label_findings(index, split),
        *(() if scan.is_sample or misread else class_findings(scan.survey, split, question.class_map)),
        *(() if split is None else overlap_findings(split, question.gap, question.ground)),
        *duplicate_findings(scan, split),
        *shift_findings(scan, colours),
    ]
    return CheckResult(
        root=question.root,
        class_map=question.class_map,
        splits=question.splits,
        findings=by_severity(findings),
        folders=_folders(scan, colours),
        parts=() if split is None else _parts(scan, split),
        patches=len(index.patches),
        labelled=index.labelled_count,
        photos=len(index.photos()),
        looked_at=len(scan.patches),
    )


def _split_of(question: Question, index: PatchIndex) -> tuple[Split | None, list[Finding]]:
    if question.splits is None:
        return None, []
    try:
        return read_split(question.splits, index), []
    except DataError as error:
        finding = Finding(
            "split",
            Severity.ERROR,
            1,
            (question.splits.name,),
            f"Training refuses the split: {error}",
            "Mend the file, or remove it for a new split; what needs the parts was not judged.",
        )
        return None, [finding]


def _split_to_be(scan: Scan, gap: int) -> list[Finding]:
    """Whether training could make a split, where there is none yet."""
    if not scan.survey.pixels:
        return []  # that no patch is labelled is told elsewhere
    try:
        make_split(scan.index, scan.survey, scan.class_map, SplitPlan(gap=gap))
    except DataError as error:
        return [
            Finding(
                "no-split",
                Severity.WARNING,
                1,
                (),
                f"Training would refuse to make a split: {error}",
                "Label photos further apart, or make a split of another kind before training.",
            )
        ]
    return []


def _folders(scan: Scan, colours: list[Colours]) -> tuple[Folder, ...]:
    counts = count_by_folder(scan.index.patches)
    pixels = folder_pixels(scan.survey, len(scan.class_map))
    none = np.zeros(len(scan.class_map), np.int64)
    return tuple(Folder(one, counts[one.name][1], counts[one.name][0], pixels.get(one.name, none)) for one in colours)


def _parts(scan: Scan, split: Split) -> tuple[Part, ...]:
    pixels = part_pixels(scan.survey, split, len(scan.class_map))
    none = np.zeros(len(scan.class_map), np.int64)
    roles = list(split.roles.values())
    return tuple(
        Part(role.value, roles.count(role), len(split.patches(scan.index, role)), pixels.get(role, none))
        for role in Role
        if role in roles
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what if count == 1 else what + 's'}"
