"""The exponential moving average of the student: what is validated, stored as the result, and may label."""

from copy import deepcopy

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

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Moves the average towards the student after an optimizer step."""
        decay = min(self.decay, 1.0 - 1.0 / (self.updates + 1))
        self.updates += 1
        averaged: list[Tensor] = []
        live: list[Tensor] = []
        own = self.model.state_dict()
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                averaged.append(own[name])
                live.append(value)
            else:  # counters, such as batch normalisation's number of batches
                own[name].copy_(value)
        torch._foreach_lerp_(averaged, live, 1.0 - decay)
