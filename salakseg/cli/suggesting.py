"""``salakseg suggest``."""

import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salakseg.cli.choices import Device, LabelUnit, parse_bands, parse_gsd, parse_scale
from salakseg.cli.console import progress_bar, say, stdout
from salakseg.errors import DataError, ProjectError
from salakseg.shell import as_argument

if TYPE_CHECKING:
    from salakseg.data.splits import Split
    from salakseg.mapping.settings import MapSettings
    from salakseg.network.torch_engine import TorchEngine
    from salakseg.suggest.candidates import Unit
    from salakseg.suggest.deliver import Files
    from salakseg.suggest.sources import PatchSource, Source

RASTER = "Orthomosaics"
MACHINE = "Machine"
"""Headings of the help text."""

_GAP = 3  # as of a split
_GPU_BATCH = 8  # batches of a CPU that a GPU takes at once


def suggest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[ROOT | ORTHOMOSAICS]", help="A folder of patches, or rasters. Default: data_root."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A .pt, a run or a bundle. Default: the newest run's best.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many to suggest.")] = 20,
    unit: Annotated[
        LabelUnit | None, typer.Option(help="What is labelled in one go. Default: photo; of orthomosaics, area.")
    ] = None,
    area: Annotated[
        float,
        typer.Option(min=1e-3, help="Side of an area: metres, or cells of a photo's grid where no ground is known."),
    ] = 25.0,
    rarity: Annotated[float, typer.Option(min=0, help="How much expected rare classes raise; 0 is off.")] = 1.0,
    gap: Annotated[
        int | None, typer.Option(min=0, help="Photos beside a labelled one that show the same ground. Default: 3.")
    ] = None,
    distance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Metres between middles that count as the same ground, where it is known. Default: 1.5 sides of a "
            "patch or an area, one of a photo.",
        ),
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="File with the split. Default: splits.csv in the data root, if it is there.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results. Default: suggest in ROOT, or here.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder where what was seen is kept, to go on from. Default: cache in --out.")
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="Polygons of what is labelled already; nothing near them is suggested.", rich_help_panel=RASTER
        ),
    ] = None,
    gsd: Annotated[
        str, typer.Option(help="Metres a pixel that the model sees, as for predict.", rich_help_panel=RASTER)
    ] = "auto",
    bands: Annotated[
        str | None, typer.Option(help="Red, green and blue, such as 3,2,1.", rich_help_panel=RASTER)
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Values that become black and white, or percentile.", rich_help_panel=RASTER),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.", rich_help_panel=MACHINE)] = Device.auto,
    tile: Annotated[
        int | None,
        typer.Option(help="Side of the windows, pixels. Default: the training crops'.", rich_help_panel=MACHINE),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier suggestions in --out.")] = False,
) -> None:
    """Say what to label next: the photos, patches or areas from which the network would learn most.

    Everything is looked at once and remembered by model: the same command goes on where it was stopped, and another
    --count or --unit takes seconds.
    """
    from salakseg.cli.model_paths import checkpoint_at
    from salakseg.mapping.opening import SourceOptions
    from salakseg.mapping.raster import gdal_settings
    from salakseg.mapping.settings import MapSettings
    from salakseg.network.device import pick_device
    from salakseg.network.torch_engine import TorchEngine
    from salakseg.project import load_project
    from salakseg.suggest.choose import Wish, choose, default_cache, look_at, open_stores
    from salakseg.suggest.deliver import deliver, open_folder
    from salakseg.suggest.scan import AREA

    project = load_project()
    named = os.environ.get("SALAKSEG_DATA_ROOT")
    default = Path(named) if named else project.data_root
    given = list(paths or ([] if default is None else [default]))
    if not given:
        raise ProjectError("What shall be looked at? Name a folder of patches or orthomosaics, or set data_root.")
    root = given[0] if len(given) == 1 and _holds_patches(given[0]) else None
    folder = out or (Path("suggest") if root is None else root / "suggest")
    if root is not None and folder.resolve() == root.resolve():
        raise DataError(f"{folder} holds the patches, whose split would be replaced; name another folder with --out.")
    of_rasters = (labelled, bands, scale, None if gsd == "auto" else gsd)
    _refuse_flags(root is not None, of_patches=(splits, gap), of_rasters=of_rasters)
    open_folder(folder, overwrite)
    checkpoint = checkpoint_at(model) if model is not None else project.newest_best()
    engine = TorchEngine(checkpoint, pick_device(device.value), tile)
    say(f"model: {checkpoint}, runs on {engine.runs_on}")
    if engine.validation_matrix is None:
        say("attention: the model holds no validation, so reliability and rarity of its classes do not count.")
    settings = MapSettings(gsd=parse_gsd(gsd), source=SourceOptions(parse_bands(bands), parse_scale(scale)))
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        sources, split = _sources(stack, given, root, splits, engine, settings, labelled)
        wanted: Unit = unit.value if unit is not None else ("photo" if root is not None else "area")
        if root is None and wanted == "photo":
            raise typer.BadParameter("an orthomosaic is no photo; take --unit area or patch.")
        wish = Wish(count, wanted, _cells(area, sources, wanted), rarity, _GAP if gap is None else gap, distance)
        stores = stack.enter_context(open_stores(sources, engine, cache or default_cache(folder)))
        pixels = AREA * (1 if engine.runs_on.endswith("cpu") else _GPU_BATCH)
        with progress_bar("looking", "pictures") as bar:
            skipped = look_at(sources, stores, engine, pixels, bar)
        for name in skipped[:5]:
            say(f"attention: {name} cannot be read and is left out.")
        if len(skipped) > 5:
            say(f"attention: and {len(skipped) - 5:,} more.")
        chosen = choose(sources, stores, engine, wish, skipped)
        rows, files = deliver(folder, chosen, wish, sources, stores, engine, split)
    _show(rows, chosen.open, count)
    say(f"{len(rows)} of {chosen.open:,} candidates: {', '.join(map(str, files.all))}")
    say(f"next: {_next(files)}")


