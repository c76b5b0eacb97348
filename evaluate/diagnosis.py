"""What a run's history says: each quantity against the field team's bands, and one paragraph in plain words.

The judgement itself is the table of `salakseg.evaluate.rules`.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any

from salakseg.evaluate.course import Course, course_of
from salakseg.evaluate.formats import finite_or_none
from salakseg.evaluate.history import TrainingHistory
from salakseg.evaluate.rules import CE, CURVE, DICE, LENGTH, RULES, VALUES, Band, Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said on one quantity.

    Attributes:
        quantity: Its name.
        value: Its value for people; "unknown" or "not applicable" where there is none.
        band: The verdict.
        sentence: What happened.
        advice: What to try, or nothing.
    """

    quantity: str
    value: str
    band: Band
    sentence: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a history says.

    Attributes:
        findings: One on each quantity, in the order of `VALUES`.
        peak: Iteration and value of the best evaluation, None without any.
        last: The same of the last evaluation.
        decline: From the peak to the last evaluation in points of mIoU, 0 to 100; NaN without an evaluation.
        stopped_early: See `TrainingHistory`.
        paragraph: What happened and what to try, in plain words.
    """

    findings: tuple[Finding, ...]
    peak: tuple[int, float] | None
    last: tuple[int, float] | None
    decline: float
    stopped_early: bool | None
    paragraph: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return asdict(self) | {
            "findings": [asdict(finding) for finding in self.findings],
            "peak": None if self.peak is None else list(self.peak),
            "last": None if self.last is None else list(self.last),
            "decline": finite_or_none(self.decline),
        }


def diagnose(history: TrainingHistory) -> Diagnosis:
    """Judges a history by `RULES`."""
    course = course_of(history)
    findings = tuple(_finding(quantity, course) for quantity in VALUES)
    measured = course.evaluations > 0
    return Diagnosis(
        findings=findings,
        peak=(int(course.peak_at), course.peak) if measured else None,
        last=(int(course.last_at), course.last) if measured else None,
        decline=course.fall,
        stopped_early=course.stopped_early,
        paragraph=_paragraph(findings, course),
    )


def _finding(quantity: str, course: Course) -> Finding:
    for rule in RULES:
        if rule.quantity == quantity and rule.when(course):
            value = "not applicable" if rule.band == "not applicable" else _value(quantity, course)
            return Finding(quantity, value, rule.band, _fill(rule.sentence, course), _advice(rule, course))
    return Finding(quantity, "unknown", "unknown", _not_logged(quantity))


def _not_logged(quantity: str) -> str:
    return f"{quantity[:1].upper() + quantity[1:]}: unknown, since it was not logged."


def _value(quantity: str, course: Course) -> str:
    """The parts of the value that are known."""
    parts = _fill(VALUES[quantity], course).split(", ")
    return ", ".join(part for part in parts if "nan" not in part and "None" not in part) or "unknown"


def _advice(rule: Rule, course: Course) -> str:
    return rule.advice(course) if callable(rule.advice) else rule.advice


def _fill(template: str, course: Course) -> str:
    return re.sub(r"(?<=\d)%", " %", template.format(c=course))


def _paragraph(findings: tuple[Finding, ...], course: Course) -> str:
    """What happened, then what to try, then what is unknown."""
    told = [finding for finding in findings if _is_told(finding, course)]
    sentences = [finding.sentence for finding in told]
    if course.fell and not any(f.band in ("warning", "critical") and f.quantity not in (CURVE, LENGTH) for f in told):
        sentences.append("Nothing that was logged explains the fall.")
    advice = list(dict.fromkeys(finding.advice for finding in told if finding.advice))
    if advice:
        sentences += ["What to try:", *advice]
    unknown = [finding.quantity for finding in findings if finding.sentence == _not_logged(finding.quantity)]
    if unknown:
        sentences.append(f"Unknown, since not logged: {', '.join(unknown)}.")
    return " ".join(sentences)


def _is_told(finding: Finding, course: Course) -> bool:
    """The curve and its end always, else what is wrong; after a fall also what is known not to be its cause."""
    if finding.quantity in (CURVE, LENGTH):
        return finding.sentence != _not_logged(finding.quantity)
    if finding.band in ("warning", "critical"):
        return True
    return course.fell and finding.quantity not in (CE, DICE) and finding.band in ("good", "between")
