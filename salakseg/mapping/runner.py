"""Who renders the sections of a map: this process, or, in `cluster.py`, many."""

from collections.abc import Callable
from typing import Protocol

from salakseg.mapping.plan import Section
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.render import Job, render_section
from salakseg.mapping.stripes import StripeFolder
from salakseg.memory import give_back_memory
from salakseg.network.engine import Engine

Advance = Callable[[Section, float, int, int], None]
"""Told of a section: the share of it that is done, 0 to 1, and the tiles that were run and skipped since last told."""


class Runner(Protocol):
    """Who renders the sections: this process, or a cluster."""

    def run(self, job: Job, sections: list[Section], folder: StripeFolder, advance: Advance) -> None:
        """Makes all stripes of the sections in the folder, in any order.

        Raises:
            SalaksegError: As `render_section`.
        """

    def cut(self, sections: list[Section]) -> list[Section]:
        """Cuts runs of stripes that are missing into pieces of work as they suit."""


class Here:
    """Renders in this process.

    Args:
        engine: The model.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cut(self, sections: list[Section]) -> list[Section]:
        """Leaves them long: each beginning costs a row of tiles."""
        return sections

    def run(self, job: Job, sections: list[Section], folder: StripeFolder, advance: Advance) -> None:
        """Makes all stripes of the sections, one after the other."""
        with Orthomosaic(job.source, job.options) as orthomosaic:
            for section in sections:
                render_section(job, section, self._engine, orthomosaic, folder.path, _TileReport(job, section, advance))
                give_back_memory()


class _TileReport:
    """Passes on every tile of a section as progress."""

    def __init__(self, job: Job, section: Section, advance: Advance) -> None:
        self._section, self._advance = section, advance
        self._done, self._total = 0, job.plan.tile_count(section)

    def __call__(self, seen: bool) -> None:
        self._done += 1
        self._advance(self._section, self._done / self._total, int(seen), int(not seen))
