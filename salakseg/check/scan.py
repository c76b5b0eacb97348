"""One pass over a patch folder: every picture and mask is read once, and what is kept of it is a row of numbers."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from salakseg.check.record import MASK, PICTURE, Counts, Record, look_at_mask, look_at_picture
from salakseg.classes import ClassMap
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.survey import MOST_COLOURS, Survey

Progress = Callable[[int, int], None]

_THREADS = 4  # decoding runs outside Python's lock, and reading waits for the disk
_BATCH = 16  # patches of one task
_AHEAD = 64  # tasks that are under way or done and not yet counted
_MOST_REASONS = 1000


@dataclass(slots=True)
class Scan:
    """What a pass over the patches found.

    Attributes:
        index: All patches.
        patches: Those that were looked at, N of them, in the order of the index.
        class_map: Classes that the masks were read by.
        pictures: One record of `PICTURE` for each, [N].
        masks: One record of `MASK` for each labelled one of them, [M].
        labelled: Their places in `patches`, int [M], rising.
        survey: Class pixels of every photo, and colours of no class; of masks that can be used.
        reasons: Why a file cannot be used, by its place in `patches` and "picture" or "mask"; the first thousand.
    """

    index: PatchIndex
    patches: tuple[Patch, ...]
    class_map: ClassMap
    pictures: Record
    masks: Record
    labelled: NDArray[np.int64]
    survey: Survey = field(default_factory=lambda: Survey({}))
    reasons: dict[tuple[int, str], str] = field(default_factory=dict)

    @property
    def is_sample(self) -> bool:
        """Whether patches were left out."""
        return len(self.patches) < len(self.index.patches)

    def image_name(self, place: int) -> str:
        """The picture of a patch, relative to the root."""
        return self._relative(self.index.image_path(self.patches[place]))

    def mask_name(self, row: int) -> str:
        """The mask of a labelled patch, relative to the root.

        Args:
            row: Of `masks`.
        """
        return self._relative(self.index.mask_path(self.patches[int(self.labelled[row])]))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.index.root).as_posix()


class _Job(NamedTuple):
    """A patch to look at, and the rows that it fills."""

    place: int
    row: int | None
    patch: Patch


class _Done(NamedTuple):
    """What does not fit a row of numbers."""

    job: _Job
    counts: Counts | None
    image_reason: str
    mask_reason: str


def scan_patches(
    index: PatchIndex, class_map: ClassMap, sample: int | None = None, progress: Progress | None = None
) -> Scan:
    """Reads pictures and masks.

    Args:
        index: The patches.
        class_map: Classes.
        sample: Look at so many patches only, drawn evenly over folders and photos; None for all.
        progress: Called with patches done and to do.
    """
    patches = draw_evenly(index.patches, sample)
    labelled = np.array([place for place, patch in enumerate(patches) if patch.mask is not None], np.int64)
    scan = Scan(index, patches, class_map, np.zeros(len(patches), PICTURE), np.zeros(len(labelled), MASK), labelled)
    rows = {int(place): row for row, place in enumerate(labelled)}
    jobs = (_Job(place, rows.get(place), patch) for place, patch in enumerate(patches))
    count = 0
    for done in _in_order(scan, jobs):
        for one in done:
            _take(scan, one)
        count += len(done)
        if progress is not None:
            progress(count, len(patches))
    return scan


def draw_evenly(patches: Sequence[Patch], sample: int | None) -> tuple[Patch, ...]:
    """So many patches at even distances, the first and the last among them; all if there are no more."""
    if sample is None or sample >= len(patches):
        return tuple(patches)
    return tuple(patches[place] for place in np.linspace(0, len(patches) - 1, sample).round().astype(int))


def _in_order(scan: Scan, jobs: Iterator[_Job]) -> Iterator[list[_Done]]:
    """Looks at the patches in threads; few are under way at a time, so that memory does not grow with the folder."""
    pool = ThreadPoolExecutor(_THREADS)
    waiting: deque[Future[list[_Done]]] = deque()
    try:
        while batch := list(islice(jobs, _BATCH)):
            waiting.append(pool.submit(lambda batch=batch: [_look_at(scan, job) for job in batch]))  # type: ignore[misc]
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look_at(scan: Scan, job: _Job) -> _Done:
    image_reason = look_at_picture(scan.index.image_path(job.patch), scan.pictures[job.place])
    counts, mask_reason = None, ""
    if job.row is not None:
        counts, mask_reason = look_at_mask(scan.index.mask_path(job.patch), scan.class_map, scan.masks[job.row])
    return _Done(job, counts, image_reason, mask_reason)


def _take(scan: Scan, done: _Done) -> None:
    for what, reason in (("picture", done.image_reason), ("mask", done.mask_reason)):
        if reason and len(scan.reasons) < _MOST_REASONS:
            scan.reasons[done.job.place, what] = reason
    if done.counts is None:
        return
    survey, photo = scan.survey, done.job.patch.photo_key
    if photo in survey.pixels:
        survey.pixels[photo] += done.counts.pixels_K
    else:
        survey.pixels[photo] = done.counts.pixels_K.copy()
    if done.counts.unknown:
        survey.unknown.update(done.counts.unknown)
        if len(survey.unknown) > 2 * MOST_COLOURS:  # photographs in place of masks: the rare colours say nothing
            survey.unknown = Counter(dict(survey.unknown.most_common(MOST_COLOURS)))
        assert done.job.row is not None
        survey.unknown_files.append(scan.mask_name(done.job.row))
