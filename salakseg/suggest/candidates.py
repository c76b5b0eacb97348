"""From cells to candidates: what a person would label in one go, and what that is worth.

Axes: N cell, M candidate, P part of the score, Q bin, K class, C channel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salakseg.suggest.cells import BINS, shares_of
from salakseg.suggest.sources import Source
from salakseg.suggest.store import CellStore

Unit = Literal["photo", "patch", "area"]
"""Whole photos, single pictures, or squares of neighbouring cells of one photo or orthomosaic."""

HIGH = 0.1
"""Share of all pixels whose scores are high."""

_CHUNK = 8192  # cells at a time
_SUMS = ("score", "disagreement", "entropy", "unreliability")


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What can be suggested, and what is labelled already, by the same measure.

    Attributes:
        key_M4: Source, photo, and row and column of the square (or number of the picture and 0), int64.
        pixels_M: Valid pixels.
        labelled_M: Whether some of its cells are labelled.
        ground_M2: Middle in metres, NaN where unknown.
        score_M, disagreement_M, entropy_M, unreliability_M: Means over the pixels, 0 to 1.
        high_M: Share of pixels with a high score, 0 to 1.
        prob_MK: Mean probability of each class.
        rare_M: Mean rarity of the expected classes, 0 to 1.
        worth_M: What it is ranked by.
        high_from: The score from which on a pixel's is high.
    """

    key_M4: NDArray[np.int64]
    pixels_M: NDArray[np.float64]
    labelled_M: NDArray[np.bool_]
    ground_M2: NDArray[np.float64]
    score_M: NDArray[np.float64]
    disagreement_M: NDArray[np.float64]
    entropy_M: NDArray[np.float64]
    unreliability_M: NDArray[np.float64]
    high_M: NDArray[np.float64]
    prob_MK: NDArray[np.float64]
    rare_M: NDArray[np.float64]
    worth_M: NDArray[np.float64]
    high_from: float


class CandidateCell(NamedTuple):
    """A cell of a candidate.

    Attributes:
        item: Number of the picture in its source.
        row, col: Place in the photo or orthomosaic, counted in cells.
        score: Its mean score.
    """

    item: int
    row: int
    col: int
    score: float


def gather(
    sources: Sequence[tuple[Source, CellStore]],
    unit: Unit,
    side: int,
    rarity_K: NDArray[np.float64],
    rarity_weight: float = 1.0,
) -> Candidates:
    """Adds cells up to candidates.

    Args:
        sources: With their cells.
        unit: What a candidate is.
        side: Cells in a row of a square, for areas.
        rarity_K: Rarity of each class, 0 to 1.
        rarity_weight: How much more an area full of the rarest class is worth; 0 switches it off.
    """
    parts = [_sums_of(number, source, store, unit, side) for number, (source, store) in enumerate(sources)]
    total = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    pixels_M = np.maximum(total["pixels"], 1)
    scores_MQ = total["scores"] / pixels_M[:, None]
    first = high_bin(total["scores"][~total["labelled"]].sum(axis=0))
    high_M = scores_MQ[:, first:].sum(axis=1)
    prob_MK = total["prob"] / pixels_M[:, None]
    mean = {name: total[name] / pixels_M for name in _SUMS}
    rare_M = prob_MK @ rarity_K
    open_M = ~total["labelled"]
    parts_MP = np.stack([mean[name] for name in _SUMS if name != "score"], axis=1)
    return Candidates(
        key_M4=total["key"],
        pixels_M=total["pixels"],
        labelled_M=total["labelled"],
        ground_M2=total["ground"],
        score_M=mean["score"],
        disagreement_M=mean["disagreement"],
        entropy_M=mean["entropy"],
        unreliability_M=mean["unreliability"],
        high_M=high_M,
        prob_MK=prob_MK,
        rare_M=rare_M,
        worth_M=worth_of(parts_MP, high_M, rare_M, rarity_weight, open_M),
        high_from=first / BINS,
    )


