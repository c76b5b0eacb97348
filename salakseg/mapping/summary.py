"""What is told of a mapping run, while it goes on and at its end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.mapping.areas import ClassArea
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.plan import MapPlan, Section
from salakseg.mapping.stripes import Block


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a map is.

    Attributes:
        done: Pixels of the map that are done or were there already.
        total: Pixels of the map.
        tiles_run: Tiles that the model has seen in this run.
        tiles_skipped: Tiles without a valid pixel in this run.
    """

    done: int
    total: int
    tiles_run: int
    tiles_skipped: int


@dataclass(frozen=True, slots=True, eq=False)
class MapSummary:
    """What a mapping run did.

    Attributes:
        out: The map.
        options: How the orthomosaic was read; a range of values that was looked for stands here.
        width: Columns of the map.
        height: Rows of the map.
        areas: What each class covers.
        tiles_run: Tiles that the model saw in this run; those on the border of two panels count twice.
        tiles_skipped: Tiles without a valid pixel in this run.
        resumed: Stripes that an earlier run had finished.
        seconds: Wall-clock time of this run.
        peak_memory_mb: The most memory that the process has held so far, in 10^6 bytes; None on Windows.
        bad_blocks: Blocks of the orthomosaic that could not be read: row, column, height, width in pixels.
        warnings: One sentence each, for the user.
    """

    out: Path
    options: SourceOptions
    width: int
    height: int
    areas: tuple[ClassArea, ...]
    tiles_run: int
    tiles_skipped: int
    resumed: int
    seconds: float
    peak_memory_mb: float | None
    bad_blocks: tuple[Block, ...]
    warnings: tuple[str, ...]

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Pixels of each class [K]."""
        return np.array([area.pixels for area in self.areas], np.int64)

    @property
    def valid_share(self) -> float:
        """Share of the map's pixels that have a class, 0 to 1."""
        return float(self.class_counts.sum() / (self.width * self.height))

    @property
    def megapixels_per_second(self) -> float:
        """Pixels of the map, valid or not, by the run's time, in millions a second."""
        return self.width * self.height / 1e6 / self.seconds


class Tally:
    """Counts what is done.

    Args:
        plan: Where everything lies.
        progress: Told of every step.
    """

    def __init__(self, plan: MapPlan, progress: Callable[[Progress], None] | None) -> None:
        self._plan, self._progress = plan, progress
        self._done = 0.0
        self._of_section: dict[Section, float] = {}
        self.tiles_run = 0
        self.tiles_skipped = 0
        self.resumed = 0

    def found(self, section: Section) -> None:
        """Counts stripes that an earlier run has finished."""
        self.resumed += section.stop - section.start
        self._done += self._pixels(section)

    def advance(self, section: Section, share: float, tiles_run: int, tiles_skipped: int) -> None:
        """Counts what was done of a section.

        Args:
            section: The section.
            share: Share of it that is done, 0 to 1.
            tiles_run: Tiles that the model has seen since the last call.
            tiles_skipped: Tiles without a valid pixel since the last call.
        """
        self._done += (share - self._of_section.get(section, 0.0)) * self._pixels(section)
        self._of_section[section] = share
        self.tiles_run += tiles_run
        self.tiles_skipped += tiles_skipped
        if self._progress is not None:
            total = self._plan.height * self._plan.width
            self._progress(Progress(min(round(self._done), total), total, self.tiles_run, self.tiles_skipped))

    def _pixels(self, section: Section) -> int:
        start, stop = self._plan.stripe_rows(section.start, section.stop)
        panel = self._plan.panels[section.panel]
        return (stop - start) * (panel.stop - panel.start)
