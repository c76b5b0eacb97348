"""A way to get class probabilities out of a checkpoint: whose weights, which heads, how sure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from salakseg.errors import EngineError

Weights = Literal["ema", "student"]

WAYS = {
    "mean": "mean of the logits",
    "prob": "mean of the probabilities",
    "vote": "majority vote",
    "diversenet": "DiverseNet vote",
}
"""How several heads are combined, by the name that ``--heads`` takes; a head alone goes by its number, from 1 on."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to use a checkpoint.

    Attributes:
        weights: "ema", the moving average, or "student", the network as it was trained.
        heads: A key of `WAYS`, or the number of a head, from "1" on.
        temperature: What logits are divided by before the softmax (Guo et al. 2017), above 0; 1 leaves them alone.
    """

    weights: Weights = "ema"
    heads: str = "mean"
    temperature: float = 1.0

    @property
    def text(self) -> str:
        """The variant for people, such as "EMA, mean of the logits"."""
        return f"{'EMA' if self.weights == 'ema' else 'student'}, {WAYS.get(self.heads, f'head {self.heads}')}"

    @property
    def votes(self) -> bool:
        """Whether the probabilities are shares of votes, which no temperature changes."""
        return self.heads in ("vote", "diversenet")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`.

        Raises:
            ValueError: An entry that is missing, unknown or impossible.
        """
        try:
            variant = cls(**record)
            known = variant.heads in WAYS or (
                variant.heads.isascii() and variant.heads.isdecimal() and int(variant.heads) >= 1
            )
            if variant.weights not in ("ema", "student") or not known or not 0 < variant.temperature < float("inf"):
                raise ValueError(f"{dict(record)} is no variant")
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{record!r} is no variant") from error
        return variant


def check_heads(heads: str, count: int) -> None:
    """Refuses a way to combine heads that a network with `count` of them does not have.

    Raises:
        EngineError: It is neither a way nor one of the heads, counted from 1.
    """
    if heads not in WAYS and not (heads.isascii() and heads.isdecimal() and 1 <= int(heads) <= count):
        raise EngineError(f"--heads {heads} is none of {', '.join(WAYS)} nor one of the {count} heads, 1 to {count}.")
