"""From an orthomosaic to a land-cover map: read, infer, blend, write, all streaming.

The map is cut into panels of columns and these into stripes; each finished stripe is a file of its own, and at the end
they are put together. So memory grows neither with the raster's height nor with its width, a run that was killed goes
on where it was, and several machines can share the work.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.errors import RasterioError

from salakseg.errors import RasterError
from salakseg.mapping.areas import ClassArea
from salakseg.mapping.assemble import Georeference
from salakseg.mapping.files import check_output
from salakseg.mapping.finish import Outputs, finish_map
from salakseg.mapping.layers import Layers
from salakseg.mapping.plan import MapPlan, Section, make_plan
from salakseg.mapping.raster import GDAL_CACHE_BYTES, Orthomosaic, gdal_settings
from salakseg.mapping.render import Job
from salakseg.mapping.runner import Here, Runner
from salakseg.mapping.settings import MapSettings, default_overlap, map_step, model_step
from salakseg.mapping.stripes import Block, StripeFolder
from salakseg.mapping.summary import MapSummary, Progress, Tally
from salakseg.mapping.tags import different_grid, different_tags, map_tags
from salakseg.mapping.workplace import is_unfinished, workplace
from salakseg.network.engine import Engine

PANEL_WIDTH = 8192
"""The most columns that are blended at once, as wider panels save little. Seven classes and tiles of 512: 117 MB."""

COARSE = 1.5
"""An orthomosaic that is coarser than the model by more than this is worth a word."""

DEFAULT_MEMORY_MB = 1024
"""Memory for the mapping's own arrays where the user sets no limit."""


