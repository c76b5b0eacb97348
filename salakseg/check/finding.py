"""What a check has to say: one finding for each kind of fault, with its remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MOST_EXAMPLES = 5
"""Places that a finding names; the count says how many there are."""


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """Training refuses it, or its figures would be false."""
    WARNING = "warning"
    """Training goes on, and is likely worse than it could be."""
    NOTE = "note"
    """Worth knowing."""


TITLES = {
    "jpeg-mask": "JPEG masks",
    "doubled-stem": "Two files for one patch",
    "orphan-mask": "Masks without a picture",
    "stray-masks": "Labelled folders without a fitting mask",
    "passed-over": "Folders that are passed over",
    "whole-photo": "Pictures that are no named patch of a photo",
    "unreadable-picture": "Unreadable pictures",
    "unreadable-mask": "Unreadable masks",
    "deep-picture": "Pictures of more than 8 bits",
    "mask-kind": "Masks of a kind that cannot be read",
    "index-out-of-range": "Masks with an index that is no class",
    "mask-size": "Masks of another size than their picture",
    "sizes": "Pictures of different sizes",
    "grey": "Grey pictures",
    "alpha": "Pictures with transparency",
    "turned": "Pictures that are turned by EXIF",
    "constant": "Pictures of a single colour",
    "misread": "Masks that do not fit the class mapping",
    "unknown-colour": "Colours that are in no class",
    "reversed-colour": "Mask colours in BGR order",
    "mixed-masks": "Masks of different kinds",
    "empty-mask": "Masks without a labelled pixel",
    "duplicate": "The same picture twice",
    "near-duplicate": "Nearly the same picture twice",
    "leak-duplicate": "The same picture in different parts",
    "leak-near-duplicate": "Nearly the same picture in different parts",
    "contradiction": "One picture, different labels",
    "split": "The split cannot be used",
    "no-split": "No split can be made",
    "overlap": "Overlapping photos in different parts",
    "no-labels": "No labelled patch",
    "no-unlabelled": "No unlabelled patch",
    "labelled-share": "Labelled and unlabelled",
    "unused-masks": "Masks that training does not look at",
    "class-unlabelled": "Classes that nobody labelled",
    "class-not-in-train": "Classes missing from training",
    "class-not-held-out": "Classes missing from validation or test",
    "rare-class": "Rare classes",
    "folder-shift": "Folders of other brightness or colour",
    "reversed-pictures": "Pictures in BGR order suspected",
}
"""Every kind of finding, with a heading for people."""

_ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault, wherever it was met.

    Attributes:
        kind: A key of `TITLES`.
        severity: How bad it is.
        count: How many files, pixels' classes, photos or folders it concerns; what is counted stands in the message.
        examples: The first or worst of them: paths relative to the data root, or names of classes, photos or folders.
        message: One sentence on what was found.
        remedy: One sentence on what to do.
        details: For each example a word on what was met there, or nothing at all.
        others: For each example the file that it is compared with, or nothing at all.
    """

    kind: str
    severity: Severity
    count: int
    examples: tuple[str, ...]
    message: str
    remedy: str
    details: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.kind in TITLES, self.kind
        assert len(self.details) in (0, len(self.examples)) and len(self.others) in (0, len(self.examples))

    @property
    def title(self) -> str:
        """A heading for people."""
        return TITLES[self.kind]

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Every example with its detail, which may be empty."""
        return tuple(zip(self.examples, self.details or ("",) * len(self.examples), strict=True))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every example with the file that it is compared with, which may be empty."""
        return tuple(zip(self.examples, self.others or ("",) * len(self.examples), strict=True))

    @property
    def line(self) -> str:
        """Message, first examples and remedy, for a terminal."""
        named = f" First: {', '.join(self.examples[:3])}." if self.examples else ""
        return f"{self.message}{named} {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity.value,
            "count": self.count,
            "message": self.message,
            "remedy": self.remedy,
            "examples": [
                {"path": path, "detail": detail, "other": other or None}
                for (path, detail), (_, other) in zip(self.places, self.pairs, strict=True)
            ],
        }


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; else in the order given."""
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))


def counted(count: int, one: str, more: str | None = None) -> str:
    """A number and what it counts, such as "1 mask" and "2,571 masks"."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a row, such as "a, b and c" or "a, b, c, d and 7 more"."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""
