"""From an orthomosaic to a land-cover map: read, infer, blend, write, all streaming.

The raster is worked off in panels of columns, each panel in rows of tiles, so memory grows neither with the raster's
height nor with its width. Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.errors import EngineError, RasterError
from salakseg.mapping.blend import Stripe, StripeBlender
from salakseg.mapping.landcover import count_classes, create_map, map_tags, sidecar, write_cog
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.tiles import Tile, read_ahead
from salakseg.mapping.tiling import TileGrid
from salakseg.network.engine import Engine

PANEL_WIDTH = 8192
"""Columns that are blended at once; a multiple of the map's blocks. Seven classes and tiles of 512 take 117 MB."""

DEFAULT_OVERLAP_SHARE = 4
"""Neighbouring tiles share one part in so many of their side."""

GSD_TOLERANCE = 0.1
"""Ground sampling distances of model and orthomosaic that differ by more than this share draw a warning."""

GDAL_CACHE_BYTES = 128 * 2**20
"""GDAL's block cache. Its own default is a share of the machine's memory; a tile row of a wide one is enough."""


@dataclass(frozen=True, slots=True, eq=False)
class MapSummary:
    """What a mapping run did.

    Attributes:
        out: The map.
        width: Columns of the map.
        height: Rows of the map.
        class_names: Class names, K of them.
        class_counts: Pixels of each class [K], int64.
        tiles_run: Tiles that the model saw; those on the border of two panels count twice.
        tiles_skipped: Tiles without a valid pixel.
        seconds: Wall-clock time of the whole run.
        peak_memory_mb: The most memory that the process has held so far, in 10^6 bytes; None on Windows.
        runs_on: Runtime and device that the engine used.
        warnings: One sentence each, for the user.
    """

    out: Path
    width: int
    height: int
    class_names: tuple[str, ...]
    class_counts: NDArray[np.int64]
    tiles_run: int
    tiles_skipped: int
    seconds: float
    peak_memory_mb: float | None
    runs_on: str
    warnings: tuple[str, ...]

    @property
    def valid_share(self) -> float:
        """Share of the map's pixels that have a class, 0 to 1."""
        return float(self.class_counts.sum() / (self.width * self.height))

    @property
    def class_shares(self) -> NDArray[np.float64]:
        """Each class's share of the valid pixels [K], summing to one; zeros if no pixel is valid."""
        return self.class_counts / max(1, int(self.class_counts.sum()))

    @property
    def megapixels_per_second(self) -> float:
        """Pixels of the raster, valid or not, by the run's time, in millions a second."""
        return self.width * self.height / 1e6 / self.seconds


def predict_map(
    source: Path,
    out: Path,
    engine: Engine,
    *,
    overlap: int | None = None,
    batch_size: int = 4,
    overwrite: bool = False,
    allow_no_crs: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MapSummary:
    """Maps an orthomosaic.

    The map has the orthomosaic's CRS, transform and size, 255 where the orthomosaic is not valid, and appears under its
    name only when it is whole: whatever goes wrong leaves the folder as it was.

    Args:
        source: The orthomosaic: RGB, 8 bit, georeferenced.
        out: The map to write, a cloud-optimised GeoTIFF; class names go to `out` + ``.aux.xml``.
        engine: The model.
        overlap: Pixels that neighbouring tiles share; None for a quarter of the engine's tile.
        batch_size: Tiles inferred at once, at least 1.
        overwrite: Replace a map that exists.
        allow_no_crs: Accept an orthomosaic that does not say where it lies.
        progress: Called with the tiles done and the tiles in all, in this thread.

    Returns:
        Counts, speed and warnings.

    Raises:
        RasterError: The orthomosaic cannot be used or read, or the map cannot be written.
        EngineError: The model gives no proper probabilities.
        ValueError: `batch_size` below 1.
    """
    started = time.perf_counter()
    overlap = engine.tile // DEFAULT_OVERLAP_SHARE if overlap is None else overlap
    _check_request(source, out, engine, overlap, overwrite)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), Orthomosaic(source, allow_no_crs=allow_no_crs) as orthomosaic:
        grid = TileGrid.over(orthomosaic.height, orthomosaic.width, engine.tile, overlap)
        run = _Run(orthomosaic, engine, grid, batch_size, progress)
        with _scratch_folder(out) as folder:
            stripes, whole = Path(folder) / "stripes", Path(folder) / out.name
            counts = _write_stripes(run, stripes, out)
            write_cog(stripes, whole, engine.class_map)
            _check_whole(whole, counts, out)
            _put_in_place(whole, out)
        return MapSummary(
            out=out,
            width=orthomosaic.width,
            height=orthomosaic.height,
            class_names=engine.class_map.names,
            class_counts=counts,
            tiles_run=run.tiles_run,
            tiles_skipped=run.tiles_skipped,
            seconds=time.perf_counter() - started,
            peak_memory_mb=_peak_memory_mb(),
            runs_on=engine.runs_on,
            warnings=_warnings(orthomosaic, engine, counts),
        )


