"""The exponential moving average of the student: what is validated, stored as the result, and may label."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Ema:
    """Moving average of a network's parameters and buffers.

    Batch normalisation's running statistics are buffers: averaging parameters alone would pair old statistics with new
    weights. The decay is warmed up as min(decay, 1 - 1 / (n + 1)) after n updates (Yang et al., UniMatch V2), which is
    the plain mean of all weights so far and carries no share of the initial ones.

    Args:
        model: The student; it is copied.
        decay: Decay once warmed up, 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._pairs: tuple[nn.Module, _Pairs] | None = None

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Moves the average towards the student after an optimizer step."""
        decay = min(self.decay, 1.0 - 1.0 / (self.updates + 1))
        self.updates += 1
        averaged, live, counters, counted = self._pairs_with(student)
        if counters:
            torch._foreach_copy_(counters, counted)
        torch._foreach_lerp_(averaged, live, 1.0 - decay)

    def _pairs_with(self, student: nn.Module) -> "_Pairs":
        """Its tensors beside the student's; found once, since both networks change theirs in place."""
        if self._pairs is None or self._pairs[0] is not student:
            pairs = _Pairs([], [], [], [])
            own = self.model.state_dict()
            for name, value in student.state_dict().items():
                if value.is_floating_point():
                    pairs.averaged.append(own[name])
                    pairs.live.append(value)
                else:  # such as batch normalisation's number of batches
                    pairs.counters.append(own[name])
                    pairs.counted.append(value)
            self._pairs = student, pairs
        return self._pairs[1]


class _Pairs(NamedTuple):
    averaged: list[Tensor]
    live: list[Tensor]
    counters: list[Tensor]
    counted: list[Tensor]
