"""``salakseg prepare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.choices import Fill, parse_bands, parse_scale
from salakseg.cli.console import progress_bar, say, stdout
from salakseg.cli.labelling import LabelFlags
from salakseg.errors import DataError, ProjectError
from salakseg.shell import as_argument

if TYPE_CHECKING:
    from salakseg.prepare.estimate import Estimate
    from salakseg.prepare.run import Summary

LABELS = "Labels"
PATCHES = "Patches"
RASTER = "Orthomosaics"
"""Headings of the help text."""

INDEX = "patches.gpkg"
SPLITS = "splits.csv"

_NOTES = 5  # of each kind that are shown
_SOURCES = 40  # that are shown


def prepare(
    sources: Annotated[
        list[Path], typer.Argument(help="Orthomosaics (GeoTIFF, VRT), photos (jpg, png, tif), or folders of them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(envvar="SALAKSEG_DATA_ROOT", help="Folder for the patches. Default: data_root of salakseg.toml."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Polygons, a label raster, COCO or LabelMe JSON, or a folder of masks. Without, all are unlabelled.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    class_mapping: Annotated[
        Path | None,
        typer.Option(
            envvar="SALAKSEG_CLASS_MAPPING",
            help="CSV with names and colours. Default: that of the project or of --out, or salak's.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    class_column: Annotated[
        str | None, typer.Option(help="Column with class name or id. Default: found.", rich_help_panel=LABELS)
    ] = None,
    priority_column: Annotated[
        str | None, typer.Option(help="Column of numbers: where polygons overlap, the highest.", rich_help_panel=LABELS)
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(
            help="Where shapes overlap: classes from below to above, such as 'Jalan,Bangunan'. Default: the later.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of a file with several.", rich_help_panel=LABELS)] = None,
    reviewed: Annotated[
        Path | None, typer.Option(help="Polygons of what was labelled; the rest is 255.", rich_help_panel=LABELS)
    ] = None,
    all_touched: Annotated[
        bool,
        typer.Option("--all-touched", help="Polygons take every pixel that they touch.", rich_help_panel=LABELS),
    ] = False,
    fill: Annotated[
        Fill, typer.Option(help="What is not labelled inside a labelled source.", rich_help_panel=LABELS)
    ] = Fill.ignore,
    patch: Annotated[int, typer.Option(min=8, max=8192, help="Side, pixels.", rich_help_panel=PATCHES)] = 256,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels from one to the next. Default: side by side.", rich_help_panel=PATCHES),
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(
            min=1e-4, max=1000, help="Metres a pixel. Default: the orthomosaic's own.", rich_help_panel=PATCHES
        ),
    ] = None,
    min_valid: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share that must be valid; the rest is black, 255.", rich_help_panel=PATCHES),
    ] = 0.5,
    folder: Annotated[
        str | None,
        typer.Option(help="One folder for all. Default: named like each source's own.", rich_help_panel=PATCHES),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Red, green and blue, such as 3,2,1.", rich_help_panel=RASTER)
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Values that become black and white, such as 0,4095; or percentile, to find them in the file.",
            rich_help_panel=RASTER,
        ),
    ] = None,
    allow_no_crs: Annotated[
        bool, typer.Option("--allow-no-crs", help="Accept one without a CRS.", rich_help_panel=RASTER)
    ] = False,
    skip_bad_blocks: Annotated[
        bool, typer.Option("--skip-bad-blocks", help="Cut around blocks that cannot be read.", rich_help_panel=RASTER)
    ] = False,
    pack: Annotated[
        bool, typer.Option("--pack", help="Pack them, too, as salakseg pack does: training reads them faster.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Cut sources anew that were cut before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count patches and bytes, write nothing.")] = False,
) -> None:
    """Cut orthomosaics and photos into the patches that training takes, with the labels that were drawn on them.

    The same command again changes nothing; further sources are added to what is there.
    """
    from dataclasses import replace

    from salakseg.mapping.opening import SourceOptions
    from salakseg.prepare.estimate import estimate
    from salakseg.prepare.request import Request
    from salakseg.prepare.run import prepare as run
    from salakseg.project import load_project

    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with what is there and --overwrite begins anew; give one of them.")
    if labels is None and (all_touched or any((reviewed, class_column, layer, priority_column, priority))):
        raise typer.BadParameter("--reviewed and what else is said of labels needs --labels; name them, too.")
    project = load_project()
    root = out or project.data_root
    if root is None:
        raise ProjectError("Where do the patches go? Give --out, or data_root in salakseg.toml.")
    mapping = class_mapping or project.class_mapping
    request = Request(
        sources=sources,
        root=root,
        class_mapping=mapping,
        folder=folder,
        patch=patch,
        stride=stride,
        gsd_m=gsd,
        min_valid=min_valid,
        options=SourceOptions(parse_bands(bands), parse_scale(scale), allow_no_crs, skip_bad_blocks),
        resume=resume,
        overwrite=overwrite,
    )
    flags = None
    if labels is not None:
        flags = LabelFlags(labels, class_column, layer, priority_column, priority, fill.value, all_touched, reviewed)
        request = replace(request, labels=flags.source(request.class_map()))
    if dry_run:
        with progress_bar("looking at a sample", "patches") as bar:
            found = estimate(request, bar)
        _show_estimate(found, root)
        return
    try:
        with progress_bar("cutting", "patches") as bar:
            summary = run(request, bar)
    except KeyboardInterrupt:
        say("what is cut is kept; repeat the command with --resume to go on")
        raise
    if flags is not None:
        for line in flags.lines():
            say(line)
    _show(summary, min_valid)
    if summary.failed:
        again = "repeat for them alone with --overwrite" if overwrite else "repeat with --resume"
        raise DataError(f"{len(summary.failed)} sources were not cut; mend them or leave them out, and {again}.")
    if not summary.patches:
        raise DataError(f"{root} got no patch; try a lower --min-valid, or a smaller --patch.")
    if summary.labelled and (summary.cut or not (summary.root / SPLITS).is_file()):
        _split(summary, sources)
    if pack:
        _pack(summary)
    say(f"next: {_next(summary)}")


def _split(summary: "Summary", sources: list[Path]) -> None:
    from salakseg.prepare.parts.splitting import split_after_cutting

    photos = sources[0] if len(sources) == 1 and sources[0].is_dir() else None
    with progress_bar("splits", "files") as bar:
        told = split_after_cutting(
            summary.root, summary.class_map, photos, lambda what, done, total: bar(done, total, what)
        )
    say(told)


def _pack(summary: "Summary") -> None:
    from salakseg.data.packing import PACK, pack_patches
    from salakseg.data.patches import index_patches

    with progress_bar("packing", "patches") as bar:
        # a pack is made from the patches alone: an older one is worth nothing
        done = pack_patches(
            index_patches(summary.root), summary.root / PACK, summary.class_map, overwrite=True, progress=bar
        )
    say(f"{done.folder}: {done.patches:,} patches, {done.bytes / 1e9:.2f} GB")


def _next(summary: "Summary") -> str:
    """The command that goes on from here."""
    if not summary.labelled:
        return "draw labels and repeat the command with --labels and --overwrite; there is nothing to learn from yet"
    root = as_argument(summary.root)
    if not (summary.root / SPLITS).is_file():
        return f"label in more places, or divide what there is: salakseg splits make {root} --test-share 0"
    return f"salakseg train --recipe quick --data-root {root} for a network in minutes, --phase 2 for a good one"


def _show_estimate(found: "Estimate", root: Path) -> None:
    plan = found.plan
    for reason in plan.failed:
        say(f"attention: {reason}")
    about = "" if found.exact else "about "
    told = "every one was looked at" if found.exact else f"estimated from {found.sampled:,} drawn at random"
    say(
        f"{root} would get {about}{found.patches:,} patches, {about}{found.labelled:,} of them labelled, "
        f"{about}{found.bytes / 1e6:,.1f} MB, from {found.positions:,} places in {len(plan.tasks):,} sources ({told})"
    )
    if plan.finished:
        say(f"{len(plan.finished):,} sources are there already and would be left alone")


def _show(summary: "Summary", min_valid: float) -> None:
    from rich.table import Table
    from rich.text import Text

    if not summary.cut and not summary.failed:
        say(f"nothing to do: {summary.root} holds the patches of all {summary.finished:,} sources")
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("source", "patches", "labelled", "left out", "MB"):
            table.add_column(heading, justify="left" if heading == "source" else "right")
        for one in summary.cut[:_SOURCES]:
            counts = len(one.row_N), int(one.mask_N.sum()), one.left_out
            table.add_row(Text(str(one.file)), *(f"{count:,}" for count in counts), f"{one.bytes / 1e6:,.1f}")
        stdout.print(table)
        if len(summary.cut) > _SOURCES:
            say(f"and {len(summary.cut) - _SOURCES:,} more sources")
        left_out, lost_px = (sum(getattr(one, name) for one in summary.cut) for name in ("left_out", "lost_px"))
        if left_out:
            lost = f"; {lost_px:,} labelled pixels lie in them" if lost_px else ""
            say(f"left out: {left_out:,} patches that are valid to less than {100 * min_valid:g} % (--min-valid){lost}")
        if summary.finished:
            say(f"{summary.finished:,} sources were there already and were left alone")
    _show_attention(summary)
    _show_classes(summary)


def _show_attention(summary: "Summary") -> None:
    notes = list(summary.notes)
    if summary.changed:
        notes.append(
            f"{len(summary.changed):,} files are gone or not as they were written, the first is {summary.changed[0]}; "
            "they were left as they are, --overwrite makes all of their source anew."
        )
    for kind in (notes, list(summary.failed)):
        for note in kind[:_NOTES]:
            say(f"attention: {note}")
        if len(kind) > _NOTES:
            say(f"attention: and {len(kind) - _NOTES:,} more of this kind")


def _show_classes(summary: "Summary") -> None:
    from rich.table import Table
    from rich.text import Text

    total = int(summary.class_px_K.sum())
    if total:
        table = Table(box=None, pad_edge=False)
        for heading in ("class", "pixels", "share"):
            table.add_column(heading, justify="left" if heading == "class" else "right")
        for name, pixels in zip(summary.class_map.names, summary.class_px_K.tolist(), strict=True):
            table.add_row(Text(name), f"{pixels:,}", f"{100 * pixels / total:.2f} %")
        stdout.print(table)
    unlabelled = summary.patches - summary.labelled
    index = f", index {INDEX}" if summary.indexed else ""
    say(f"{summary.root}: {summary.patches:,} patches, {summary.labelled:,} labelled, {unlabelled:,} unlabelled{index}")
