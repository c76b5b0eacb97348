"""Alarms: what the rules of `health.py` say at an evaluation, and which of it is new.

The trainer asks as it goes; `replay` asks the same of a stored log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from salakseg.evaluate.history import Plan
from salakseg.evaluate.rules import PRECISION
from salakseg.train.health import QUANTITIES, RULES, TREND, Level, Rule, Text
from salakseg.train.readings import Record, readings_of
from salakseg.train.situation import Situation, situation_of


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a rule says at one evaluation.

    Attributes:
        iteration: Of the evaluation.
        quantity: What is judged.
        level: The band; "warning" and "critical" are alarms.
        seen: What was seen.
        why: Why it matters.
        change: What to change.
        acts: Whether it calls for action.
    """

    iteration: int
    quantity: str
    level: Level
    seen: str
    why: str = ""
    change: str = ""
    acts: bool = False

    @property
    def is_alarm(self) -> bool:
        """Whether something is to be done."""
        return self.level in ("warning", "critical")

    @property
    def line(self) -> str:
        """All of it in one line."""
        return " ".join(part for part in (self.seen, self.why, self.change) if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def judge(situation: Situation) -> list[Judgement]:
    """What the table says at an evaluation, by quantity; nothing of a quantity that is unknown."""
    found = (next((r for r in RULES if r.quantity == q and r.when(situation)), None) for q in QUANTITIES)
    return [_judgement(rule, situation) for rule in found if rule is not None]


def _judgement(rule: Rule, s: Situation) -> Judgement:
    def fill(text: Text) -> str:
        return text(s) if callable(text) else text.format(s=s, r=s.now)

    # By the validation part the best checkpoint is chosen; what is measured there decides nothing else
    decides = rule.quantity not in (PRECISION, TREND) or s.now.precision_part == "calibration"
    texts = (fill(text) for text in (rule.seen, rule.why, rule.change))
    seen, why, change = (text.replace("%", " %").replace("  %", " %") for text in texts)
    return Judgement(s.now.iteration, rule.quantity, rule.level, seen, why, change, rule.acts and decides)


def newly_raised(judgements: Iterable[Judgement], standing: Mapping[str, Level]) -> list[Judgement]:
    """The alarms that were not said yet: those of a quantity that was in order before, or is worse than before.

    Args:
        judgements: Of this evaluation.
        standing: Levels of the alarms at the evaluation before, by quantity.
    """
    return [
        judgement
        for judgement in judgements
        if judgement.is_alarm and standing.get(judgement.quantity) not in (judgement.level, "critical")
    ]


def levels(judgements: Iterable[Judgement]) -> dict[str, Level]:
    """The levels of the alarms among them, by quantity."""
    return {judgement.quantity: judgement.level for judgement in judgements if judgement.is_alarm}


def replay(records: Sequence[Record], plan: Plan, falling: int, source: str = "the log") -> list[list[Judgement]]:
    """Judges a run again as it was judged while it went: at each evaluation, with what was known by then.

    Args:
        records: Of the whole log.
        plan: What had been planned.
        falling: Evaluations in a row that make a fall.
        source: Where the records come from, for messages.

    Returns:
        The judgements of every evaluation.

    Raises:
        ReportError: A figure is impossible.
    """
    readings = readings_of(records)
    return [
        judge(situation_of(readings[: number + 1], records, plan, falling, source)) for number in range(len(readings))
    ]


def alarms_of(judged: Iterable[Sequence[Judgement]]) -> list[Judgement]:
    """The alarms that would have been raised, in order, each when it was first said."""
    standing: dict[str, Level] = {}
    raised: list[Judgement] = []
    for judgements in judged:
        raised += newly_raised(judgements, standing)
        standing = levels(judgements)
    return raised
