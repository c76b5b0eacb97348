"""What a user asks of `salakseg prepare`, and what follows of it for each source."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salakseg.classes import SALAK, ClassMap
from salakseg.mapping.opening import SourceOptions
from salakseg.prepare.finding import SourceFile
from salakseg.prepare.grid import Grid, Labels
from salakseg.prepare.manifest import Plain, plain
from salakseg.prepare.sources import Source, file_state, open_source
from salakseg.prepare.windows import Windows

CLASS_MAPPING = "class_mapping.csv"

PATCH = 256
MIN_VALID = 0.5
"""Half a patch: less teaches little, and in unlabelled patches self-training would label the black."""


@dataclass(frozen=True, slots=True)
class LabelSource:
    """Labels that the sources may have.

    Attributes:
        options: How they are read, as plain values by which a later run knows whether it was told the same.
        open: The labels of one source on its grid; None if it has none.
        files: The files that hold the labels of a source, by what they are for; where one has changed, its patches are
            out of date.
        check: Looks at all sources together before the first is opened.
    """

    options: Mapping[str, Any]
    open: Callable[[Grid, Path], Labels | None]
    files: Callable[[Path], Mapping[str, Sequence[Path]]]
    check: Callable[[Sequence[Path]], None] = lambda sources: None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        sources: Orthomosaics, photos, folders of them.
        root: The data root, made if it is not there.
        labels: None for unlabelled patches.
        class_mapping: CSV file; None looks into the data root, then takes the built-in salak classes.
        folder: One folder for all patches; None for that of each source.
        patch: Side of a patch, pixels, above 0.
        stride: Pixels from a patch to the next; None for patches side by side.
        gsd_m: Metres a pixel; None for the sources' own pixels.
        min_valid: Share of a patch that must be valid, 0 to 1.
        options: How orthomosaics are read.
        resume: Go on with what a run that was stopped has left.
        overwrite: Cut the sources anew, whatever there is of them.
    """

    sources: Sequence[Path]
    root: Path
    labels: LabelSource | None = None
    class_mapping: Path | None = None
    folder: str | None = None
    patch: int = PATCH
    stride: int | None = None
    gsd_m: float | None = None
    min_valid: float = MIN_VALID
    options: SourceOptions = field(default_factory=SourceOptions)
    resume: bool = False
    overwrite: bool = False

    def class_map(self) -> ClassMap:
        """The classes.

        Raises:
            ClassMapError: Their file cannot be read.
        """
        if self.class_mapping is not None:
            return ClassMap.from_csv(self.class_mapping)
        there = self.root / CLASS_MAPPING
        return ClassMap.from_csv(there) if there.is_file() else SALAK

    def settings(self, class_map: ClassMap) -> Plain:
        """What all patches of a data root have in common; classes are None until there are labels."""
        return {
            "patch": self.patch,
            "stride": self.stride or self.patch,
            "gsd_m": self.gsd_m,
            "min_valid": self.min_valid,
            "classes": None if self.labels is None else class_map.to_records(),
        }

    @contextmanager
    def opened(self, file: SourceFile) -> Iterator[Source]:
        """Opens a source.

        Raises:
            SalaksegError: It cannot be read.
        """
        source = open_source(file.path, self.options, self.gsd_m)
        try:
            yield source
        finally:
            source.close()

    def windows(self, grid: Grid) -> Windows:
        """Where patches lie on a grid."""
        return Windows(grid.height, grid.width, self.patch, self.stride or self.patch)

    def made_from(self, source: Source) -> Plain:
        """All that decides what the patches of a source are, but for the classes.

        No path of a file belongs to it: a whole project can be moved.
        """
        grid, options = source.grid, self.options
        found = {
            "patch": self.patch,
            "stride": self.stride or self.patch,
            "min_valid": self.min_valid,
            "files": source.state(),
            "grid": {
                "height": grid.height,
                "width": grid.width,
                "transform": list(grid.transform)[:6],
                "crs": None if grid.crs is None else grid.crs.to_wkt(),
            },
            "bands": options.bands,
            "scale": None if options.stretch is None else str(options.stretch),
            "allow_no_crs": options.allow_no_crs,
            "skip_bad_blocks": options.skip_bad_blocks,
            "labels": None if self.labels is None else _label_state(self.labels, source.path),
        }
        made_from: Plain = plain(found)
        return made_from


def _label_state(labels: LabelSource, source: Path) -> Plain:
    files = {role: file_state(*paths) for role, paths in labels.files(source).items()}  # which may have the same names
    return {"options": dict(labels.options), "files": files}
