"""What can be told at the start of a training, from the directory listings and the masks that are read there anyway."""

from salakseg.check.finding import Finding, by_severity
from salakseg.check.layout import layout_findings
from salakseg.check.masks import survey_findings
from salakseg.check.parts import class_findings, overlap_findings
from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex
from salakseg.data.splits import Split
from salakseg.data.survey import Survey


def quick_findings(index: PatchIndex, survey: Survey, split: Split, class_map: ClassMap, gap: int) -> list[Finding]:
    """Findings that cost nothing; what needs the pictures is left to `salakseg check`.

    Args:
        index: The patches.
        survey: Of the masks of the training part at least.
        split: The parts.
        class_map: Classes.
        gap: Photos to either side of a held-out photo that should be used nowhere.

    Returns:
        Errors first. None of them means that training must not go on: whoever calls it decides.
    """
    findings = [
        *layout_findings(index),
        *survey_findings(survey, class_map),
        *class_findings(survey, split, class_map),
        *overlap_findings(split, gap, unordered=index.ground_blocks),
    ]
    return list(by_severity(findings))
