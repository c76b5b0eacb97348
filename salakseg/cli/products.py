"""The files of a mapping: their names before the work begins, and what is made of a map when it is done."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from salakseg.classes import ClassMap
from salakseg.cli.console import progress_bar, say, stdout
from salakseg.errors import RasterError
from salakseg.mapping.areas import areas_of, write_areas
from salakseg.mapping.files import check_output, check_source, refuse_twice
from salakseg.mapping.finish import Outputs
from salakseg.mapping.opening import SourceOptions, without_place
from salakseg.mapping.summary import MapSummary
from salakseg.mapping.workplace import is_unfinished

RASTERS = (".tif", ".tiff", ".vrt")
"""Ends of the names of the orthomosaics that are looked for in a folder."""


@dataclass(frozen=True, slots=True)
class Products:
    """What the user wants to have, as the flags say it; names may hold {name} for the orthomosaic's."""

    out: Path | None
    out_dir: Path | None
    confidence: Path | None
    probabilities: Path | None
    areas: Path | None
    polygons: Path | None
    preview: Path | None


@dataclass(frozen=True, slots=True)
class Task:
    """One orthomosaic and the files to be made of it.

    Attributes:
        source: The orthomosaic.
        outputs: The map, and the layers beside it.
        areas: Table of areas.
        polygons: GeoPackage.
        preview: Picture.
        mapped: Whether an earlier run has finished the map; then only what is missing of the last three is made.
    """

    source: Path
    outputs: Outputs
    areas: Path | None
    polygons: Path | None
    preview: Path | None
    mapped: bool = False


def plan_products(orthomosaics: list[Path], wanted: Products, *, overwrite: bool, resume: bool) -> list[Task]:
    """Names all files and refuses what can be refused before hours are spent.

    Raises:
        RasterError: An orthomosaic is missing, or a file cannot be written, clashes with another, or exists.
    """
    sources = _sources(orthomosaics)
    if wanted.out is not None and wanted.out_dir is not None:
        raise RasterError(f"--out {wanted.out} and --out-dir {wanted.out_dir} exclude each other; give one of them.")
    if wanted.out_dir is None and (wanted.out is None or len(sources) > 1):
        what = "say where its map goes with --out map.tif" if len(sources) == 1 else "give a folder with --out-dir"
        raise RasterError(f"{sources[0]}{' and others' * (len(sources) > 1)}: {what}.")
    tasks = [_task(source, wanted) for source in sources]
    refuse_twice(path for task in tasks for path in (*task.outputs.by_layer.values(), *_derived(task)))
    for task in tasks:
        for path in (*task.outputs.by_layer.values(), *_derived(task)):
            for source in sources:  # that of another task is as dear
                check_source(path, source)
    return [_checked(task, overwrite, resume) for task in tasks]


def _checked(task: Task, overwrite: bool, resume: bool) -> Task:
    rasters = task.outputs.by_layer.values()
    unfinished = resume and is_unfinished(task.outputs.classes)
    mapped = resume and not (overwrite or unfinished) and all(path.exists() for path in rasters)
    for path in () if mapped else rasters:
        check_output(path, task.source, overwrite or unfinished)
    for path in _derived(task):
        check_output(path, task.source, overwrite or unfinished or mapped)
    return replace(task, mapped=mapped)


def finish(
    task: Task, class_map: ClassMap, options: SourceOptions, *, min_area_m2: float, say: Callable[[str], None]
) -> None:
    """Makes what is made of a finished map, areas, polygons and preview, where they are missing or older than it.

    Polygons are also made anew where those that are there leave out others by their area.

    Raises:
        RasterError: A file cannot be written; the map is there all the same.
    """
    land_cover = task.outputs.classes
    made = land_cover.stat().st_mtime_ns
    due = {path for path in _derived(task) if not (path.exists() and path.stat().st_mtime_ns >= made)}
    if task.polygons is not None and task.polygons not in due:
        from salakseg.mapping.geopackage import is_drawn

        due |= set() if is_drawn(task.polygons, min_area_m2) else {task.polygons}
    if task.areas in due:
        write_areas(task.areas, {task.source.name: areas_of(land_cover, class_map)}, overwrite=True)
        say(f"areas: {task.areas}")
    if task.polygons in due:
        from salakseg.mapping.polygons import write_polygons

        with progress_bar("polygons", "chunks") as progress:
            drawn = write_polygons(
                land_cover, task.polygons, class_map, min_area_m2=min_area_m2, overwrite=True, progress=progress
            )
        say(f"polygons: {task.polygons} ({drawn.polygons:,})")
    if task.preview in due:
        from salakseg.mapping.preview import write_preview

        write_preview(task.source, land_cover, task.preview, class_map, replace(options, allow_no_crs=True))
        say(f"preview: {task.preview}")


