"""All of it: from sources to the next things worth labelling. Read this first.

look (`scan`) -> add up (`candidates`) -> leave out what is near labels (`near`) -> choose (`diverse`).

Axes: M candidate, P of the pool, L labelled, K class, C feature.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.data.patches import Photo
from salakseg.errors import DataError
from salakseg.network.torch_engine import TorchEngine
from salakseg.suggest.candidates import Candidates, Unit, features_of, gather
from salakseg.suggest.diverse import pick_diverse, standardise
from salakseg.suggest.near import Neighbourhood
from salakseg.suggest.pixels import precision_of, rarity_of
from salakseg.suggest.scan import AREA, Progress, scan
from salakseg.suggest.sources import Source
from salakseg.suggest.store import CellStore

VERSION = 1
"""Of what the cells hold; another one makes stored cells worthless."""

_POOL = 20  # candidates of the pool for each that is wanted
_LEAST_POOL = 1000
_MOST_LABELLED = 20_000  # labelled features that are kept in memory
_LEAST_VALID = 0.5  # of an area's pixels


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted.

    Attributes:
        count: How many candidates.
        unit: What one is.
        side: Cells in a row of an area, at least 1.
        rarity: See `gather`.
        gap: Photos to either side of a labelled or chosen one that show much of the same ground.
        distance_m: Metres between the middles of candidates below which they count as the same ground; None for a side
            of a photo, or one and a half of a patch or an area.
    """

    count: int = 20
    unit: Unit = "photo"
    side: int = 1
    rarity: float = 1.0
    gap: int = 3
    distance_m: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The result.

    Attributes:
        found: All candidates.
        places: Which of them are suggested, in order.
        open: How many could have been.
        skipped: Pictures that could not be read.
    """

    found: Candidates
    places: tuple[int, ...]
    open: int
    skipped: tuple[str, ...]


@contextmanager
def open_stores(sources: Sequence[Source], engine: TorchEngine, cache: Path) -> Iterator[list[CellStore]]:
    """The cells of each source, kept in a folder by the digest of the model and the place of the source.

    Args:
        sources: The sources.
        engine: The network.
        cache: Folder for all cells.

    Raises:
        DataError: The folder cannot be written.
    """
    precision_K = precision_for(engine)
    made_by = {"version": VERSION, "engine": engine.identity, "precision": precision_K}
    with ExitStack() as stack:
        stores = []
        for source in sources:
            where = hashlib.sha256(str(source.about.get("path", source.about.get("root"))).encode()).hexdigest()[:12]
            folder = cache / engine.identity["model_sha256"][:16] / where
            about = {**made_by, "source": dict(source.about)}
            stores.append(stack.enter_context(CellStore(folder, about, len(engine.class_map), engine.channels)))
        yield stores


def precision_for(engine: TorchEngine) -> tuple[float, ...] | None:
    """Precision of each class on the checkpoint's own validation; None where there was none."""
    matrix_KK = engine.validation_matrix
    return None if matrix_KK is None else precision_of(matrix_KK)


def look_at(
    sources: Sequence[Source],
    stores: Sequence[CellStore],
    engine: TorchEngine,
    pixels: int = AREA,
    progress: Progress | None = None,
) -> list[str]:
    """The long part: shows every picture that is not in the stores yet to the network.

    Args:
        sources: The sources.
        stores: Their cells.
        engine: The network.
        pixels: Pixels of a batch.
        progress: Called with pictures done and to do, of all sources together.

    Returns:
        Pictures that cannot be read.
    """
    total = sum(len(source.names) for source in sources)
    before = 0
    skipped: list[str] = []
    for source, store in zip(sources, stores, strict=True):
        bar = None if progress is None else _shifted(progress, before, total)
        skipped += scan(source, store, engine, precision_for(engine), pixels, bar)
        before += len(source.names)
    return skipped


