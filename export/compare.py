"""All precisions of a checkpoint side by side: size, speed on this machine, agreement and accuracy."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnx

from salakseg.errors import EngineError, ExportError
from salakseg.export.parity import FileRunner, Parity, measure
from salakseg.export.settings import ExportSettings, Precision
from salakseg.export.source import open_source

ROUNDS = 9
"""Tiles timed of each file, in turn, after one that is not."""

GAIN = 1.1
"""How many times as fast as fp32 a file must be to be worth its loss."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One precision.

    Attributes:
        precision: Which.
        size_mb: Megabytes of its file.
        nodes: Of its graph.
        milliseconds: Median time for one tile on this machine's CPU.
        parity: Agreement with torch.
    """

    precision: Precision
    size_mb: float
    nodes: int
    milliseconds: float
    parity: Parity

    @property
    def objection(self) -> str | None:
        """Why it would not be written; None if it would."""
        return self.parity.objection(self.precision)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All precisions that could be made.

    Attributes:
        rows: One for each.
        left_out: Why a precision could not be made, by its name.
        real: Whether the tiles were real imagery rather than noise.
    """

    rows: tuple[Compared, ...]
    left_out: dict[str, str]
    real: bool

    @property
    def recommended(self) -> Precision:
        """The fastest one here that holds its gate, if it is clearly faster than fp32; else fp32."""
        plain = next(row for row in self.rows if row.precision == "fp32")
        fast = [row for row in self.rows if row.objection is None and plain.milliseconds >= GAIN * row.milliseconds]
        return min(fast, key=lambda row: row.milliseconds).precision if fast else "fp32"

    @property
    def advice(self) -> str:
        """The recommendation for people."""
        plain = next(row for row in self.rows if row.precision == "fp32")
        best = next(row for row in self.rows if row.precision == self.recommended)
        if best is plain:
            return "recommended here: fp32; no other precision is clearly faster on this machine and holds its gate"
        gain = plain.milliseconds / best.milliseconds
        return f"recommended here: {best.precision}, {gain:.2f} times as fast as fp32, and it holds its gate"


def compare_precisions(
    checkpoint_path: Path,
    settings: ExportSettings,
    *,
    data_root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Makes a file of every precision in a temporary folder, measures them and removes them.

    Args:
        checkpoint_path: The checkpoint.
        settings: What kind of file; its precision plays no part.
        data_root: Where the run's patches are; None looks where they were at training time.
        progress: Called with tiles compared and to compare.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: There are no patches at `data_root`, or one cannot be read.
        EngineError: The network has no such head.
        ExportError: The size does not fit, or fp32 cannot be made.
    """
    source = open_source(checkpoint_path, settings, data_root)
    tiles, real = source.tiles(quick=False)
    graph = source.graph()
    runners: dict[Precision, FileRunner] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="salakseg-", ignore_cleanup_errors=True) as folder:
        for precision in get_args(Precision):
            try:
                runners[precision] = source.write(graph, precision, Path(folder) / f"{precision}.onnx")
            except (ExportError, EngineError) as error:
                if precision == "fp32":
                    raise
                left_out[precision] = str(error)
        names = source.checkpoint.class_map.names
        found = measure(
            source.network, settings.variant, list(runners.values()), tiles, names, source.channels, progress
        )
        times = _times(list(runners.values()), np.stack([tiles[0].image_CHW]))
        rows = []
        for precision, parity, seconds in zip(runners, found, times, strict=True):
            path = Path(folder) / f"{precision}.onnx"
            nodes = len(onnx.load(path).graph.node)
            rows.append(Compared(precision, path.stat().st_size / 1e6, nodes, 1000 * seconds, parity))
        runners.clear()  # Windows removes no file that is open
    return Comparison(tuple(rows), left_out, real)


def _times(runners: Sequence[FileRunner], image_BCHW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[float]:
    """Median seconds of each file for one tile; the files take turns, so that a busy moment hits all of them."""
    prepared = [runner.prepare(image_BCHW) for runner in runners]
    seconds: list[list[float]] = [[] for _ in runners]
    for turn in range(ROUNDS + 1):
        for runner, image, taken in zip(runners, prepared, seconds, strict=True):
            start = time.perf_counter()
            runner.run(image)
            if turn:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]
