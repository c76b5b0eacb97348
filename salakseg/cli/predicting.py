"""``salakseg predict``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.choices import (
    MapDevice,
    ProbabilityKind,
    Weights,
    Window,
    as_choice,
    parse_bands,
    parse_channels,
    parse_gsd,
    parse_scale,
)
from salakseg.cli.console import progress_bar, say
from salakseg.errors import RasterError, SalaksegError

if TYPE_CHECKING:
    from salakseg.mapping.runner import Runner
    from salakseg.mapping.summary import Progress
    from salakseg.network.opening import EngineSpec

GPU_BATCH = 8
"""Tiles at a time on a GPU; a CPU is as fast with one, and never computes one for nothing."""

MODEL = "Model"
FOREIGN = "A model of others: an .onnx without salakseg's metadata"
RASTER = "Orthomosaic"
OUTPUT = "Output"
MACHINE = "Machine"
"""Headings of the help text."""


def predict(
    orthomosaics: Annotated[list[Path], typer.Argument(help="GeoTIFFs, VRTs, or folders of them.")],
    out: Annotated[Path | None, typer.Option(help="Land-cover map to write, a GeoTIFF.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="Folder for the maps of several orthomosaics, NAME_map.tif each.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="A .pt or .onnx file, or a bundle's folder; several are averaged. Default: the newest run's "
            "best, or the starter model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(help="Which weights of a .pt. Default: what it prefers, ema.", rich_help_panel=MODEL),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help="Heads of a .pt: mean, prob, vote, diversenet, or the number of one. Default: what it prefers, mean.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Average over eight flips and turns; 8 times as slow.", rich_help_panel=MODEL),
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of the tiles, pixels, of a .pt or a dynamic .onnx. Default: its training crops'.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(min=0, help="Pixels that tiles share. Default: 3/16 of a tile.", rich_help_panel=MODEL),
    ] = None,
    window: Annotated[
        Window, typer.Option(help="How a tile counts from its middle to its edge.", rich_help_panel=MODEL)
    ] = Window.hann,
    classes: Annotated[
        Path | None, typer.Option(help="CSV with its classes in the order of its output.", rich_help_panel=FOREIGN)
    ] = None,
    input_scale: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="255 if it takes colours from 0 to 1, 1 if from 0 to 255; mean and std come after.",
            rich_help_panel=FOREIGN,
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Subtracted from red, green and blue, such as 0,0,0.", rich_help_panel=FOREIGN)
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="What they are divided by then, such as 1,1,1.", rich_help_panel=FOREIGN)
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Its output has not been through a softmax.", rich_help_panel=FOREIGN)
    ] = False,
    gsd: Annotated[
        str,
        typer.Option(
            help="Metres a pixel that the model sees: its own (auto), a number, or the orthomosaic's pixels (off).",
            rich_help_panel=RASTER,
        ),
    ] = "auto",
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
        bool, typer.Option("--allow-no-crs", help="Accept an orthomosaic without a CRS.", rich_help_panel=RASTER)
    ] = False,
    skip_bad_blocks: Annotated[
        bool, typer.Option("--skip-bad-blocks", help="Map around blocks that cannot be read.", rich_help_panel=RASTER)
    ] = False,
    confidence: Annotated[
        Path | None, typer.Option(help="GeoTIFF of the class's probability in percent.", rich_help_panel=OUTPUT)
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="GeoTIFF of all classes' probabilities.", rich_help_panel=OUTPUT)
    ] = None,
    probability_type: Annotated[
        ProbabilityKind, typer.Option(help="uint8: percent; float16: 0 to 1, half precision.", rich_help_panel=OUTPUT)
    ] = ProbabilityKind.uint8,
    areas: Annotated[Path | None, typer.Option(help="CSV of hectares by class.", rich_help_panel=OUTPUT)] = None,
    polygons: Annotated[Path | None, typer.Option(help="GeoPackage of the classes.", rich_help_panel=OUTPUT)] = None,
    min_area: Annotated[
        float, typer.Option(min=0, help="Smallest polygon, square metres.", rich_help_panel=OUTPUT)
    ] = 1.0,
    preview: Annotated[
        Path | None, typer.Option(help="PNG with orthomosaic and map side by side.", rich_help_panel=OUTPUT)
    ] = None,
    out_gsd: Annotated[
        float | None,
        typer.Option(
            min=1e-4, max=1000, help="Metres a pixel of the map. Default: the orthomosaic's.", rich_help_panel=OUTPUT
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where a run was stopped, skip finished maps.", rich_help_panel=OUTPUT),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=OUTPUT)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be done; make no map.", rich_help_panel=OUTPUT),
    ] = False,
    device: Annotated[MapDevice, typer.Option(help="Where to compute.", rich_help_panel=MACHINE)] = MapDevice.auto,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Tiles at a time. Default: 1; on a GPU 8.", rich_help_panel=MACHINE),
    ] = None,
    max_memory: Annotated[
        int | None,
        typer.Option(help="MB for the mapping's own arrays; the model comes on top.", rich_help_panel=MACHINE),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of a Dask cluster on this machine.", rich_help_panel=MACHINE)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A running Dask cluster, such as tcp://host:8786.", rich_help_panel=MACHINE)
    ] = None,
) -> None:
    """Turn orthomosaics into land-cover maps.

    Several orthomosaics go to --out-dir; the names of further files then hold {name}, such as --preview '{name}.png'.
    """
    from salakseg.classes import ClassMap
    from salakseg.cli.models import choose_models
    from salakseg.cli.products import Products, Task, finish, plan_products, show
    from salakseg.mapping.opening import SourceOptions
    from salakseg.mapping.predict import check_finished, describe_plan, predict_map
    from salakseg.mapping.settings import MapSettings
    from salakseg.network.metadata import Told
    from salakseg.network.opening import open_engine, overflowing, slower_than_wanted

    if scheduler is not None and workers is not None:
        raise typer.BadParameter("--scheduler names a running cluster and --workers starts one; give one of them.")
    settings = MapSettings(
        overlap=overlap,
        window=window.value,
        gsd=parse_gsd(gsd),
        out_gsd=out_gsd,
        source=SourceOptions(parse_bands(bands), parse_scale(scale), allow_no_crs, skip_bad_blocks),
        probability_type=probability_type.value,
    )
    wanted = Products(out, out_dir, confidence, probabilities, areas, polygons, preview)
    tasks = plan_products(orthomosaics, wanted, overwrite=overwrite, resume=resume)
    told = Told(
        None if classes is None else ClassMap.from_csv(classes),
        input_scale,
        parse_channels(mean, "--mean"),
        parse_channels(std, "--std"),
        logits,
    )
    spec = choose_models(
        model, device, tile=tile, weights=as_choice(weights), heads=heads, tta=tta, workers=workers, told=told
    )
    engine = open_engine(spec)
    say(f"model: {engine.name}, runs on {engine.runs_on}")
    for caution in (slower_than_wanted(spec, engine), overflowing(engine)):
        if caution is not None:
            say(f"attention: {caution}")
    if engine.gsd_m is None and settings.gsd == "auto":
        say(
            f"attention: nobody says at how many metres a pixel {engine.name} was trained, so it sees whatever pixels "
            "the orthomosaic has; --gsd M tells it."
        )
    tiles_at_a_time = batch_size or (1 if spec.device == "cpu" else GPU_BATCH)
    if dry_run:
        for task in tasks:
            say(describe_plan(task.source, task.outputs, engine, settings, tiles_at_a_time, max_memory))
        return
    failed = 0

    def map_one(task: Task) -> SourceOptions:
        with _kept(task.outputs.classes, resume), progress_bar("mapping", "Mpx") as bar:
            summary = predict_map(
                task.source,
                task.outputs,
                engine,
                settings,
                batch_size=tiles_at_a_time,
                max_memory_mb=max_memory,
                resume=resume,
                overwrite=overwrite,
                runner=runner,
                progress=_in_megapixels(bar),
                say=say,
            )
        show(summary)
        return summary.options

    with _runner(scheduler, workers, spec) as runner:
        for task in tasks:
            try:
                options = settings.source
                if task.mapped:
                    check_finished(task.source, task.outputs, engine, settings)
                    say(f"{task.outputs.classes} is there already")
                else:
                    options = map_one(task)
                finish(task, engine.class_map, options, min_area_m2=min_area, say=say)
            except SalaksegError as error:
                if len(tasks) == 1:
                    raise
                failed += 1
                say(f"salakseg: {error}")
    if failed:
        raise RasterError(f"{failed} of {len(tasks)} orthomosaics were not mapped; repeat the command with --resume.")


def _in_megapixels(bar: Callable[[float, float, str], None]) -> "Callable[[Progress], None]":
    def show_progress(progress: "Progress") -> None:
        note = f"{progress.tiles_skipped:,} empty tiles" if progress.tiles_skipped else ""
        bar(progress.done / 1e6, progress.total / 1e6, note)

    return show_progress


@contextmanager
def _kept(out: Path, resume: bool) -> Iterator[None]:
    """Tells of the finished part of a map that was interrupted, whatever the reason."""
    from salakseg.mapping.workplace import is_unfinished

    before = is_unfinished(out)
    try:
        yield
    except BaseException:
        if is_unfinished(out) and (resume or not before):
            say(f"what is finished of {out} is kept; repeat the command with --resume to go on")
        raise


@contextmanager
def _runner(scheduler: str | None, workers: int | None, spec: "EngineSpec") -> "Iterator[Runner | None]":
    """A cluster where one is asked for; None for this process."""
    if scheduler is None and workers is None:
        yield None
        return
    from salakseg.mapping.cluster import OnCluster, connect

    with connect(scheduler, workers) as client:
        say(f"cluster: {client.scheduler.address}, {len(client.nthreads())} workers")
        yield OnCluster(client, spec)
