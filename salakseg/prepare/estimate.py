"""What a run would give, told from a few patches that are cut in memory: `salakseg prepare --dry-run`."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from salakseg.mapping.raster import gdal_settings
from salakseg.prepare.cut import Cutter
from salakseg.prepare.plan import Plan, Task, make_plan
from salakseg.prepare.request import Request
from salakseg.prepare.windows import Strip

SAMPLE = 200
"""Patches that are looked at; fewer positions are all looked at, and the figures are exact."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What would be written.

    Attributes:
        plan: What there is to do.
        positions: Places of patches in the sources to cut.
        sampled: How many of them were looked at.
        patches: Patches that would be kept.
        labelled: Patches with a mask among them.
        bytes: Size of all files.
    """

    plan: Plan
    positions: int
    sampled: int
    patches: int
    labelled: int
    bytes: int

    @property
    def exact(self) -> bool:
        """Whether every patch was looked at."""
        return self.sampled == self.positions


def estimate(request: Request, progress: Callable[[int, int], None] | None = None) -> Estimate:
    """Looks at patches drawn at random, always the same ones; writes nothing.

    Raises:
        SalaksegError: As `prepare`.
    """
    with gdal_settings():
        plan = make_plan(request)
        ends = np.cumsum([len(task.windows) for task in plan.tasks], dtype=np.int64)
        positions = int(ends[-1]) if plan.tasks else 0
        drawn = np.sort(np.random.default_rng(0).choice(positions, min(positions, SAMPLE), replace=False))
        kept = labelled = size = 0
        done = 0
        for number, group in groupby(drawn.tolist(), key=lambda place: int(np.searchsorted(ends, place, "right"))):
            task = plan.tasks[number]
            places = [place - int(ends[number]) + len(task.windows) for place in group]
            for found in _sample(request, plan, task, places):
                done += 1
                if progress is not None:
                    progress(done, len(drawn))
                if found is not None:
                    image_bytes, mask_bytes = found
                    kept, labelled, size = kept + 1, labelled + (mask_bytes > 0), size + image_bytes + mask_bytes
    factor = positions / max(1, len(drawn))
    return Estimate(plan, positions, len(drawn), *(round(factor * count) for count in (kept, labelled, size)))


def _sample(request: Request, plan: Plan, task: Task, places: list[int]) -> list[tuple[int, int] | None]:
    """Bytes of the picture and of the mask, 0 without one, of some patches of a source; None for one left out."""
    found: list[tuple[int, int] | None] = []
    with request.opened(task.file) as source:
        labels = None if request.labels is None else request.labels.open(source.grid, task.file.path)
        cutter = Cutter(request.root, task.file, source, labels, plan.class_map, task.windows, request.min_valid)
        try:
            for place in places:
                row, col = divmod(place, task.windows.cols)
                patch = cutter.patch(cutter.read(Strip(row, col, col + 1)), col)
                image, mask = patch.encode(plan.class_map) if patch.kept else (b"", None)
                found.append((len(image), len(mask or b"")) if patch.kept else None)
        finally:
            if labels is not None:
                labels.close()
    return found