def predict_map(
    source: Path,
    outputs: Path | Outputs,
    engine: Engine,
    settings: MapSettings | None = None,
    *,
    batch_size: int = 1,
    max_memory_mb: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    runner: Runner | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> MapSummary:
    """Maps an orthomosaic.

    The map has the orthomosaic's CRS, transform and size (but for `out_gsd`), 255 where the orthomosaic is not valid,
    and appears under its name only when it is whole. What was finished before a failure waits in a hidden folder beside
    it; a failure before the first stripe is finished leaves the folder as it was.

    Args:
        source: The orthomosaic.
        outputs: The map to write, or several files.
        engine: The model; with a `runner` of its own, what is asked for the classes, the tile and the like.
        settings: How the map is made.
        batch_size: Tiles inferred at once, at least 1.
        max_memory_mb: Memory for the mapping's own arrays, in 10^6 bytes: the blended probabilities, tiles on their way
            and GDAL's cache. The model and the libraries come on top.
        resume: Go on with an unfinished map of the same settings, if there is one.
        overwrite: Replace files that exist, and an unfinished map.
        runner: Who does the work; None for this process.
        progress: Called after every tile, in this thread.
        say: Called with what a user wants to know before the work begins.

    Returns:
        Counts, areas, speed and warnings.

    Raises:
        RasterError: The orthomosaic cannot be used or read, or the map cannot be written.
        EngineError: The model gives no proper probabilities.
        ValueError: `batch_size` below 1.
    """
    started = time.perf_counter()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    outputs = Outputs(outputs) if isinstance(outputs, Path) else outputs
    settings = settings or MapSettings()
    unfinished = resume and is_unfinished(outputs.classes)  # some files may have got their names already
    for path in outputs.by_layer.values():
        check_output(path, source, overwrite or unfinished)
    with gdal_settings(), Orthomosaic(source, settings.source) as orthomosaic:
        for path in outputs.by_layer.values():
            if path.exists() and any(os.path.samefile(path, file) for file in orthomosaic.files):
                raise RasterError(f"{path} is a part of {source}; give the new file another name.")
        for line in _announce(orthomosaic, engine, settings):
            say(line)
        if orthomosaic.options.stretch == "percentile":
            say(f"{source}: looking for the range of its values")
        orthomosaic.settle_stretch()
        plan = _plan(orthomosaic, engine, settings, batch_size, max_memory_mb, outputs.probabilities is not None)
        layers = Layers(
            len(engine.class_map),
            outputs.confidence is not None,
            settings.probability_type if outputs.probabilities is not None else None,
        )
        job = Job(source, orthomosaic.options, plan, layers, min(batch_size, len(plan.grid)))
        tags = map_tags(orthomosaic, engine, plan)
        state = orthomosaic.state()
        panels = ",".join(str(panel.start) for panel in plan.panels)
        made_from = {
            **tags,
            **state,
            "layers": str(layers),
            "panels (by --batch-size and --max-memory) begin at": panels,
        }
        tally = Tally(plan, progress)
        with workplace(outputs.classes, made_from, resume=resume, overwrite=overwrite) as folder:
            stripes = StripeFolder(folder, layers)
            with _disk_errors(outputs.classes):
                runner = runner or Here(engine)
                runner.run(job, runner.cut(_missing(plan, stripes, tally)), stripes, tally.advance)
            if orthomosaic.state() != state:
                raise RasterError(f"{source} was changed while it was mapped; map it again with --overwrite.")
            place = Georeference(orthomosaic.crs, _transform(orthomosaic, plan))
            records = {at: stripes.record(*at) for at in plan.all_stripes()}
            told = tags | {"runtime": engine.runs_on}
            areas = finish_map(outputs, stripes, records, plan, place, engine.class_map, told, overwrite)
            bad_blocks = tuple(sorted({block for record in records.values() for block in record.bad_blocks}))
        return MapSummary(
            out=outputs.classes,
            options=orthomosaic.options,
            width=plan.width,
            height=plan.height,
            areas=areas,
            tiles_run=tally.tiles_run,
            tiles_skipped=tally.tiles_skipped,
            resumed=tally.resumed,
            seconds=time.perf_counter() - started,
            peak_memory_mb=_peak_memory_mb(),
            bad_blocks=bad_blocks,
            warnings=tuple(_warnings(orthomosaic, areas, bad_blocks)),
        )


def describe_plan(
    source: Path,
    outputs: Outputs,
    engine: Engine,
    settings: MapSettings,
    batch_size: int = 1,
    max_memory_mb: int | None = None,
) -> str:
    """What `predict_map` would do, in some words; nothing is written.

    Raises:
        RasterError: The orthomosaic cannot be used.
    """
    with gdal_settings(), Orthomosaic(source, settings.source) as orthomosaic:
        plan = _plan(orthomosaic, engine, settings, batch_size, max_memory_mb, outputs.probabilities is not None)
        lines = list(_announce(orthomosaic, engine, settings))
    tiles = sum(plan.tile_count(Section(panel, 0, plan.stripes)) for panel in range(len(plan.panels)))
    grid = plan.grid.rows
    lines += [f"{path}: {what}, {plan.width} x {plan.height} pixels" for what, path in outputs.by_layer.items()]
    lines.append(
        f"{tiles} tiles of {grid.tile} pixels that share {grid.overlap}, in {len(plan.panels)} panels of "
        f"{plan.stripes} stripes; empty ones will be skipped"
    )
    return "\n".join(lines)


def check_finished(source: Path, outputs: Outputs, engine: Engine, settings: MapSettings) -> None:
    """Refuses to take finished files for those that are wanted, if they tell of something else.

    Every flight's orthomosaic may have the same name: the map must have its size and place, and be newer.

    Raises:
        RasterError: They were made from another orthomosaic or model, or with other settings.
    """
    with gdal_settings(), Orthomosaic(source, settings.source) as orthomosaic:
        plan = _plan(orthomosaic, engine, settings, 1, None, outputs.probabilities is not None)
        wanted, transform = map_tags(orthomosaic, engine, plan), _transform(orthomosaic, plan)
        changed_ns = orthomosaic.changed_ns
    if settings.source.stretch == "percentile":
        del wanted["scale"]  # to find it again takes two readings of the whole file
    layers = Layers(len(engine.class_map), probabilities=settings.probability_type)
    for layer, path in outputs.by_layer.items():
        different = different_tags(path, wanted)
        different += different_grid(path, plan, transform, "float32" if layers.is_float(layer) else "uint8")
        different += ["orthomosaic changed since"] * (changed_ns > path.stat().st_mtime_ns)
        if different:
            raise RasterError(
                f"{path} exists and was made from something else ({', '.join(different)}); name another file or "
                "replace it with --overwrite."
            )


def _transform(orthomosaic: Orthomosaic, plan: MapPlan) -> Any:  # noqa: ANN401
    """Where the map lies."""
    return orthomosaic.transform @ Affine.scale(plan.source_to_map.cols.step, plan.source_to_map.rows.step)


def _plan(
    orthomosaic: Orthomosaic,
    engine: Engine,
    settings: MapSettings,
    batch_size: int,
    max_memory_mb: int | None,
    probabilities: bool,
) -> MapPlan:
    overlap = default_overlap(engine.tile) if settings.overlap is None else settings.overlap
    if not 0 <= overlap < engine.tile:
        raise RasterError(
            f"an overlap of {overlap} pixels does not work with the {engine.tile}-pixel tiles of {engine.name}; "
            f"choose 0 to {engine.tile - 1} to map {orthomosaic.path}."
        )
    return make_plan(
        orthomosaic.height,
        orthomosaic.width,
        tile=engine.tile,
        overlap=overlap,
        window=settings.window,
        model_step=model_step(orthomosaic, _wanted_gsd(settings, engine)),
        map_step=map_step(orthomosaic, settings.out_gsd),
        panel_width=_panel_width(engine, batch_size, probabilities, max_memory_mb),
    )


def _wanted_gsd(settings: MapSettings, engine: Engine) -> float | None:
    if settings.gsd == "off":
        return None
    return engine.gsd_m if settings.gsd == "auto" else settings.gsd


def _announce(orthomosaic: Orthomosaic, engine: Engine, settings: MapSettings) -> Iterator[str]:
    """What a user wants to know of bands and ground sampling distance before hours are spent."""
    if orthomosaic.guess is not None:
        yield f"attention: {orthomosaic.guess}"
    wanted = _wanted_gsd(settings, engine)
    if orthomosaic.gsd_m is None or wanted is None:
        return
    step = model_step(orthomosaic, wanted)
    if step == (1.0, 1.0):
        yield f"{orthomosaic.path.name}: {orthomosaic.gsd_m:.3g} m a pixel, as the model knows it"
        return
    coarse = min(step) < 1 / COARSE
    yield (
        f"{orthomosaic.path.name}: {orthomosaic.gsd_m:.3g} m a pixel; the model sees it at {wanted:.3g} m"
        + ("; finer things than its pixels will be missed" if coarse else "")
    )


def _panel_width(engine: Engine, batch_size: int, probabilities: bool, max_memory_mb: int | None) -> int:
    """Columns of the model's grid whose probabilities fit into the memory that is allowed."""
    classes, tile = len(engine.class_map), engine.tile
    column = tile * (4 * classes + 1)  # what the blender holds
    column += tile * (4 + 4 + 1) + 16 * classes  # a stripe on its way to the file
    column += tile * 12 * classes if probabilities else 0  # shares, percent or halves, and what is written of them
    waiting = (5 * batch_size + 2) * tile**2 * 4 + 2 * batch_size * classes * tile**2 * 4
    fixed = GDAL_CACHE_BYTES + waiting
    if max_memory_mb is None:
        return max(2 * tile, min((DEFAULT_MEMORY_MB * 10**6 - fixed) // column, PANEL_WIDTH))
    least = math.ceil((fixed + 2 * tile * column) / 1e6)
    if max_memory_mb < least:
        raise RasterError(
            f"--max-memory {max_memory_mb} is too little for {engine.name} with {classes} classes, tiles of {tile} "
            f"pixels and batches of {batch_size}; give it {least} MB or more."
        )
    return min((max_memory_mb * 10**6 - fixed) // column, PANEL_WIDTH)


def _missing(plan: MapPlan, stripes: StripeFolder, tally: Tally) -> list[Section]:
    """The runs of stripes that are not done yet; the others are counted."""
    missing = []
    for panel in range(len(plan.panels)):
        for done, group in groupby(range(plan.stripes), key=partial(stripes.is_sound, panel)):
            run = list(group)
            section = Section(panel, run[0], run[-1] + 1)
            if done:
                tally.found(section)
            else:
                missing.append(section)
    return missing


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RasterioError) as error:  # reading errors are RasterErrors by now, so this one is about writing
        raise RasterError(f"{out} cannot be written ({error}); is the disk full?") from error


def _warnings(orthomosaic: Orthomosaic, areas: tuple[ClassArea, ...], bad_blocks: tuple[Block, ...]) -> Iterator[str]:
    if bad_blocks:
        count = len(bad_blocks)
        first = ", ".join(f"row {row} column {col}" for row, col, _, _ in bad_blocks[:5])
        yield (
            f"{count} block{'s' * (count > 1)} of {orthomosaic.path} could not be read and "
            f"{'is' if count == 1 else 'are'} 255 in the map: from {first}{f' and {count - 5} more' * (count > 5)}."
        )
    if not any(area.pixels for area in areas):
        yield f"{orthomosaic.path} has no valid pixel: the map is empty."


def _peak_memory_mb() -> float | None:
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")  # of this program alone; getrusage counts the one that started it, too
    if status.exists():
        peak_kb = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if peak_kb is not None:
            return int(peak_kb) * 1024 / 1e6
    import resource  # POSIX only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux units of 1024