def choose(
    sources: Sequence[Source],
    stores: Sequence[CellStore],
    engine: TorchEngine,
    wish: Wish,
    skipped: Sequence[str] = (),
) -> Chosen:
    """Chooses among all that was looked at.

    Args:
        sources: The sources.
        stores: Their cells.
        engine: The network.
        wish: What is wanted.
        skipped: What could not be read, to be passed on.

    Raises:
        DataError: Nothing is left to choose from.
    """
    both = list(zip(sources, stores, strict=True))
    matrix_KK = engine.validation_matrix
    rarity_K = np.zeros(len(engine.class_map)) if matrix_KK is None else rarity_of(matrix_KK)
    found = gather(both, wish.unit, wish.side, rarity_K, wish.rarity)
    photos: list[Sequence[Photo] | None] = [getattr(source, "photos", None) for source in sources]
    around = Neighbourhood(found, photos, distance_of(sources, wish), wish.gap, wish.unit)
    open_M = ~around.labelled() & (found.pixels_M > 0)
    if wish.unit == "area":
        open_M &= found.pixels_M >= _LEAST_VALID * found.pixels_M.max(initial=0)
    if not open_M.any():
        raise DataError(
            f"{sources[0].title}: nothing is left to suggest, all {len(found.key_M4):,} candidates are labelled or "
            "near labels; lower --gap or --distance, or add imagery."
        )
    candidates = np.flatnonzero(open_M)
    order = candidates[np.argsort(-found.worth_M[candidates], kind="stable")]
    pool = order[: max(_POOL * wish.count, _LEAST_POOL)]
    known = np.flatnonzero(found.labelled_M)
    if len(known) > _MOST_LABELLED:
        known = np.sort(np.random.default_rng(0).choice(known, _MOST_LABELLED, replace=False))
    feature_C = features_of(both, wish.unit, wish.side, found.key_M4[np.concatenate([pool, known])])
    feature_PC, labelled_LC = standardise(feature_C[: len(pool)], feature_C[len(pool) :])
    picked = pick_diverse(
        found.worth_M[pool], feature_PC, labelled_LC, wish.count, lambda place: around.of(int(pool[place]), pool)
    )
    return Chosen(found, tuple(int(pool[place]) for place in picked), len(candidates), tuple(skipped))


def distance_of(sources: Sequence[Source], wish: Wish) -> float:
    """Metres below which two candidates show the same ground."""
    if wish.distance_m is not None:
        return wish.distance_m
    return max((_apart(source, wish, source.side_m) for source in sources if source.side_m is not None), default=0.0)


def _apart(source: Source, wish: Wish, side_m: float) -> float:
    """The side of a photo, whose neighbours share no ground then; one and a half of an area's or a patch's."""
    cells = {"patch": 1.0, "area": float(wish.side), "photo": _cells_across(source)}[wish.unit]
    whole_m = (cells - 1) * (source.step_m or side_m) + side_m
    return whole_m if wish.unit == "photo" else 1.5 * whole_m


def _cells_across(source: Source) -> float:
    """Cells across the middle one of the photos whose place is known: the root of rows times columns."""
    known_N = np.isfinite(source.ground_N2).all(axis=1)
    base_N, place_N2 = source.base_N[known_N], source.place_N2[known_N]
    photos, base_N = np.unique(base_N, return_inverse=True)
    if len(photos) == 0:
        return 1.0
    first, last = np.full((len(photos), 2), np.inf), np.full((len(photos), 2), -np.inf)
    np.minimum.at(first, base_N, place_N2)
    np.maximum.at(last, base_N, place_N2)
    return float(np.median(np.sqrt((last - first + 1).prod(axis=1))))


def default_cache(out: Path) -> Path:
    """Where cells are kept unless somebody names another folder."""
    return Path(os.path.normpath(out / "cache"))


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, of_source: progress(before + done, total)


def top_classes(prob_K: NDArray[np.float64], names: Sequence[str], most: int = 3) -> str:
    """The classes that are expected most, such as "Jalan 40 %, Bangunan 30 %"."""
    order = np.argsort(-prob_K)[:most]
    return ", ".join(f"{names[place]} {100 * prob_K[place]:.0f} %" for place in order if prob_K[place] >= 0.01)
