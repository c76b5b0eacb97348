"""One streaming pass: every picture is read, shown to the network and remembered as a few numbers.

Axes: B cell of a batch, K class.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from salakseg.data.ahead import read_ahead
from salakseg.errors import EngineError, UnreadableError
from salakseg.network.torch_engine import TorchEngine
from salakseg.suggest.cells import summarise
from salakseg.suggest.pixels import doubt_of
from salakseg.suggest.sources import Cell, Source
from salakseg.suggest.store import CellStore

Progress = Callable[[int, int], None]
"""Takes pictures done and to do."""

AREA = 8 * 256 * 256
"""Pixels of a batch on a CPU; a GPU takes more at a time."""


def scan(
    source: Source,
    store: CellStore,
    engine: TorchEngine,
    precision_K: Sequence[float] | None,
    pixels: int = AREA,
    progress: Progress | None = None,
) -> list[str]:
    """Looks at all pictures of a source that the store does not know yet.

    Args:
        source: The pictures.
        store: Where their cells go, in order; what is in it is whole at any time.
        engine: The network.
        precision_K: See `doubt_of`.
        pixels: Pixels of a batch; memory is bounded by it.
        progress: Called after each batch.

    Returns:
        Pictures that cannot be read. They are left out, and tried again the next time.

    Raises:
        EngineError: The network gives no numbers.
        DataError: The store cannot be written.
    """
    known = set(store.names)
    todo = [number for number, name in enumerate(source.names) if name not in known]
    done, skipped = len(source.names) - len(todo), []
    batch: list[tuple[int, Cell]] = []
    finished: list[str] = []

    def flush() -> None:
        nonlocal done
        cells = _look(batch, store, engine, precision_K) if batch else np.zeros(0, store.record)
        store.add(cells, finished)
        done += len(finished)
        batch.clear()
        finished.clear()
        if progress is not None:
            progress(done, len(source.names))

    def read(number: int) -> list[Cell] | UnreadableError:
        try:
            return source.read(number)
        except UnreadableError as error:
            return error

    first = len(store.names)
    seen = 0
    for number, cells in zip(todo, read_ahead(read, todo, source.threads, 8 * source.threads), strict=True):
        if isinstance(cells, UnreadableError):
            done += 1
            skipped.append(source.names[number])
            continue
        for cell in cells:
            if batch and _is_full(batch, cell, pixels):
                flush()
            batch.append((first + seen, cell))
        finished.append(source.names[number])
        seen += 1
    flush()
    return skipped


def _is_full(batch: list[tuple[int, Cell]], cell: Cell, pixels: int) -> bool:
    size = batch[0][1].valid_HW.shape
    return cell.valid_HW.shape != size or (len(batch) + 1) * size[0] * size[1] > pixels


def _look(
    batch: list[tuple[int, Cell]], store: CellStore, engine: TorchEngine, precision_K: Sequence[float] | None
) -> np.ndarray:
    logits, feature_BC = engine.inspect(np.stack([cell.image_CHW for _, cell in batch]))
    valid_BHW = torch.from_numpy(np.stack([cell.valid_HW for _, cell in batch])).to(feature_BC.device)
    cells = summarise(doubt_of(logits, precision_K), valid_BHW, feature_BC)
    if not np.isfinite(cells["score"]).all():
        raise EngineError(f"{engine.name} answers with values that are no numbers; take another checkpoint.")
    cells["item"] = [item for item, _ in batch]
    cells["row"] = [cell.row for _, cell in batch]
    cells["col"] = [cell.col for _, cell in batch]
    assert cells.dtype == store.record
    return cells
