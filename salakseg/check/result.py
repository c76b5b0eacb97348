"""What a check found, in plain values and sentences."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.check.finding import Finding, Severity
from salakseg.check.shift import Colours
from salakseg.classes import ClassMap

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


def _number(count: int, what: str) -> str:
    return f"{count} {what if count == 1 else what + 's'}"
