"""Labels as the flags of ``salakseg prepare`` want them read."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from salakseg.classes import ClassMap
    from salakseg.prepare.grid import Grid, Labels
    from salakseg.prepare.request import LabelSource


@dataclass(slots=True)
class LabelFlags:
    """The flags, see the command's help.

    Attributes:
        facts: What is found in the labels, filled while they are read.
    """

    path: Path
    class_column: str | None
    layer: str | None
    priority_column: str | None
    priority: str | None
    fill: Literal["ignore", "background"]
    all_touched: bool
    reviewed: Path | None
    facts: list[Any] = field(default_factory=list)

    def source(self, class_map: "ClassMap") -> "LabelSource":
        """The labels for `salakseg.prepare.run`."""
        from salakseg.prepare.labelling.labels import LabelOptions, open_labels, refuse_shared
        from salakseg.prepare.request import LabelSource

        options = LabelOptions(
            class_column=self.class_column,
            layer=self.layer,
            priority_column=self.priority_column,
            priority=tuple(name.strip() for name in self.priority.split(",")) if self.priority else (),
            fill=self.fill,
            all_touched=self.all_touched,
            reviewed=self.reviewed,
        )

        def open_one(grid: "Grid", source: Path) -> "Labels | None":
            labels: Labels | None = open_labels(self.path, grid, source, class_map, options)
            if labels is not None:
                self.facts.append(getattr(labels, "facts", None))
            return labels

        plain = asdict(options) | {"reviewed": self.reviewed is not None}  # a path says nothing: a project can be moved
        return LabelSource(plain, open_one, self.files, lambda sources: refuse_shared(self.path, sources, class_map))

    def files(self, source: Path) -> dict[str, list[Path]]:
        """The files that hold the labels of a source, and those that say where all is labelled."""
        from salakseg.prepare.labelling.label_files import LABEL_SUFFIXES, POLYGON_SUFFIXES, find_label_file

        found: dict[str, list[Path]] = {}
        for role, path, suffixes in (
            ("labels", self.path, LABEL_SUFFIXES),
            ("reviewed", self.reviewed, POLYGON_SUFFIXES),
        ):
            if path is not None:
                file = find_label_file(path, source, suffixes) if path.is_dir() else path
                found[role] = [] if file is None else _with_sidecars(file)
        return found

    def lines(self) -> list[str]:
        """What was found in the labels, for the user."""
        from salakseg.prepare.labelling.labels import summarise

        lines: list[str] = summarise(self.facts)
        return lines


def _with_sidecars(file: Path) -> list[Path]:
    """A Shapefile is several files; a GeoPackage has one beside it with what an open QGIS has written last."""
    if file.suffix.lower() != ".shp":
        return [path for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]
    return [part for end in (".shp", ".dbf", ".prj", ".cpg") if (part := file.with_suffix(end)).exists()]
