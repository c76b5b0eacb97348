"""A run at one of its evaluations: what the rules of `health.py` look at.

Axes: K class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median

from salakseg.evaluate.course import NOISE, Course, course_of
from salakseg.evaluate.diagnosis import Finding, diagnose
from salakseg.evaluate.history import Plan, history_of
from salakseg.evaluate.rules import CURVE, LENGTH
from salakseg.train.readings import Reading, Record

PRECISION_FALL = 0.05
"""Precision; evaluations that lie further below the best one count as fallen. Ours, as large as the team's for mIoU."""

_ENOUGH = 3  # earlier evaluations that make a usual value

_EFFECTS = (CURVE, LENGTH)
_NO_CAUSE = (
    "Nothing that was logged explains it: run the same recipe without self-training (--set selftraining.enabled=false) "
    "beside it, and look at the labels of the classes that fell."
)


@dataclass(frozen=True, slots=True)
class Situation:
    """A run at one of its evaluations, with what was known by then.

    Attributes:
        readings: All up to this one.
        course: The figures that the report's rules look at.
        findings: What these rules say.
        plan: What had been planned.
        falling: Evaluations in a row that make a fall, see `HealthConfig`.
    """

    readings: tuple[Reading, ...]
    course: Course
    findings: tuple[Finding, ...]
    plan: Plan
    falling: int

    @property
    def now(self) -> Reading:
        """This evaluation."""
        return self.readings[-1]

    @property
    def best(self) -> Reading:
        """The best evaluation so far, the first of equals."""
        return max(self.readings, key=lambda reading: -1.0 if math.isnan(reading.miou) else reading.miou)

    @property
    def drop(self) -> float:
        """The best mIoU so far minus this one."""
        return _below(self.best.miou, self.now.miou)

    @property
    def streak(self) -> int:
        """Evaluations up to now in a row that were clearly below the best; going back to the best begins anew."""
        fallen = takewhile(
            lambda reading: _below(self.best.miou, reading.miou) > NOISE, reversed(self._since_rollback())
        )
        return sum(1 for _ in fallen)

    @property
    def best_precision(self) -> float:
        """The highest precision of pseudo-labels that were taught since the trainer last went back."""
        return max((r.precision for r in self._taught(self._since_rollback()) if r.precision >= 0), default=math.nan)

    @property
    def precision_streak(self) -> int:
        """Evaluations up to now in a row whose precision was clearly below the best."""
        best, since = self.best_precision, reversed(self._taught(self._since_rollback()))
        return sum(1 for _ in takewhile(lambda reading: _below(best, reading.precision) > PRECISION_FALL, since))

    @property
    def taught(self) -> int:
        """Evaluations so far with pseudo-labels in the steps before them."""
        return len(self._taught(self.readings))

    @property
    def swallower(self) -> int | None:
        """The class that has taken more than half of what the labels give to all others, None without one.

        Labels that give it 1 - r leave r to the others; it swallows where pseudo-labels leave them less than r / 2.
        """
        reading = self.now
        kept, labelled = math.fsum(reading.kept_K), math.fsum(reading.labelled_K)
        if len(reading.kept_K) != len(reading.labelled_K) or kept <= 0 or labelled <= 0:
            return None
        rest_K = [(1 - own / kept, 1 - given / labelled) for own, given in zip(*self._histograms(), strict=True)]
        return next((k for k, (left, due) in enumerate(rest_K) if left < due / 2), None)

    @property
    def swallowed(self) -> str:
        """The swallowing class and its shares, for people."""
        k = self.swallower
        if k is None:
            return ""
        kept_K, labelled_K = self._histograms()
        name = self.now.classes[k] if k < len(self.now.classes) else f"class {k}"
        kept, labelled = kept_K[k] / sum(kept_K), labelled_K[k] / sum(labelled_K)
        return f"{name} makes {kept:.1%} of the kept pixels and {labelled:.1%}"

    @property
    def usual_gradient(self) -> float:
        """Median of the gradient norm at the evaluations before, NaN while they are too few."""
        values = [r.gradient_norm for r in self.readings[:-1] if math.isfinite(r.gradient_norm)]
        return median(values) if len(values) >= _ENOUGH else math.nan

    @property
    def lowest_loss(self) -> float:
        """Lowest mean supervised loss at the evaluations before."""
        return min((r.loss_sup for r in self.readings[:-1] if r.loss_sup >= 0), default=math.nan)

    @property
    def blamed(self) -> bool:
        """Whether self-training can have a part in what is seen now: it teaches, and the fall is not older than it."""
        return self.course.selftraining is True and self.course.weight != 0 and not self.course.fell_before_start

    def causes(self, *beside: str) -> str:
        """What to change by everything that was found wrong in the course so far, each advice once."""
        found = [f.advice for f in self.findings if f.band in ("warning", "critical") and f.quantity not in _EFFECTS]
        advice = dict.fromkeys(text for text in (*beside, *found) if text)
        return " ".join(advice) or _NO_CAUSE

    def sentence(self, quantity: str) -> str:
        """What the report's rules say of a quantity."""
        return next((f.sentence for f in self.findings if f.quantity == quantity and f.band != "unknown"), "")

    def _histograms(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.now.kept_K, self.now.labelled_K

    def _taught(self, readings: Sequence[Reading]) -> list[Reading]:
        """Those with pseudo-labels before them; all of a log that tells only how right they were."""
        told = any(reading.kept >= 0 for reading in self.readings)
        return [r for r in readings if r.kept >= 0 or (not told and r.precision >= 0 and not self._before_start(r))]

    def _before_start(self, reading: Reading) -> bool:
        start = self.plan.selftraining_start
        return start is not None and reading.iteration <= start

    def _since_rollback(self) -> list[Reading]:
        back = [place for place, reading in enumerate(self.readings) if reading.rolled_back]
        return list(self.readings[back[-1] if back else 0 :])


def _below(best: float, value: float) -> float:
    return round(best - value, 6)  # 0.60 - 0.59 is a little more than 0.01 in binary


def situation_of(
    readings: Sequence[Reading], records: Sequence[Record], plan: Plan, falling: int, source: str = "the log"
) -> Situation:
    """A run at the last of its readings.

    Args:
        readings: Up to the evaluation that is judged.
        records: Of the log; later ones are left out.
        plan: What had been planned.
        falling: Evaluations in a row that make a fall.
        source: Where the records come from, for messages.

    Raises:
        ReportError: A figure is impossible.
    """
    known = [record for record in records if record["iteration"] <= readings[-1].iteration]
    history = history_of(known, plan, source, whole=False)
    return Situation(tuple(readings), course_of(history), diagnose(history).findings, plan, falling)