class _Run:
    """The way of the pixels through one mapping run, with its counters."""

    def __init__(
        self,
        orthomosaic: Orthomosaic,
        engine: Engine,
        grid: TileGrid,
        batch_size: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.orthomosaic = orthomosaic
        self.engine = engine
        self.grid = grid
        self.batch_size = min(batch_size, len(grid))
        self.tiles_run = 0
        self.tiles_skipped = 0
        self._progress = progress
        self._panels = list(grid.panels(PANEL_WIDTH))
        self._total = grid.rows.count * sum(len(grid.cols.touching(*panel)) for panel in self._panels)

    def stripes(self, reader: Executor) -> Iterator[Stripe]:
        """The finished stripes of the map: panel after panel, each from top to bottom."""
        for start, stop in self._panels:
            blender = StripeBlender(self.grid, len(self.engine.class_map), start, stop)
            for tile, prob_KHW in self._inferred(start, stop, reader):
                yield from blender.finished_before(tile.row)
                blender.add(tile.row, tile.col, prob_KHW, tile.valid_HW)
            yield from blender.finish()

    def _inferred(self, start: int, stop: int, reader: Executor) -> Iterator[tuple[Tile, NDArray[np.float32]]]:
        """The panel's tiles that hold valid pixels, row by row, with their probabilities."""
        cols = self.grid.cols.touching(start, stop)
        positions = ((row, col) for row in range(self.grid.rows.count) for col in cols)
        batch: list[Tile] = []
        for tile in read_ahead(self.orthomosaic, self.grid, positions, reader, depth=2 * self.batch_size):
            if tile.empty:
                self.tiles_skipped += 1
                self._report()
                continue
            batch.append(tile)
            if len(batch) == self.batch_size:
                yield from self._infer(batch)
                batch = []
        if batch:
            yield from self._infer(batch)

    def _infer(self, batch: list[Tile]) -> Iterator[tuple[Tile, NDArray[np.float32]]]:
        # A short batch is filled up: a new input shape costs some runtimes a second of searching for algorithms.
        surplus = [batch[-1]] * (self.batch_size - len(batch))
        prob_BKHW = self.engine.predict(np.stack([tile.image_CHW for tile in batch + surplus]))
        self._check(prob_BKHW)
        for tile, prob_KHW in zip(batch, prob_BKHW, strict=False):
            yield tile, prob_KHW
            self.tiles_run += 1
            self._report()

    def _check(self, prob_BKHW: NDArray[np.float32]) -> None:
        expected = (self.batch_size, len(self.engine.class_map), self.engine.tile, self.engine.tile)
        if prob_BKHW.shape != expected:
            raise EngineError(
                f"{self.engine.name} gave probabilities of shape {prob_BKHW.shape} where {expected} is due; "
                "export the model again with its own class mapping and tile."
            )
        if not np.isfinite(prob_BKHW).all():
            raise EngineError(
                f"{self.engine.name} gave probabilities that are not finite on {self.orthomosaic.path}; "
                "try float32 instead of float16, or another checkpoint."
            )

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.tiles_run + self.tiles_skipped, self._total)


