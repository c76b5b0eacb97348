"""Ways to choose the next squares. Axes: M candidate, N square."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelling.squares import Pool, Square
from salakseg.network.device import pick_device
from salakseg.network.torch_engine import TorchEngine
from salakseg.suggest.candidates import Candidates, features_of
from salakseg.suggest.choose import Wish, choose, look_at, open_stores
from salakseg.suggest.diverse import pick_diverse, standardise
from salakseg.suggest.sources import Source
from salakseg.suggest.store import CellStore

STRATEGIES = {
    "suggest": "as salakseg suggest: doubt, rare classes, diversity",
    "score": "the same worth without diversity",
    "diverse": "diversity alone, every square worth the same",
    "entropy": "highest mean entropy alone",
    "random": "at random",
}
"""Their names and what they do."""


def choose_squares(
    strategy: str,
    pool: Pool,
    revealed: Sequence[Square],
    count: int,
    checkpoint: Path,
    seed: int,
    cache: Path,
    device: str,
) -> list[Square]:
    """The next squares.

    Args:
        strategy: A key of `STRATEGIES`.
        pool: All images.
        revealed: Squares that are labelled already.
        count: How many more.
        checkpoint: The network after the round before.
        seed: Of what is drawn at random.
        cache: Folder for cells, removed by the caller.
        device: "auto", "cpu" or "cuda".
    """
    known = set(revealed)
    open_ones = [square for square in pool.squares if square not in known]
    if strategy == "random":
        generator = np.random.default_rng([seed, len(revealed)])
        return [open_ones[place] for place in generator.permutation(len(open_ones))[:count]]
    engine = TorchEngine(checkpoint, pick_device(device), tile=pool.side)
    source = pool.source(revealed)
    wish = Wish(count=count, unit="patch", gap=0, distance_m=0.9 * pool.side)
    with open_stores([source], engine, cache) as (store,):
        look_at([source], [store], engine)
        chosen = choose([source], [store], engine, wish)
        found = chosen.found
        if strategy == "suggest":
            places = list(chosen.places)
        elif strategy == "diverse":
            places = _most_unlike([(source, store)], found, count)
        else:
            value_M = found.entropy_M if strategy == "entropy" else found.worth_M
            places = np.argsort(-np.where(found.labelled_M, -1, value_M), kind="stable")[:count].tolist()
    return [pool.squares[number] for number in found.key_M4[places, 2].tolist()]


def _most_unlike(sources: Sequence[tuple[Source, CellStore]], found: Candidates, count: int) -> list[int]:
    """Greedy k-centre among all open squares."""
    open_M, known_M = np.flatnonzero(~found.labelled_M), np.flatnonzero(found.labelled_M)
    feature_MC = features_of(sources, "patch", 1, found.key_M4[np.concatenate([open_M, known_M])])
    open_MC, known_MC = standardise(feature_MC[: len(open_M)], feature_MC[len(open_M) :])
    return [int(open_M[place]) for place in pick_diverse(np.ones(len(open_M)), open_MC, known_MC, count)]
