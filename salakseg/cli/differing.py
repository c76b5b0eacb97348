"""``salakseg diff``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salakseg.cli.console import progress_bar, say, stdout
from salakseg.errors import RasterError

if TYPE_CHECKING:
    from rich.table import Table

    from salakseg.change.compare import Change

# As salakseg.change.compare has it, which takes too long to import for the help text; a test compares them
UNSURE_BELOW = 60


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Land-cover map of before, a GeoTIFF of class ids.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Land-cover map of after.")],
    out: Annotated[Path | None, typer.Option(help="GeoTIFF of the change to write, with its style for QGIS.")] = None,
    polygons: Annotated[Path | None, typer.Option(help="GeoPackage of what changed; needs --out.")] = None,
    min_area: Annotated[float, typer.Option(min=0, help="Smallest polygon that is kept, square metres.")] = 1.0,
    matrix: Annotated[Path | None, typer.Option(help="CSV of the transition matrix, hectares.")] = None,
    old_confidence: Annotated[Path | None, typer.Option(help="What predict --confidence wrote with OLD.")] = None,
    new_confidence: Annotated[Path | None, typer.Option(help="The same of NEW.")] = None,
    unsure_below: Annotated[
        int, typer.Option(min=1, max=100, help="Percent of confidence below which a pixel is unsure.")
    ] = UNSURE_BELOW,
    class_mapping: Annotated[
        Path | None, typer.Option(help="The maps' classes, where they do not tell them themselves.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Say what has changed between two maps: how many hectares of each class became which other.

    The maps may differ in resolution, extent and reference system; the coarser one's pixels are taken. Hectares are
    true ones, in degrees too. How much of the change may be error is told beside them: what is thin, what is unsure.
    """
    from salakseg.change.compare import compare
    from salakseg.change.output import matrix_csv, to_dict
    from salakseg.change.pair import open_pair
    from salakseg.change.raster import write_change
    from salakseg.classes import ClassMap
    from salakseg.mapping.files import check_outputs, write_whole

    if polygons is not None and out is None:
        raise typer.BadParameter("--polygons are made of the raster; name it with --out.")
    if polygons is not None and polygons.suffix.lower() != ".gpkg":
        raise RasterError(f"{polygons} is not named .gpkg, and polygons are written as a GeoPackage; name it so.")
    outputs = [path for path in (out, out and out.with_suffix(".qml"), polygons, matrix) if path is not None]
    sources = [path for path in (old, new, old_confidence, new_confidence) if path is not None]
    check_outputs(outputs, sources, overwrite, "input")
    pair = open_pair(old, new, None if class_mapping is None else ClassMap.from_csv(class_mapping))
    with progress_bar("comparing", "rows") as progress:
        change = compare(pair, old_confidence, new_confidence, unsure_below, progress)
    if out is not None:
        with progress_bar("writing", "rows") as progress:
            written = write_change(change, out, polygons, min_area, progress)
        say(f"change: {out} ({pair.width} x {pair.height}), {out.with_suffix('.qml').name}")
        if written is not None:
            say(f"polygons: {polygons} ({written.polygons:,})")
    if matrix is not None:
        write_whole(matrix, matrix_csv(change))
        say(f"matrix: {matrix}")
    if as_json:
        stdout.print_json(data=to_dict(change), ensure_ascii=True)
        return
    stdout.print(_table(change))
    for line in _remarks(change):
        stdout.print(line, markup=False, soft_wrap=True)


def _table(change: "Change") -> "Table":
    """The transition matrix: rows are the old map's classes."""
    from rich.table import Table
    from rich.text import Text

    names = change.pair.class_map.names
    amounts_KK: Any = change.pixels_KK if change.hectares_KK is None else change.hectares_KK
    form = "{:,}" if change.hectares_KK is None else "{:,.3f}"
    table = Table(box=None, pad_edge=False)
    table.add_column("pixels" if change.hectares_KK is None else "hectares", justify="left")
    for name in (*names, "in all"):
        table.add_column(Text(f"> {name}" if name in names else name), justify="right", overflow="fold")
    for k, name in enumerate(names):
        cells = [form.format(amount) if change.pixels_KK[k, j] else "-" for j, amount in enumerate(amounts_KK[k])]
        table.add_row(Text(name), *cells, form.format(amounts_KK[k].sum()))
    table.add_row("in all", *(form.format(column.sum()) for column in amounts_KK.T), form.format(amounts_KK.sum()))
    return table


def _remarks(change: "Change") -> list[str]:
    """What a reader must know of the figures."""
    from salakseg.change.output import sentences

    return sentences(change)
