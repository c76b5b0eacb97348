"""The exponential moving average of the student: what is validated, stored as the result, and may label."""

from copy import deepcopy
from typing import Any, NamedTuple

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


class StandingTeacher:
    """A labeller that stands still between renewals, as in self-training by rounds (Yang et al., ST++, CVPR 2022).

    A moving average follows its student at every step, and with it the mistakes that they have made together; one that
    stands still cannot be led astray before its next renewal.

    Args:
        every: Steps between two renewals; 1 is the moving average itself.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.model: nn.Module | None = None
        self.taken = 0

    def renew(self, average: nn.Module, iteration: int) -> None:
        """Takes the weights of the moving average if it is time to.

        Args:
            average: The moving average.
            iteration: Steps done before the one that is labelled now.
        """
        if self.every == 1:
            return
        if self.model is None:
            self.model = deepcopy(average)
            self.taken = iteration
        elif iteration - self.taken >= self.every:
            self.model.load_state_dict(average.state_dict())
            self.taken = iteration

    def of(self, average: nn.Module) -> nn.Module:
        """The network that labels: the average itself, where nothing has been renewed yet."""
        return average if self.model is None else self.model

    def state(self) -> dict[str, Any]:
        """For the checkpoint; empty where it is the average itself, or has not labelled yet."""
        return {} if self.model is None else {"taken": self.taken, "model": self.model.state_dict()}

    def load_state(self, state: dict[str, Any], average: nn.Module) -> None:
        """The reverse of `state`.

        Args:
            state: What was stored.
            average: A network of the same kind.
        """
        self.model = None
        if state:
            self.model = deepcopy(average)
            self.model.load_state_dict(state["model"])
            self.taken = state["taken"]


class _Pairs(NamedTuple):
    averaged: list[Tensor]
    live: list[Tensor]
    counters: list[Tensor]
    counted: list[Tensor]
