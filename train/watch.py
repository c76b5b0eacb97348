"""The watch: at every evaluation it gathers what is known of the run, says what is wrong, and acts where it may.

Read `Watch.evaluated`. What it judges by are the records of the run's log, those that `salakseg diagnose` reads later:
a run that is gone on with, or looked at afterwards, is judged as the running one was, but for the steps between the
last record and an interruption, which are in no record.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from salakseg.errors import ReportError
from salakseg.evaluate.history import STOPPED_EARLY, Plan, read_records
from salakseg.evaluate.rules import LOSS
from salakseg.train.alarms import Judgement, judge, levels, newly_raised
from salakseg.train.health import MOST_SKIPPED, Level
from salakseg.train.readings import Reading, Record, readings_of
from salakseg.train.settings_health import HealthConfig
from salakseg.train.situation import Situation, situation_of

Action = Literal["go on", "stop", "roll back"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an evaluation leads to.

    Attributes:
        reading: What was measured.
        judgements: What the rules say, by quantity.
        raised: The alarms among them that were not said at the evaluation before.
        action: What is to be done.
        reason: Why, in a sentence; empty to go on.
    """

    reading: Reading
    judgements: tuple[Judgement, ...]
    raised: tuple[Judgement, ...]
    action: Action = "go on"
    reason: str = ""


class Watch:
    """What the rules of `health.py` have led to so far in a run, and lead to now.

    Args:
        config: The recipe's section.
        plan: What the recipe has planned.

    Attributes:
        weight_factor: What the weight of self-training is multiplied by, 1 until the run went back for the first time.
        rollbacks: How often it has gone back.
    """

    def __init__(self, config: HealthConfig, plan: Plan) -> None:
        self.config = config
        self.plan = plan
        self.weight_factor = 1.0
        self.rollbacks = 0
        self._standing: dict[str, Level] = {}

    def evaluated(self, records: Sequence[Record], stop_reason: str | None = None) -> Verdict:
        """Judges the run at the last evaluation in its log.

        Args:
            records: Of the log so far, with that evaluation.
            stop_reason: Why the run stops early here, if it does.

        Raises:
            ReportError: A figure in the log is impossible.
        """
        if stop_reason is not None:
            stop = {"kind": "event", "iteration": records[-1]["iteration"], "event": STOPPED_EARLY}
            records = [*records, stop]
        situation = situation_of(readings_of(records), records, self.plan, self.config.falling)
        judgements = judge(situation)
        raised = newly_raised(judgements, self._standing)
        self._standing = levels(judgements)
        action, reason = decide(judgements, situation, self.config, self.rollbacks)
        return Verdict(situation.now, tuple(judgements), tuple(raised), action, reason)

    @property
    def may_roll_back(self) -> bool:
        """Whether the recipe lets the run go back to its best checkpoint once more."""
        return self.config.action == "guard" and self.rollbacks < self.config.rollbacks

    def rolled_back(self) -> None:
        """Takes down that the run went back."""
        self.rollbacks += 1
        self.weight_factor /= 2
        self._standing = {}

    def state(self) -> dict[str, Any]:
        """What a run that is gone on with must know, for the checkpoint."""
        return {"weight_factor": self.weight_factor, "rollbacks": self.rollbacks, "standing": dict(self._standing)}

    def load_state(self, state: dict[str, Any]) -> None:
        """The reverse of `state`; a checkpoint from before there was a watch has none."""
        self.weight_factor = state.get("weight_factor", 1.0)
        self.rollbacks = state.get("rollbacks", 0)
        self._standing = dict(state.get("standing", {}))


def decide(
    judgements: Sequence[Judgement], situation: Situation, config: HealthConfig, rollbacks: int
) -> tuple[Action, str]:
    """What is to be done.

    Going back changes the weight of self-training and nothing else, so it is done where that can have a part in what is
    seen, or where the numbers themselves have broken.

    Args:
        judgements: What the rules say.
        situation: What they were said of.
        config: What the recipe allows.
        rollbacks: How often the run has gone back.
    """
    calls = [judgement for judgement in judgements if judgement.is_alarm and judgement.acts]
    if config.action == "guard":
        calls = [call for call in calls if call.quantity == LOSS or situation.blamed]
    if not calls or config.action == "warn":
        return "go on", ""
    reason = " ".join(call.seen for call in calls)
    if config.action == "stop":
        return "stop", reason
    return ("roll back", reason) if rollbacks < config.rollbacks else ("go on", "")


def breakdown(means: dict[str, float]) -> str | None:
    """What is broken in the steps since the last record of the losses, if skipping single steps does not mend it.

    Args:
        means: Means over these steps.

    Returns:
        A clause; None where nothing is, or too little to matter.
    """
    skipped = means.get("skipped_share", 0.0)
    if skipped > MOST_SKIPPED:
        return f"{100 * skipped:.0f} % of the steps had no finite gradient"
    if not math.isfinite(means["loss"]) and skipped == 0:
        return f"the loss became {means['loss']}"
    return None


def logged_records(path: Path) -> list[dict[str, Any]]:
    """The records of a log that may not be there, or not be readable, which must not end a run."""
    try:
        return read_records(path)
    except ReportError:
        return []
