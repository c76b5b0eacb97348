"""Every way to use a checkpoint, and what each predicts, from one forward pass of each of its weights.

Axes: B image, N head, K class, H row, W column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salakseg.network.heads import TIE_SHARE, Logits, combine_heads, most_probable
from salakseg.network.variant import WAYS, Variant, Weights

TURNS = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""The eight flips and turns of a square."""


@dataclass(frozen=True, slots=True)
class Way:
    """One row of the table of variants.

    Attributes:
        variant: Which weights and heads.
        tta: Whether the mean over eight flips and turns is taken.
    """

    variant: Variant
    tta: bool = False

    @property
    def text(self) -> str:
        """The way for people."""
        return self.variant.text + (", eight flips and turns" if self.tta else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.variant.to_dict(), "tta": self.tta, "text": self.text}


def ways_of(heads: int, tta: bool, weights: Sequence[Weights] = ("ema", "student")) -> tuple[Way, ...]:
    """Every way to use a network.

    Args:
        heads: Number of heads; a single one has nothing to combine.
        tta: Whether each way is also tried with flips and turns.
        weights: Whose weights.
    """
    combined = [*WAYS, *(str(head) for head in range(1, heads + 1))] if heads > 1 else ["mean"]
    return tuple(
        Way(Variant(whose, how), turned)
        for whose in weights
        for turned in ((False, True) if tta else (False,))
        for how in combined
    )


@dataclass(frozen=True, slots=True)
class Opinions:
    """What several ways to combine heads have in common, computed once.

    Attributes:
        winners_BNHW: The class that each head predicts.
        prob_BKHW: Mean of the heads' probabilities.
        favourite_BHW: The class with the highest mean of logits.
    """

    winners_BNHW: Tensor
    prob_BKHW: Tensor
    favourite_BHW: Tensor

    @classmethod
    def of(cls, logits: Logits) -> "Opinions":
        """The opinions in some logits."""
        return cls(
            most_probable(logits.heads_BNKHW, 2), combine_heads(logits, "prob"), most_probable(logits.mean_BKHW, 1)
        )


def predictions(opinions: Opinions, ways: Sequence[str]) -> dict[str, Tensor]:
    """The predicted classes of several ways to combine heads, at temperature 1.

    Args:
        opinions: Of the heads.
        ways: See `combine_heads`.

    Returns:
        Class ids by way, uint8 [B, H, W].
    """
    found: dict[str, Tensor] = {}
    for way in ways:
        if way == "mean":
            found[way] = opinions.favourite_BHW
        elif way.isdecimal():
            found[way] = opinions.winners_BNHW[:, int(way) - 1]
        elif way == "prob":
            found[way] = most_probable(opinions.prob_BKHW, 1)
    if "vote" in ways or "diversenet" in ways:
        found |= _voted(opinions)
    return {way: found[way].to(torch.uint8) for way in ways}


def _voted(opinions: Opinions) -> dict[str, Tensor]:
    """Class ids of both votes: as `combine_heads` has it, but ranked by votes alone, with the ties to the likelier."""
    heads = opinions.winners_BNHW.shape[1]
    votes_BKHW = TIE_SHARE * opinions.prob_BKHW
    votes_BKHW.scatter_add_(1, opinions.winners_BNHW, torch.ones_like(opinions.winners_BNHW, dtype=votes_BKHW.dtype))
    by_vote = most_probable(votes_BKHW, 1)
    favourite_B1HW = opinions.favourite_BHW.unsqueeze(1)
    bonus = torch.full_like(favourite_B1HW, heads / 2, dtype=votes_BKHW.dtype)
    return {"vote": by_vote, "diversenet": most_probable(votes_BKHW.scatter_add_(1, favourite_B1HW, bonus), 1)}


def turn(image_BCHW: Tensor, turns: int, flip: bool) -> Tensor:
    """Flips the columns if asked, then turns by so many quarters."""
    seen = image_BCHW.flip(-1) if flip else image_BCHW
    return seen.rot90(turns, (-2, -1))


def turn_back(values_BKHW: Tensor, turns: int, flip: bool) -> Tensor:
    """The reverse of `turn`."""
    straight = values_BKHW.rot90(-turns, (-2, -1))
    return straight.flip(-1) if flip else straight


class TurnedMean:
    """The mean of probabilities over flips and turns, for several ways at a time.

    Args:
        temperatures: Of each way, see `combine_heads`.
    """

    def __init__(self, temperatures: Mapping[str, float]) -> None:
        self._temperatures = temperatures
        self._sums: dict[str, Tensor] = {}

    def add(self, logits: Logits, turns: int, flip: bool) -> None:
        """Adds what the network says of a turned image."""
        for way, temperature in self._temperatures.items():
            prob = turn_back(combine_heads(logits, way, temperature), turns, flip)
            self._sums[way] = self._sums[way] + prob if way in self._sums else prob

    def probabilities(self, way: str) -> Tensor:
        """Mean probabilities [B, K, H, W] after all eight were added."""
        return self._sums[way] / len(TURNS)
