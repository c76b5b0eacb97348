"""Faults planted into a clean patch folder, and what `check` finds of them."""

import csv
from pathlib import Path

from salakseg.check.finding import Finding, Severity
from salakseg.check.result import CheckResult
from salakseg.check.run import Question, check_patches
from salakseg.classes import SALAK, ClassMap
from salakseg.data.patches import Photo, index_patches
from salakseg.data.splits import Role, read_split

SECOND = "salak-1-1/images/DJI_0464_patch_002_004.png"
SECOND_MASK = SECOND.replace("images", "masks")


def check(root: Path, class_map: ClassMap = SALAK, splits: bool = True, sample: int | None = None) -> CheckResult:
    path = root / "splits.csv"
    return check_patches(Question(root, class_map, path if splits and path.is_file() else None, sample))


def only(result: CheckResult, kind: str, severity: Severity, *also: str) -> Finding:
    """The finding of the planted fault, beside which nothing else may be said."""
    others = {finding.kind for finding in result.findings} - {kind, "labelled-share", *also}
    assert not others, others
    (finding,) = (finding for finding in result.findings if finding.kind == kind)
    assert finding.severity is severity
    for sentence in (finding.message, finding.remedy):
        assert sentence.endswith(".") and sentence[0] == sentence[0].upper()
    return finding


def role_of(root: Path, role: Role, folder: str = "salak-1-1") -> list[Photo]:
    split = read_split(root / "splits.csv", index_patches(root))
    return [photo for photo, its in split.roles.items() if its is role and photo.folder == folder]


def first_image(root: Path, photo: Photo) -> Path:
    return min((root / photo.folder / "images").glob(f"{photo.name}_patch_*"))


def set_role(root: Path, photo: Photo, role: Role) -> None:
    with (root / "splits.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for row in rows:
        if row[:2] == [photo.folder, photo.name]:
            row[2] = role.value
    with (root / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