def worth_of(
    parts_MP: NDArray[np.float64],
    high_M: NDArray[np.float64],
    rare_M: NDArray[np.float64],
    rarity_weight: float,
    open_M: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """What candidates are ranked by, about 1 in the mean.

    The mean of the level of doubt and of the share of high scores, times 1 + weight x mean rarity of the classes that
    are expected. The level is the mean of disagreement, entropy and unreliability, each over its own mean: heads on one
    trunk differ by a twentieth of what entropy amounts to, and would else have no say. So is the share.

    Args:
        parts_MP: Mean of each part of the score; a part that is 0 everywhere was not measured and is left out.
        high_M: Share of high scores.
        rare_M: Mean rarity.
        rarity_weight: See `gather`.
        open_M: Over which candidates the means are taken.
    """
    both_MP = np.column_stack([parts_MP, high_M])
    mean_P = both_MP[open_M].mean(axis=0) if open_M.any() else np.ones(both_MP.shape[1])
    relative_MP = both_MP / np.where(mean_P > 0, mean_P, 1)
    measured_P = mean_P[:-1] > 0
    level_M = relative_MP[:, :-1][:, measured_P].mean(axis=1) if measured_P.any() else np.zeros(len(both_MP))
    worth_M: NDArray[np.float64] = (level_M + relative_MP[:, -1]) / 2 * (1 + rarity_weight * rare_M)
    return worth_M


def high_bin(pixels_Q: NDArray[np.float64]) -> int:
    """The first bin of the high scores: at most a tenth of all pixels lies in it and above, but the last one is high.

    Args:
        pixels_Q: Pixels by bin.
    """
    above_Q = pixels_Q[::-1].cumsum()[::-1]
    few_Q = above_Q <= HIGH * pixels_Q.sum()
    return min(int(few_Q.argmax()) if few_Q.any() else len(pixels_Q), len(pixels_Q) - 1)


def features_of(
    sources: Sequence[tuple[Source, CellStore]],
    unit: Unit,
    side: int,
    key_M4: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Mean feature of some candidates [M, C], weighted by pixels; read in a second pass, so that memory holds these.

    Args:
        sources: As for `gather`.
        unit: As for `gather`.
        side: As for `gather`.
        key_M4: Which candidates.
    """
    wanted = {tuple(key): place for place, key in enumerate(key_M4.tolist())}
    channels = sources[0][1].record["feature"].shape[0]
    sum_MC = np.zeros((len(key_M4), channels))
    pixels_M = np.zeros(len(key_M4))
    for number, (source, store) in enumerate(sources):
        for cells, item_N in _chunks(source, store):
            key_N4 = _keys(number, source, unit, side, cells, item_N)
            place_N = np.array([wanted.get(tuple(key), -1) for key in key_N4.tolist()])
            mine_N = place_N >= 0
            weight_N = cells["pixels"][mine_N].astype(np.float64)
            np.add.at(sum_MC, place_N[mine_N], cells["feature"][mine_N].astype(np.float32) * weight_N[:, None])
            np.add.at(pixels_M, place_N[mine_N], weight_N)
    return (sum_MC / np.maximum(pixels_M, 1)[:, None]).astype(np.float32)


def cells_of(
    number: int, source: Source, store: CellStore, unit: Unit, side: int, key_M4: NDArray[np.int64]
) -> dict[tuple[int, ...], list[CandidateCell]]:
    """The cells of some candidates of a source, by their keys.

    Args:
        number: Place of the source.
        source: The source.
        store: Its cells.
        unit: As for `gather`.
        side: As for `gather`.
        key_M4: Which candidates.
    """
    found: dict[tuple[int, ...], list[CandidateCell]] = {tuple(key): [] for key in key_M4.tolist()}
    for cells, item_N in _chunks(source, store):
        key_N4 = _keys(number, source, unit, side, cells, item_N)
        place_N2 = source.place_N2[item_N] + np.stack([cells["row"], cells["col"]], axis=1)
        for key, item, (row, col), score in zip(
            key_N4.tolist(), item_N.tolist(), place_N2.tolist(), cells["score"].tolist(), strict=True
        ):
            if tuple(key) in found:
                found[tuple(key)].append(CandidateCell(item, row, col, score))
    return found


def _sums_of(number: int, source: Source, store: CellStore, unit: Unit, side: int) -> dict[str, NDArray[Any]]:
    """Sums over the pixels of each candidate of a source, weighted by pixels."""
    classes = store.record["prob"].shape[0]
    # Keys first and sums in a second reading: only a chunk of the records is in memory at a time
    keys = [_keys(number, source, unit, side, cells, item_N) for cells, item_N in _chunks(source, store)]
    key_M4, group_N = np.unique(np.concatenate([np.zeros((0, 4), np.int64), *keys]), axis=0, return_inverse=True)
    count = len(key_M4)
    sums: dict[str, NDArray[Any]] = {name: np.zeros(count) for name in ("pixels", *_SUMS)}
    sums |= {"scores": np.zeros((count, BINS)), "prob": np.zeros((count, classes)), "ground": np.zeros((count, 2))}
    sums |= {"key": key_M4, "labelled": np.zeros(count, bool)}
    start = 0
    for cells, item_N in _chunks(source, store):
        group = group_N.reshape(-1)[start : start + len(cells)]
        start += len(cells)
        weight_N = cells["pixels"].astype(np.float64)
        np.add.at(sums["pixels"], group, weight_N)
        for name in _SUMS:
            np.add.at(sums[name], group, cells[name] * weight_N)
        np.add.at(sums["scores"], group, shares_of(cells["scores"]) * weight_N[:, None])
        np.add.at(sums["prob"], group, cells["prob"].astype(np.float64) * weight_N[:, None])
        np.add.at(sums["ground"], group, source.ground_N2[item_N] * weight_N[:, None])
        np.logical_or.at(sums["labelled"], group, source.labelled_N[item_N])
    sums["ground"] = sums["ground"] / np.maximum(sums["pixels"], 1)[:, None]
    return sums


def _chunks(source: Source, store: CellStore) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Cells of pictures that the source still has, some at a time, with the pictures' numbers there."""
    number = {name: place for place, name in enumerate(source.names)}
    now_I = np.array([number.get(name, -1) for name in store.names], np.int64)
    cells = store.read()
    for start in range(0, len(cells), _CHUNK):
        chunk = cells[start : start + _CHUNK]
        item_N = now_I[chunk["item"]]
        here_N = item_N >= 0
        yield np.asarray(chunk[here_N]), item_N[here_N]


def _keys(
    number: int, source: Source, unit: Unit, side: int, cells: NDArray[Any], item_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    key_N4 = np.zeros((len(cells), 4), np.int64)
    key_N4[:, 0] = number
    key_N4[:, 1] = source.base_N[item_N]
    if unit == "patch":
        key_N4[:, 2] = item_N
    elif unit == "area":
        place_N2 = source.place_N2[item_N] + np.stack([cells["row"], cells["col"]], axis=1)
        key_N4[:, 2:] = place_N2 // side
    return key_N4
