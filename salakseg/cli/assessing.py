"""``salakseg sample`` and ``salakseg accuracy``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from salakseg.cli.console import progress_bar, say, stdout
from salakseg.shell import as_argument

# As salakseg.evaluate.sampling has them, which takes too long to import for the help text; a test compares them
STANDARD_ERROR = 0.02
MIN_PER_CLASS = 50


class DesignKind(StrEnum):
    """How points were drawn that salakseg did not draw."""

    stratified = "stratified"
    simple = "simple"


LandCoverMap = Annotated[Path, typer.Argument(metavar="MAP", help="Land-cover map, a GeoTIFF of class ids.")]
ClassMapping = Annotated[Path | None, typer.Option(help="The map's classes, where it does not tell them itself.")]


def sample(
    land_cover: LandCoverMap,
    out: Annotated[Path, typer.Option(help="GeoPackage of points to write; its form for QGIS goes beside it.")],
    points: Annotated[
        int | None, typer.Option(min=2, help="Points in all. Default: what --standard-error takes.")
    ] = None,
    min_per_class: Annotated[int, typer.Option(min=2, help="Least points on each class of the map.")] = MIN_PER_CLASS,
    standard_error: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=0.2, help=f"Wanted of overall accuracy. Default: {STANDARD_ERROR}, some 4 % either side."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another sample.")] = 0,
    class_mapping: ClassMapping = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist, with the labels in them.")
    ] = False,
) -> None:
    """Draw a stratified random sample of a map, to be labelled in QGIS.

    The points lie on pixels that are drawn at random within each class of the map. Label them by the imagery, without
    a look at the map; then salakseg accuracy tells how good the map is and what its classes really cover.
    """
    from salakseg.classes import ClassMap
    from salakseg.evaluate.points import check_points_output, write_points
    from salakseg.evaluate.sampling import draw_sample, plan_sample
    from salakseg.evaluate.strata import open_land_cover

    if points is not None and standard_error is not None:
        raise typer.BadParameter("--points and --standard-error both say how many points; give one of them.")
    check_points_output(out, land_cover, overwrite)
    land = open_land_cover(land_cover, None if class_mapping is None else ClassMap.from_csv(class_mapping))
    points_K = plan_sample(land, points, min_per_class, STANDARD_ERROR if standard_error is None else standard_error)
    with progress_bar("sample", "pixels") as progress:
        drawn = draw_sample(land, points_K, seed, progress)
    write_points(out, land, drawn)

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("class", "pixels", "share", "points"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    shares_K = land.pixels_K / land.pixels_K.sum()
    for c in land.class_map.classes:
        table.add_row(Text(c.name), f"{land.pixels_K[c.id]:,}", f"{100 * shares_K[c.id]:.2f} %", f"{points_K[c.id]:,}")
    stdout.print(table)
    say(f"points: {out} ({points_K.sum():,}, shuffled), {out.with_suffix('.qml').name}")
    say("next: open them in QGIS over the orthomosaic, hide the map, and choose each point's label by what you see")
    classes = "" if class_mapping is None else f" --class-mapping {as_argument(class_mapping)}"
    say(f"then: salakseg accuracy {as_argument(out)} {as_argument(land_cover)}{classes}")


def accuracy(
    points: Annotated[Path, typer.Argument(help="GeoPackage of labelled points.")],
    land_cover: LandCoverMap,
    out: Annotated[Path | None, typer.Option(help="Folder for accuracy.json, per_class.csv and counts.csv.")] = None,
    label_column: Annotated[str, typer.Option(help="Column with the labels, class names or ids.")] = "label",
    design: Annotated[
        DesignKind | None,
        typer.Option(help="How points were drawn at random that salakseg did not draw: by class, or over all."),
    ] = None,
    class_mapping: ClassMapping = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Say how good a map is and what its classes really cover, with 95 % intervals.

    The points are those of salakseg sample, labelled; estimates after Olofsson et al. 2014. Points that are no
    probability sample, such as the pixels of labelled patches, are refused.
    """
    from salakseg.classes import ClassMap
    from salakseg.evaluate.assess import assess
    from salakseg.evaluate.assess_files import FILES, check_folder, write_assessment
    from salakseg.evaluate.assess_terminal import render_assessment

    if out is not None:
        check_folder(out, overwrite)
    with progress_bar("accuracy", "pixels") as progress:
        assessment = assess(
            points,
            land_cover,
            class_mapping=None if class_mapping is None else ClassMap.from_csv(class_mapping),
            label_column=label_column,
            design=None if design is None else design.value,
            progress=progress,
        )
    stdout.print(render_assessment(assessment))
    if out is not None:
        write_assessment(assessment, out)
        say(f"accuracy: {out} ({', '.join(FILES)})")
