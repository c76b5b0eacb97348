"""The observer: what the trainer calls after each evaluation, and where the numbers break.

It measures (`measuring.py`), writes down, asks the watch (`watch.py`), says what is new, goes back to the best
checkpoint where the watch wants it (`rollback.py`), and shows the run on TensorBoard (`board.py`). Of several processes
that train together the first one judges, and tells the others.
"""

from typing import TYPE_CHECKING, Any

from salakseg.evaluate.formats import finite_or_none
from salakseg.evaluate.history import WATCHED
from salakseg.train.board import Board
from salakseg.train.measuring import Samples, draw_samples, measure
from salakseg.train.readings import ALARM, Record, kl_divergence, readings_of
from salakseg.train.rollback import roll_back
from salakseg.train.run import RunLog
from salakseg.train.watch import Action, Verdict, logged_records

if TYPE_CHECKING:
    from salakseg.train.loop import Trainer


class Observer:
    """Looks after one run.

    Args:
        trainer: Whose run; all that it needs is asked for only when the run has begun.

    Attributes:
        stop_reason: Why the run shall end, by the watch; None to go on.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.stop_reason: str | None = None
        self._trainer = trainer
        self._samples: Samples | None = None
        self._board: Board | None = None

    def evaluated(self, log: RunLog) -> None:
        """Follows up a validation that has just been written to the log."""
        trainer = self._trainer
        self._samples = self._samples or draw_samples(trainer)
        values = measure(trainer, self._samples)
        decision: tuple[Action, str] = ("go on", "")
        if trainer.fabric.is_global_zero:
            verdict = self._judge(values, log)
            self._tell(verdict, log)
            self._board = self._board or Board(trainer, self._samples.val)
            self._board.show(verdict, log)
            decision = verdict.action, verdict.reason
        action, reason = trainer.fabric.broadcast(decision)
        if action == "roll back" and not trainer.is_last:  # at the end there is nothing left to do better
            roll_back(trainer, reason, log)
        elif action == "stop" and not trainer.is_last:
            self.stop_reason = reason
            log.write("event", trainer.iteration, {"event": WATCHED, "reason": reason})
            trainer.say(f"stopped by the watch: {reason} (--set health.action=warn only says so)")

    def broken(self, what: str, log: RunLog) -> bool:
        """Goes back where the numbers are broken, if the recipe lets it; all processes must ask.

        Args:
            what: What is broken, as a clause.
            log: Where it is written down.

        Returns:
            Whether the run can go on.
        """
        return self._trainer.watch.may_roll_back and roll_back(self._trainer, what, log)

    def _judge(self, values: dict[str, Any], log: RunLog) -> Verdict:
        trainer = self._trainer
        records: list[Record] = list(logged_records(trainer.run_folder.metrics))
        # Of a full disk the log is behind; the evaluation itself must be there to be judged
        latest = {"kind": "val", **trainer.validation.history[-1]}
        if not any(record["kind"] == "val" and record["iteration"] == trainer.iteration for record in records):
            records.append(latest)
        reading = readings_of(records)[-1]
        values |= {
            "images_per_second": _images_per_second(trainer, records),
            "pseudo_divergence": finite_or_none(kl_divergence(reading.kept_K, values["labelled_share"])),
        }
        log.write("watch", trainer.iteration, values)
        records.append({"kind": "watch", "iteration": trainer.iteration, **values})
        stop = None if trainer.is_last else trainer.validation.stop_reason()
        return trainer.watch.evaluated(records, stop)

    def _tell(self, verdict: Verdict, log: RunLog) -> None:
        for alarm in verdict.raised:
            log.write("event", alarm.iteration, {"event": ALARM, **alarm.to_dict()})
            self._trainer.say(f"attention, {alarm.level}: {alarm.line}")


def _images_per_second(trainer: "Trainer", records: list[Record]) -> float | None:
    """By the newest record of the steps: labelled images, and the unlabelled ones once they take part."""
    steps = [record for record in records if record["kind"] == "train"]
    if not steps:
        return None
    settings = trainer.recipe.selftraining
    kinds = 2 if settings.enabled and trainer.iteration > settings.start else 1
    per_step = kinds * trainer.recipe.data.batch_size * trainer.fabric.world_size
    return float(steps[-1]["steps_per_second"]) * per_step
