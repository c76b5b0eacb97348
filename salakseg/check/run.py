"""From a patch folder to a result: read this first."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from salakseg.check.duplicates import duplicate_findings
from salakseg.check.files import file_findings
from salakseg.check.finding import Finding, Severity, by_severity
from salakseg.check.layout import layout_findings
from salakseg.check.masks import mask_findings
from salakseg.check.parts import Ground, class_findings, folder_pixels, label_findings, overlap_findings, part_pixels
from salakseg.check.result import CheckResult, Folder, Part
from salakseg.check.scan import Scan, scan_patches
from salakseg.check.shift import Colours, folder_colours, shift_findings
from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex, count_by_folder, list_patches
from salakseg.data.splits import Role, Split, SplitPlan, make_split, read_split
from salakseg.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be checked.

    Attributes:
        root: The data root.
        class_map: Classes.
        splits: File with the split; None if there is none yet.
        sample: Look at so many patches only; None for all.
        gap: Photos to either side of a held-out photo that should be used nowhere.
    """

    root: Path
    class_map: ClassMap
    splits: Path | None = None
    sample: int | None = None
    gap: int = SplitPlan().gap


def check_patches(question: Question, progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Looks at every patch once and tells what would ruin a run.

    Args:
        question: What is to be checked.
        progress: Called with patches done and to do.

    Raises:
        DataError: There is nothing to look at: no folder, or neither of the two layouts in it; or ``patches.gpkg`` is
            damaged.
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
        *(() if split is None else overlap_findings(split, question.gap, unordered=index.ground_blocks)),
        *(() if split is None else overlap_findings(split, question.gap, _known_overlaps(index, split))),
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


def _known_overlaps(index: PatchIndex, split: Split) -> Ground:
    from salakseg.prepare.parts.shared_ground import shared_ground  # brings along what a machine for training may lack

    return shared_ground(index, split) or ()


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
