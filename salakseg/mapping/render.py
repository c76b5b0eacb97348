"""The unit of work of a map: the tiles of a section go through the model, its stripes come out as files.

It runs in this process or on a worker of a cluster, and gives the same bytes in both. Axes: B tiles, K classes, C red
green blue, H rows, W columns.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.errors import EngineError
from salakseg.mapping.blend import BlendedRows, Blender
from salakseg.mapping.layers import Layers
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.plan import MapPlan, Panel, Section
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.resample import resample
from salakseg.mapping.stripes import Block, OpenStripe, StripeFolder, StripeRecord
from salakseg.mapping.tiles import Tile, read_ahead
from salakseg.network.engine import Engine

_PIECE = 2**21
"""Pixels of the map that are resampled at once."""

_UNWRITTEN = 4
"""Pieces of a stripe that may wait for the disk."""


@dataclass(frozen=True, slots=True)
class Job:
    """A map to be made, in plain values that can be sent to another machine.

    Attributes:
        source: The orthomosaic.
        options: How it is read; its stretch is settled.
        plan: Where everything lies.
        layers: What the map holds.
        batch_size: Tiles inferred at once, at least 1.
    """

    source: Path
    options: SourceOptions
    plan: MapPlan
    layers: Layers
    batch_size: int


Report = Callable[[bool], None]
"""Told of every tile that is done, whether the model saw it (it holds no valid pixel otherwise)."""


def render_section(
    job: Job, section: Section, engine: Engine, orthomosaic: Orthomosaic, out: Path, report: Report
) -> None:
    """Makes the stripes of a section.

    Args:
        job: The map.
        section: The stripes to make.
        engine: The model.
        orthomosaic: The open source; nobody else reads from it meanwhile.
        out: Folder for the stripes, see `StripeFolder`. A stripe that is whole stays, whatever happens later.
        report: Called in this thread.

    Raises:
        RasterError: A part of the orthomosaic cannot be read.
        EngineError: The model gives no proper probabilities.
        OSError, rasterio.errors.RasterioError: A stripe cannot be written.
    """
    plan, panel = job.plan, job.plan.panels[section.panel]
    top, bottom = plan.stripe_rows(section.start, section.stop)
    if top == bottom:  # a coarse map, of which no row ends here
        for stripe in range(section.start, section.stop):
            StripeFolder(out, job.layers).put_record(
                section.panel, stripe, StripeRecord(top, panel.start, 0, panel.stop - panel.start)
            )
        return
    first = plan.first_tile_row(section)
    blender = Blender(plan.grid, job.layers.classes, panel.model_start, panel.model_stop, first)
    # The reader ends before the caller closes the orthomosaic: no thread reads from a closed file.
    with ThreadPoolExecutor(1, "salakseg-read") as reader, ThreadPoolExecutor(1, "salakseg-write") as writer:
        stripes = _StripeMaker(job, section, orthomosaic, StripeFolder(out, job.layers), reader, writer)
        try:
            for tile, prob_KHW in _inferred(job, section, engine, orthomosaic, reader, report):
                for rows in blender.finished_before(tile.row):
                    stripes.add(rows)
                blender.add(tile.row, tile.col, prob_KHW, tile.valid_HW)
            for rows in blender.finished_before(section.stop):
                stripes.add(rows)
        finally:
            stripes.close()


def _inferred(
    job: Job, section: Section, engine: Engine, orthomosaic: Orthomosaic, reader: Executor, report: Report
) -> Iterator[tuple[Tile, NDArray[np.float32]]]:
    """The section's tiles that hold valid pixels, row by row, with their probabilities.

    The model works on the next batch while the caller blends the one before.
    """
    with ThreadPoolExecutor(1, "salakseg-model") as model:
        running: deque[tuple[list[Tile], Future[NDArray[np.float32]]]] = deque()
        for batch in _batches(job, section, orthomosaic, reader, report):
            running.append((batch, model.submit(_predict, job, engine, batch)))
            if len(running) > 1:
                yield from _paired(*running.popleft(), report)
        while running:
            yield from _paired(*running.popleft(), report)


def _batches(
    job: Job, section: Section, orthomosaic: Orthomosaic, reader: Executor, report: Report
) -> Iterator[list[Tile]]:
    batch: list[Tile] = []
    positions = job.plan.tile_positions(section)
    for tile in read_ahead(orthomosaic, job.plan, positions, reader, depth=2 * job.batch_size):
        if tile.empty:
            report(False)
            continue
        batch.append(tile)
        if len(batch) == job.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _paired(
    batch: list[Tile], result: Future[NDArray[np.float32]], report: Report
) -> Iterator[tuple[Tile, NDArray[np.float32]]]:
    for tile, prob_KHW in zip(batch, result.result(), strict=False):
        yield tile, prob_KHW
        report(True)


def _predict(job: Job, engine: Engine, batch: list[Tile]) -> NDArray[np.float32]:
    # A short batch is filled up: a new input shape costs some runtimes a second of searching for algorithms.
    surplus = [batch[-1]] * (job.batch_size - len(batch))
    prob_BKHW = engine.predict(np.stack([tile.image_CHW for tile in batch + surplus]))
    _check(job, engine, prob_BKHW)
    return prob_BKHW


def _check(job: Job, engine: Engine, prob_BKHW: NDArray[np.float32]) -> None:
    expected = (job.batch_size, job.layers.classes, engine.tile, engine.tile)
    if prob_BKHW.shape != expected:
        raise EngineError(
            f"{engine.name} gave probabilities of shape {prob_BKHW.shape} where {expected} is due; "
            "export the model again with its own class mapping and tile."
        )
    if not np.isfinite(prob_BKHW.sum()):  # one pass without an array of flags; a sum of shares cannot overflow
        raise EngineError(
            f"{engine.name} gave probabilities that are not finite on {job.source}; "
            "export it anew with --precision fp32, map with --device cpu, or take another checkpoint."
        )


class _StripeMaker:
    """Turns blended rows of the model's grid into stripes of the map."""

    def __init__(
        self,
        job: Job,
        section: Section,
        orthomosaic: Orthomosaic,
        folder: StripeFolder,
        reader: Executor,
        writer: Executor,
    ) -> None:
        self._job, self._section, self._orthomosaic = job, section, orthomosaic
        self._folder, self._reader, self._writer = folder, reader, writer
        self._panel: Panel = job.plan.panels[section.panel]
        self._resampler = _RowResampler(job.plan, self._panel, job.plan.stripe_rows(section.start, section.stop)[0])
        self._unwritten: deque[Future[None]] = deque()
        self._open: OpenStripe | None = None
        self._told: set[Block] = set()  # bad blocks that are in the record of a stripe

    def add(self, rows: BlendedRows) -> None:
        """Takes the rows that a row of tiles has completed."""
        stripe, plan = rows.tile_row, self._job.plan
        pieces = self._resampler.add(rows)
        if stripe < self._section.start:  # it only leads to the first stripe
            deque(pieces, maxlen=0)
            return
        start, stop = plan.stripe_rows(stripe, stripe + 1)
        record = StripeRecord(start, self._panel.start, stop - start, self._panel.stop - self._panel.start)
        opened = self._open = self._folder.open_stripe(self._section.panel, stripe, record)
        for row, prob_KHW in pieces:
            # The tiles know which pixels are valid on the orthomosaic's own grid; for another, the file is asked.
            valid_HW = rows.valid_HW if self._same_grid else self._read_valid(row, prob_KHW.shape[1])
            self._later(opened.write, row, self._job.layers.of(prob_KHW, valid_HW))
        record.bad_blocks = sorted(self._orthomosaic.bad_blocks - self._told)
        self._told |= self._orthomosaic.bad_blocks
        self._later(opened.commit)

    def close(self) -> None:
        """Waits until everything is on the disk."""
        try:
            while self._unwritten:
                self._unwritten.popleft().result()
        finally:
            if self._open is not None:
                self._writer.submit(self._open.close).result()

    @property
    def _same_grid(self) -> bool:
        return self._job.plan.to_map.identity and self._job.plan.to_model.identity

    def _later(self, action: Callable[..., None], *arguments: object) -> None:
        self._unwritten.append(self._writer.submit(action, *arguments))
        while len(self._unwritten) > _UNWRITTEN:
            self._unwritten.popleft().result()

    def _read_valid(self, row: int, height: int) -> NDArray[np.bool_]:
        """Which pixels of the map are valid: those of which the orthomosaic covers at least half."""
        both, panel = self._job.plan.source_to_map, self._panel
        top, bottom = both.rows.needed(row, row + height)
        left, right = both.cols.needed(panel.start, panel.stop)
        valid_HW = self._reader.submit(self._orthomosaic.read, top, left, bottom - top, right - left).result()[1]
        if both.identity:
            return valid_HW
        rows, cols = both.rows.matrix(row, row + height), both.cols.matrix(panel.start, panel.stop)
        inside = np.outer(both.rows.covered(row, row + height), both.cols.covered(panel.start, panel.stop))
        return resample(valid_HW.astype(np.float32), rows, cols) * inside >= 0.5


