"""Results that were recorded before this project, kept in a TOML file: not re-run, never mixed with measured ones."""

import importlib.resources
import tomllib
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from salakseg.evaluate.history import Plan, Series, TrainingHistory


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RecordedRun(_Entry):
    """One recorded run."""

    name: str = Field(min_length=1)
    """What the run was called."""
    best_miou: float = Field(ge=0, le=1, strict=True)
    """Its best validation mIoU, 0 to 1."""
    iteration: int | None = Field(default=None, ge=1, strict=True)
    """Where that was, None if not recorded."""
    last_miou: float | None = Field(default=None, ge=0, le=1, strict=True)
    """The last validation mIoU, 0 to 1, None if not recorded."""
    last_iteration: int | None = Field(default=None, ge=1, strict=True)
    """Where that was, None if not recorded."""
    planned: int | None = Field(default=None, ge=1, strict=True)
    """Iterations planned, None if not recorded."""
    stopped_early: bool | None = Field(default=None, strict=True)
    """Whether its patience ran out, None if not recorded."""
    remark: str = Field(min_length=1)
    """What it was, in a few words."""
    curve: tuple[tuple[int, float], ...] = ()
    """Pairs of iteration and validation mIoU by rising iteration; empty if not recorded."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.last_miou is None) != (self.last_iteration is None):
            raise ValueError(f"{self.name} has the last mIoU or its iteration without the other")
        if self.last_iteration is not None and self.iteration is None:
            raise ValueError(f"{self.name} has an end, but not the iteration of its best")
        iterations = [iteration for iteration, _ in self.curve]
        if iterations != sorted(set(iterations)):
            raise ValueError(f"the curve of {self.name} does not go by rising iterations")
        if self.curve and (
            max(self.curve, key=lambda entry: entry[1]) != (self.iteration, self.best_miou)
            or self.curve[-1] != (self.last_iteration, self.last_miou)
        ):
            raise ValueError(f"the curve of {self.name} has another best or end than its entry")
        return self

    @property
    def points(self) -> Series:
        """What can be drawn: the curve, or else the best and the last evaluation where their iterations are known."""
        if self.curve:
            return self.curve
        ends = ((self.iteration, self.best_miou), (self.last_iteration, self.last_miou))
        known = {at: value for at, value in ends if at is not None and value is not None}
        return tuple(sorted(known.items()))

    def history(self) -> TrainingHistory:
        """The run as a history for `salakseg.evaluate.diagnosis.diagnose`; all else about it is unknown."""
        return TrainingHistory(
            plan=Plan(iterations=self.planned),
            stopped_early=self.stopped_early,
            score_name="recorded validation mIoU (whether with background is unclear)",
            val_miou=self.points,
        )


class Recorded(_Entry):
    """Runs recorded elsewhere."""

    mark: str = Field(min_length=1)
    """What stands beside each of their figures."""
    source: str = Field(min_length=1)
    """Where the figures come from."""
    remark: str = Field(min_length=1)
    """What a reader must know before comparing; it is printed wherever the figures are."""
    runs: tuple[RecordedRun, ...] = Field(min_length=1)
    """The runs, oldest first."""


def load_recorded() -> Recorded:
    """The field team's recorded results."""
    file = importlib.resources.files("salakseg.evaluate") / "recorded.toml"
    return Recorded.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