def show(summary: MapSummary) -> None:
    """Prints areas, warnings, and what the run took."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    known = all(area.hectares is not None for area in summary.areas)
    for heading in ("class", "pixels", *(("hectares",) if known else ()), "share"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for area in summary.areas:
        hectares = () if area.hectares is None else (f"{area.hectares:,.3f}",)
        table.add_row(Text(area.class_name), f"{area.pixels:,}", *hectares, f"{100 * area.share:.2f} %")
    stdout.print(table)
    for warning in summary.warnings:
        say(f"attention: {warning}")
    memory = "" if summary.peak_memory_mb is None else f", {summary.peak_memory_mb:,.0f} MB at most"
    resumed = f", {summary.resumed} stripes from before" if summary.resumed else ""
    say(
        f"map: {summary.out} ({summary.width} x {summary.height}, {100 * summary.valid_share:.1f} % valid; "
        f"{summary.tiles_run} tiles, {summary.tiles_skipped} empty{resumed}; {summary.seconds:.1f} s, "
        f"{summary.megapixels_per_second:.2f} Mpx/s{memory})"
    )


def _sources(orthomosaics: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in orthomosaics:
        if not path.exists():
            raise RasterError(f"{path} does not exist; check the orthomosaic's name.")
        if path.is_dir():
            inside = _in_folder(path)
            if not inside:
                raise RasterError(f"{path} holds no orthomosaic ({', '.join(RASTERS)}); name the files themselves.")
            found += inside
        else:
            found.append(path)
    return found


def _in_folder(folder: Path) -> list[Path]:
    """The orthomosaics of a folder: no maps of ours, and no files that a VRT beside them joins."""
    rasters = sorted(  # what begins with ._ is a Mac's note on a file
        file
        for file in folder.iterdir()
        if file.suffix.lower() in RASTERS and file.is_file() and not file.name.startswith("._")
    )
    parts: set[Path] = set()
    ours: set[Path] = set()
    for raster in rasters:
        try:
            with without_place(), rasterio.Env(), rasterio.open(raster) as dataset:
                if raster.suffix.lower() == ".vrt":
                    parts |= {Path(file).resolve() for file in dataset.files} - {raster.resolve()}
                if dataset.tags().get("TIFFTAG_SOFTWARE", "").startswith("salakseg"):
                    ours.add(raster)
        except RasterioError:
            continue  # the mapping says what is wrong with it
    return [raster for raster in rasters if raster not in ours and raster.resolve() not in parts]


def _task(source: Path, wanted: Products) -> Task:
    def named(path: Path | None, *ends: str) -> Path | None:
        if path is None:
            return None
        if path.suffix.lower() not in ends:
            raise RasterError(f"{path} must end in {' or '.join(ends)}.")
        if wanted.out_dir is None:
            return path
        if "{name}" not in path.name:
            raise RasterError(f"{path} would be the same for every orthomosaic; put {{name}} into it.")
        return wanted.out_dir / str(path).replace("{name}", source.stem)

    tif = (".tif", ".tiff")
    classes = wanted.out if wanted.out_dir is None else Path("{name}_map.tif")
    map_file = named(classes, *tif)
    assert map_file is not None, "plan_products has seen to it"
    outputs = Outputs(map_file, named(wanted.confidence, *tif), named(wanted.probabilities, *tif))
    return Task(
        source, outputs, named(wanted.areas, ".csv"), named(wanted.polygons, ".gpkg"), named(wanted.preview, ".png")
    )


def _derived(task: Task) -> list[Path]:
    return [path for path in (task.areas, task.polygons, task.preview) if path is not None]