class _RowResampler:
    """From rows of the model's grid to rows of the map.

    Args:
        plan: Where everything lies.
        panel: The columns.
        row: The first row of the map that is wanted.
    """

    def __init__(self, plan: MapPlan, panel: Panel, row: int) -> None:
        self._rows = plan.to_map.rows
        self._row = row
        self._identity = plan.to_map.identity
        source = plan.source_to_map
        self._ground = max(1.0, source.rows.step * source.cols.step)  # what `_read_valid` reads for a pixel
        self._cols = plan.to_map.cols.matrix(panel.start, panel.stop)
        self._kept: tuple[int, NDArray[np.float32]] | None = None  # the model's rows that are needed again

    def add(self, rows: BlendedRows) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Takes the next rows of the model, and gives the rows of the map that are ready with them.

        Yields:
            The first row on the map and probabilities [K, rows, columns of the panel].
        """
        if self._identity:
            yield rows.row, rows.prob_KHW
            return
        start, prob_KHW = rows.row, rows.prob_KHW
        if self._kept is not None:
            start, prob_KHW = self._kept[0], np.concatenate([self._kept[1], prob_KHW], axis=1)
        stop = start + prob_KHW.shape[1]
        ready = self._rows.ready(stop)
        height = max(1, int(_PIECE / self._cols.shape[0] / self._ground))
        while self._row < ready:
            until = min(self._row + height, ready)
            first, last = self._rows.needed(self._row, until)
            matrix = self._rows.matrix(self._row, until)
            yield (
                self._row,
                np.stack([resample(p_HW[first - start : last - start], matrix, self._cols) for p_HW in prob_KHW]),
            )
            self._row = until
        if self._row < self._rows.size_out:
            first = max(start, min(self._rows.needed(self._row, self._row + 1)[0], stop))
            self._kept = first, prob_KHW[:, first - start :].copy()
