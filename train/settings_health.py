"""The section of a recipe about its own watching: what is looked at, and what an alarm leads to."""

from typing import Literal

from pydantic import Field

from salakseg.train.settings import Section


class HealthConfig(Section):
    """What is measured beside the validation, and what happens when a rule of `health.py` fires."""

    action: Literal["warn", "stop", "guard"] = "warn"
    """``warn``: say what was seen, why it matters and what to change; ``stop``: end the run at an alarm that calls for
    action; ``guard``: go back to the best checkpoint with half the weight of self-training, and go on."""
    rollbacks: int = Field(default=2, ge=1)
    """Most times that ``guard`` goes back; after that it only warns."""
    falling: int = Field(default=3, ge=2)
    """Evaluations in a row clearly below the best that count as a fall: of the score, and of the pseudo-labels'
    precision."""
    sample: int = Field(default=128, ge=0)
    """Patches of the labelled, the validation and the calibration part each that are looked at beside the validation,
    at every evaluation the same: training mIoU, student beside teacher, precision of pseudo-labels. 0 looks at none."""
