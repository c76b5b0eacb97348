"""Several heads on the same features, and what they say together.

Axes: B image of the batch, N head, K class, H row, W column.
"""

from typing import NamedTuple

import torch
from torch import Tensor

TIE_SHARE = 1e-3
"""Share that the mean probability has in a vote: it decides where classes have equally many votes, which would
otherwise fall to the lowest class id, background. It is smaller than any difference of votes."""


class Logits(NamedTuple):
    """What the network returns.

    Attributes:
        heads_BNKHW: Logits of every head, float [B, N, K, H, W], at the size of the input.
        mean_BKHW: Their mean over the heads.
    """

    heads_BNKHW: Tensor
    mean_BKHW: Tensor


def combine_heads(logits: Logits, heads: str = "mean", temperature: float = 1.0) -> Tensor:
    """Class probabilities of several heads together.

    Args:
        logits: Of every head.
        heads: "mean": softmax of the mean of the logits; "prob": mean of the heads' probabilities; "vote": share of the
            heads that have the class as their most probable one; "diversenet": such votes, and half as many again for
            the class with the highest sum of logits (Ma, Karakus and Rosin: five beside ten heads); a number from "1"
            on: softmax of that head alone. See `WAYS` and `check_heads` of `variant.py`.
        temperature: What the logits are divided by before a softmax, above 0.

    Returns:
        Probabilities [B, K, H, W], summing to one over K.
    """
    if heads == "mean":
        return (logits.mean_BKHW / temperature).softmax(dim=1)
    if heads == "prob":
        return (logits.heads_BNKHW / temperature).softmax(dim=2).mean(dim=1)
    if heads in ("vote", "diversenet"):
        mean_prob = logits.heads_BNKHW.softmax(dim=2).mean(dim=1)
        winners_BNHW = most_probable(logits.heads_BNKHW, 2)
        favourite_BHW = most_probable(logits.mean_BKHW, 1) if heads == "diversenet" else None
        return vote_shares(winners_BNHW, mean_prob, favourite_BHW)
    return (logits.heads_BNKHW[:, int(heads) - 1] / temperature).softmax(dim=1)


def vote_shares(winners_BNHW: Tensor, mean_prob_BKHW: Tensor, favourite_BHW: Tensor | None = None) -> Tensor:
    """Shares of votes as probabilities.

    Args:
        winners_BNHW: The class that each head votes for.
        mean_prob_BKHW: Mean of the heads' probabilities, which decides between classes with equally many votes.
        favourite_BHW: A class that gets half as many votes as there are heads, if any.

    Returns:
        [B, K, H, W], summing to one over K.
    """
    heads = winners_BNHW.shape[1]
    total = heads if favourite_BHW is None else 1.5 * heads
    weight = (1 - TIE_SHARE) / total
    class_K11 = torch.arange(mean_prob_BKHW.shape[1], device=winners_BNHW.device).view(-1, 1, 1)
    shares_BKHW = TIE_SHARE * mean_prob_BKHW
    for winner_BHW in winners_BNHW.unbind(dim=1):
        shares_BKHW = shares_BKHW + weight * (winner_BHW.unsqueeze(1) == class_K11)
    if favourite_BHW is not None:
        shares_BKHW = shares_BKHW + weight * heads / 2 * (favourite_BHW.unsqueeze(1) == class_K11)
    return shares_BKHW


def disagreement(heads_BNKHW: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the heads' probabilities at each pixel, float32 [B, H, W], 0 to ln N.

    The entropy of the mean minus the mean of the entropies (Lin 1991).
    """
    prob_BNKHW = heads_BNKHW.float().softmax(dim=2)
    mean_BKHW = prob_BNKHW.mean(dim=1)
    entropy_of_mean: Tensor = torch.special.entr(mean_BKHW).sum(dim=1)
    mean_of_entropies = torch.special.entr(prob_BNKHW).sum(dim=2).mean(dim=1)
    divergence_BHW: Tensor = (entropy_of_mean - mean_of_entropies).clamp(min=0)
    return divergence_BHW


def most_probable(values: Tensor, dim: int) -> Tensor:
    """The index of the greatest value along a dimension; argmax gives the same on a CPU, but 10 to 30 times slower."""
    return values.max(dim=dim).indices