def _holds_patches(path: Path) -> bool:
    return path.is_dir() and ((path / "images").is_dir() or any(path.glob("*/images")))


def _sources(
    stack: ExitStack,
    given: list[Path],
    root: Path | None,
    splits: Path | None,
    engine: "TorchEngine",
    settings: "MapSettings",
    labelled: Path | None,
) -> "tuple[list[Source], Split | None]":
    """What is looked at, and the split of the patches."""
    from salakseg.prepare.finding import find_sources
    from salakseg.suggest.mosaics import MosaicSource

    if root is not None:
        source, split = _patches(root, splits, engine)
        return [source], split
    files = [source.path for source in find_sources(given)]
    sources = [stack.enter_context(MosaicSource(path, engine, settings, labelled)) for path in files]
    for guess in (source.mosaic.guess for source in sources):
        if guess is not None:
            say(f"attention: {guess}")
    if labelled is not None and not any(source.labelled_N.any() for source in sources):
        say(
            f"attention: {labelled} lies on none of the orthomosaics given, so nothing counts as labelled; see whether "
            "it is the right file and in the right reference system"
        )
    return [*sources], None


def _patches(root: Path, splits: Path | None, engine: "TorchEngine") -> "tuple[PatchSource, Split | None]":
    from salakseg.data.packing import packed_index
    from salakseg.data.patches import index_patches
    from salakseg.data.splits import read_split
    from salakseg.suggest.sources import PatchSource

    index, told = packed_index(index_patches(root), engine.class_map)
    if told is not None:
        say(told)
    path = _split_file(root, splits)
    split = None if path is None else read_split(path, index)
    source = PatchSource(index, split, engine.tile)
    unlabelled = int((~source.labelled_N).sum())
    say(f"{root}: {unlabelled:,} unlabelled patches, {len(source.names) - unlabelled:,} labelled to keep away from")
    return source, split


def _split_file(root: Path, splits: Path | None) -> Path | None:
    from salakseg.data.splits import SPLITS

    if splits is not None and not splits.is_file():
        raise DataError(f"{splits} does not exist; name the file with the split, or leave --splits out.")
    return splits or (root / SPLITS if (root / SPLITS).is_file() else None)


def _refuse_flags(patches: bool, of_patches: tuple[Any, ...], of_rasters: tuple[Any, ...]) -> None:
    """Flags that mean nothing for what is looked at."""
    if patches and any(one is not None for one in of_rasters):
        raise typer.BadParameter(
            "--labelled, --gsd, --bands and --scale are for orthomosaics; patches are taken as they are, and are "
            "labelled where they have a mask."
        )
    if not patches and any(one is not None for one in of_patches):
        raise typer.BadParameter("--splits and --gap are for patches; of orthomosaics --labelled and --distance tell.")


def _cells(area: float, sources: "list[Source]", unit: "Unit") -> int:
    """Cells in a row of an area; the cells of patches that overlap lie less than their side apart."""
    known = [(source.side_m, source.step_m) for source in sources if source.side_m is not None and source.step_m]
    if not known:
        return max(1, math.floor(area))
    side, step = max(known)
    cells = max(1, round((area - side) / step) + 1)
    if unit == "area":
        say(f"an area is {cells} x {cells} cells, {(cells - 1) * step + side:.3g} m wide")
    return cells


def _show(rows: "list[dict[str, Any]]", open_ones: int, wanted: int) -> None:
    from salakseg.cli.tables import show, table

    shown = ("rank", "source", "photo", "row", "col", "worth", "score", "high", "expected")
    text = [[f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in shown] for row in rows]
    show(stdout, table(shown, text, left=("source", "photo", "expected"), fold="expected"))
    if len(rows) < wanted:
        say(f"attention: only {len(rows)} of {open_ones:,} candidates are apart from each other and from labels.")


def _next(files: "Files") -> str:
    """The command that goes on from here."""
    if files.areas is not None:
        return f"draw labels inside {files.areas}, beside those you have, then: salakseg prepare ... --overwrite"
    if files.split is not None:
        return f"give the pictures of {files.pictures} masks, then: salakseg train --splits {as_argument(files.split)}"
    return f"give the pictures of {files.pictures} masks, then: salakseg train"
