"""``salakseg splits make`` and ``salakseg splits show``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.console import progress_bar, say, stdout
from salakseg.cli.patch_folder import ClassMapping, Root, patch_folder
from salakseg.errors import DataError
from salakseg.shell import as_argument

if TYPE_CHECKING:
    from salakseg.classes import ClassMap
    from salakseg.data.survey import Survey
    from salakseg.prepare.parts.part_shares import PartShares

PICTURE = "splits.png"  # that `salakseg prepare` does not take for a photo

app = typer.Typer(no_args_is_help=True, help="Divide patches into training, validation and test parts, without a leak.")


class By(StrEnum):
    """What is held out as a whole."""

    auto = "auto"
    square = "square"
    gps = "gps"
    block = "block"
    folder = "folder"


_GROUND = "Division by place"
_FLIGHT = "Division by number"

Photos = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Photos that patches were cut from, with GPS in their EXIF.", rich_help_panel=_GROUND
    ),
]
Footprint = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=100_000, metavar="METRES", rich_help_panel=_GROUND,
        help="Ground a photo shows from corner to corner. Default: by its height and focal length.",
    ),
]  # fmt: skip


@app.command()
def make(
    root: Root = None,
    by: Annotated[
        By,
        typer.Option(
            help="What is held out: squares of ground (of mosaics, or of photos by their GPS), blocks of consecutive "
            "photos, whole folders. auto: square where there is a patches.gpkg, gps where --photos have a position, "
            "else block."
        ),
    ] = By.auto,
    val_share: Annotated[float, typer.Option(min=0.01, max=0.8, help="Of the labelled pixels, for validation.")] = 0.15,
    test_share: Annotated[float, typer.Option(min=0, max=0.8, help="The same for test; 0 for no test part.")] = 0.15,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another split.")] = 0,
    block: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1e6, metavar="METRES", help="Side of a square. Default: tries some, takes the best.",
            rich_help_panel=_GROUND,
        ),
    ] = None,
    buffer: Annotated[
        float | None,
        typer.Option(
            min=0, max=1e6, metavar="METRES", rich_help_panel=_GROUND,
            help="Least distance between patches of different parts. Default: a patch; 10 m around photos' ground.",
        ),
    ] = None,
    photos: Photos = None,
    footprint: Footprint = None,
    gap: Annotated[
        int, typer.Option(min=0, help="Photos beside a held-out one that nobody uses.", rich_help_panel=_FLIGHT)
    ] = 3,
    calibration_share: Annotated[
        float,
        typer.Option(
            min=0, max=0.2, rich_help_panel=_FLIGHT,
            help="The same for a part on which pseudo-labels are compared with labels; none where it costs too much.",
        ),
    ] = 0.05,
    class_mapping: ClassMapping = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a split that is there.")] = False,
) -> None:  # fmt: skip
    """Divide patches into parts that show different ground, and write splits.csv.

    What lies between two parts is used nowhere. Divided by place, patches come into blocks of ground (blocks.csv);
    splits.png shows them.
    """
    from salakseg.data.spatial import SpatialPlan
    from salakseg.prepare.parts.part_picture import draw_parts
    from salakseg.prepare.parts.part_shares import part_shares
    from salakseg.prepare.parts.splitting import SplitRequest, known_ground, make_parts, refuse_existing

    if val_share + test_share > 0.9:
        raise DataError(
            f"--val-share {val_share:g} and --test-share {test_share:g} leave too little to train on; 0.9 is the most."
        )
    folder, class_map = patch_folder(root, class_mapping)
    refuse_existing(folder, overwrite)
    request = SplitRequest(
        by=by.value,
        spatial=SpatialPlan(block, buffer, val_share, test_share, seed),
        gap=gap,
        calibration_share=calibration_share,
        photos=photos,
        footprint_m=footprint,
        overwrite=overwrite,
    )
    with progress_bar("splits", "files") as progress:
        parts = make_parts(folder, class_map, request, lambda what, done, total: progress(done, total, what))
    _tell_of_masks(parts.survey, class_map)
    _show(part_shares(parts.index, parts.split, parts.survey, class_map))
    if parts.division is None:
        told = f"gap of {gap} photos" if parts.by == "block" else "whole folders"
        say(f"split by {parts.by}: {told}, seed {seed}")
    else:
        squares = parts.division.squares
        free = block is None and buffer is None and parts.by == "square"
        several = len(set(squares.cell_B3[:, 0].tolist())) > 1
        elsewhere = " (where patches show most; in proportion to them on other sites)" if free and several else ""
        say(
            f"split by {parts.by}: {len(squares.cell_B3):,} blocks of {squares.side_m:.4g} m, "
            f"{parts.division.buffer_m:.4g} m between parts{elsewhere}, seed {seed}"
        )
    draw_parts(folder / PICTURE, parts.index, parts.split, parts.ground or known_ground(parts.index))
    written = ["splits.csv", *(["blocks.csv"] if parts.division is not None else []), PICTURE]
    say(f"written to {folder}: {', '.join(written)}")


@app.command()
def extend(
    root: Root = None,
    gap: Annotated[
        int, typer.Option(min=0, help="Photos beside a held-out one that nobody uses, where places are not known.")
    ] = 3,
    photos: Photos = None,
    footprint: Footprint = None,
) -> None:
    """Let patches that came after the split join training, and photos that were labelled since join the labelled part.

    The held-out parts stay, so that figures can be compared. What lies nearer to one than a patch is wide is used
    nowhere.
    """
    from salakseg.prepare.parts.extending import extend_split
    from salakseg.prepare.parts.part_picture import draw_parts

    folder, _ = patch_folder(root, None)
    extended = extend_split(folder, gap, photos, footprint)
    say(f"{extended.joined:,} patches join training, {extended.unused:,} lie too near to a held-out part")
    if extended.labelled:
        say(f"{extended.labelled:,} patches that were unlabelled data have masks now, and join the labelled part")
    if extended.placeless:
        say(
            f"attention: {extended.placeless:,} patches are used nowhere, since where they lie is not known and the "
            "split was made by place; only `salakseg splits make --overwrite`, with the folder of their photos as "
            "--photos, takes them in"
        )
    if extended.unsure:
        say(
            f"attention: where held-out photos lie is not known, so {extended.unsure:,} of these patches may show "
            "their ground; if they are of the same farm, divide anew: `salakseg splits make --overwrite`, with the "
            "folder of the photos, with GPS in them, as --photos"
        )
    if extended.changes:
        draw_parts(folder / PICTURE, extended.index, extended.split, extended.ground)
        say(f"written to {folder}: splits.csv, {PICTURE}")


@app.command()
def show(
    root: Root = None,
    photos: Photos = None,
    footprint: Footprint = None,
    class_mapping: ClassMapping = None,
) -> None:
    """Show what the parts of splits.csv hold, and draw them anew as splits.png."""
    from salakseg.data.patches import index_patches
    from salakseg.data.splits import SPLITS, read_split
    from salakseg.data.survey import survey_masks
    from salakseg.prepare.parts.part_picture import draw_parts
    from salakseg.prepare.parts.part_shares import part_shares
    from salakseg.prepare.parts.splitting import known_ground

    folder, class_map = patch_folder(root, class_mapping)
    index = index_patches(folder)
    path = folder / SPLITS
    if not path.is_file():
        raise DataError(f"{path} does not exist; make a split with: salakseg splits make {as_argument(folder)}")
    split = read_split(path, index)
    with progress_bar("splits", "masks") as progress:
        survey = survey_masks(index, [patch for patch in index.patches if patch.mask is not None], class_map, progress)
    _tell_of_masks(survey, class_map)
    _show(part_shares(index, split, survey, class_map))
    draw_parts(folder / PICTURE, index, split, known_ground(index, photos, footprint))
    say(f"written to {folder}: {PICTURE}")


def _tell_of_masks(survey: "Survey", class_map: "ClassMap") -> None:
    from salakseg.check.masks import survey_findings

    for finding in survey_findings(survey, class_map):
        say(f"attention: {finding.line}")


def _show(shares: "PartShares") -> None:
    from rich.table import Table
    from rich.text import Text

    from salakseg.data.splits import Role

    roles = [Role.LABELLED, Role.VAL, Role.TEST, Role.CALIBRATION, Role.GAP, Role.UNLABELLED]
    if not shares.patches[Role.CALIBRATION]:
        roles.remove(Role.CALIBRATION)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for role in roles:
        table.add_column(role.value, justify="right")
    everything = sum(shares.patches.values())
    pixels = {role: int(shares.pixels[role].sum()) for role in roles}
    labelled = sum(pixels.values())
    table.add_row("photos or blocks", *(f"{shares.places[role]:,}" for role in roles))
    table.add_row("patches", *(f"{shares.patches[role]:,}" for role in roles))
    table.add_row("share of patches", *(_percent(shares.patches[role], everything) for role in roles))
    table.add_row("labelled pixels", *(f"{pixels[role]:,}" if pixels[role] else "-" for role in roles))
    shares_of_all = (_percent(pixels[role], labelled) if pixels[role] else "-" for role in roles)
    table.add_row("share of these", *shares_of_all, end_section=True)
    for k, name in enumerate(shares.class_map.names):
        cells = (_percent(int(shares.pixels[role][k]), pixels[role], 2) for role in roles)
        table.add_row(Text(f"  {name}"), *cells)  # Text: a class may be called [red]
    stdout.print(table)
    for role, name in shares.missing:
        say(f"attention: class {name!r} has no pixel in the {role.value} part; label some more of it elsewhere")
    if shares.gap_share > 0:
        say(f"gap: {100 * shares.gap_share:.1f} % of the labelled pixels are used nowhere, because parts would meet")


def _percent(part: int, whole: int, digits: int = 1) -> str:
    return f"{100 * part / whole:.{digits}f} %" if whole else "-"