def _check_request(source: Path, out: Path, engine: Engine, overlap: int, overwrite: bool) -> None:
    if not 0 <= overlap < engine.tile:
        raise RasterError(
            f"an overlap of {overlap} pixels does not work with the {engine.tile}-pixel tiles of {engine.name}; "
            f"choose 0 to {engine.tile - 1} to map {source}."
        )
    if out.is_dir():
        raise RasterError(f"{out} is a folder; name the map's file in it.")
    if not out.parent.is_dir():
        raise RasterError(f"{out} cannot be written: the folder {out.parent} does not exist; create it first.")
    if not out.exists():
        return
    if source.exists() and os.path.samefile(source, out):
        raise RasterError(f"{out} is the orthomosaic itself; give the map another name.")
    if not overwrite:
        raise RasterError(f"{out} exists; name another file or replace it with --overwrite.")


def _scratch_folder(out: Path) -> tempfile.TemporaryDirectory[str]:
    """A hidden folder beside the map (renaming works within one disk only), removed whatever happens."""
    try:
        return tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise RasterError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to."
        ) from error


def _write_stripes(run: _Run, path: Path, out: Path) -> NDArray[np.int64]:
    """Writes all stripes into a scratch file and counts the pixels of each class [K]."""
    source, classes = run.orthomosaic, run.engine.class_map
    counts = np.zeros(256, np.int64)
    try:
        # The reader ends before the caller closes the orthomosaic: no thread reads from a closed file.
        with (
            create_map(
                path,
                crs=source.crs,
                transform=source.transform,
                height=source.height,
                width=source.width,
                class_map=classes,
                tags=map_tags(classes, model=run.engine.name, tile=run.engine.tile, overlap=run.grid.rows.overlap),
            ) as dataset,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="salakseg-read") as reader,
        ):
            for stripe in run.stripes(reader):
                height, width = stripe.label_HW.shape
                dataset.write(stripe.label_HW, 1, window=Window(stripe.col, stripe.row, width, height))
                counts += np.bincount(stripe.label_HW.ravel(), minlength=256)
    except RasterioError as error:  # reading errors are RasterErrors by now, so this one is about writing
        raise RasterError(f"{out} cannot be written ({error}); is the disk full?") from error
    return counts[: len(classes)]


def _check_whole(path: Path, counts: NDArray[np.int64], out: Path) -> None:
    """Reads the map back. On a full disk GDAL closes a GeoTIFF without a word, and what is missing reads as nodata."""
    if not np.array_equal(count_classes(path, len(counts)), counts):
        raise RasterError(f"{out} could not be written completely; is the disk full?")


def _put_in_place(whole: Path, out: Path) -> None:
    try:
        whole.replace(out)
        sidecar(whole).replace(sidecar(out))
    except OSError as error:
        raise RasterError(
            f"{out} cannot be replaced ({error.strerror}); close it in other programs and try again."
        ) from error


def _warnings(orthomosaic: Orthomosaic, engine: Engine, counts: NDArray[np.int64]) -> tuple[str, ...]:
    found = []
    if not counts.any():
        found.append(f"{orthomosaic.path} has no valid pixel: the map is empty.")
    if engine.gsd_m is not None and orthomosaic.gsd_m is not None:
        ratio = orthomosaic.gsd_m / engine.gsd_m
        if abs(ratio - 1.0) > GSD_TOLERANCE:
            found.append(
                f"{orthomosaic.path} has {orthomosaic.gsd_m:.3g} m a pixel, but {engine.name} was trained at "
                f"{engine.gsd_m:.3g} m: things appear {max(ratio, 1 / ratio):.1f} times too "
                f"{'small' if ratio > 1 else 'large'}; resample the orthomosaic for a better map."
            )
    return tuple(found)


def _peak_memory_mb() -> float | None:
    if sys.platform == "win32":
        return None
    import resource  # POSIX only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux units of 1024
