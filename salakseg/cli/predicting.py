"""``salakseg predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.choices import Device
from salakseg.cli.console import progress_bar, say, stdout
from salakseg.errors import EngineError, RasterError

if TYPE_CHECKING:
    from salakseg.mapping.predict import MapSummary
    from salakseg.network.engine import Engine

TILE = 512
"""Side of the tiles that a checkpoint is run on, in pixels; an ONNX file has its own."""


def predict(
    orthomosaic: Annotated[Path, typer.Argument(help="GeoTIFF or VRT with red, green and blue.")],
    out: Annotated[Path, typer.Option(help="Land-cover map to write, a GeoTIFF.")],
    model: Annotated[
        Path | None, typer.Option(help="A .pt or .onnx file; default: the best checkpoint of the newest run.")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that neighbouring tiles share; default: a quarter of a tile.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles at a time.")] = 4,
    preview: Annotated[
        Path | None, typer.Option(help="Also write a PNG with orthomosaic and map side by side.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    allow_no_crs: Annotated[bool, typer.Option(help="Accept an orthomosaic without a CRS.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a map that exists.")] = False,
) -> None:
    """Turn an orthomosaic into a land-cover map."""
    from salakseg.mapping.predict import predict_map
    from salakseg.mapping.preview import write_preview
    from salakseg.project import load_project

    if model is None:
        model = load_project().newest_best()
        say(f"model: {model}")
    _check_early(orthomosaic, out, preview, overwrite)
    engine = open_engine(model, device)
    say(f"runs on {engine.runs_on}")
    with progress_bar("mapping", "tiles") as progress:
        summary = predict_map(
            orthomosaic,
            out,
            engine,
            overlap=overlap,
            batch_size=batch_size,
            overwrite=overwrite,
            allow_no_crs=allow_no_crs,
            progress=progress,
        )
    _show(summary)
    if preview is not None:
        write_preview(orthomosaic, out, preview, engine.class_map)
        say(f"preview: {preview}")


def _check_early(orthomosaic: Path, out: Path, preview: Path | None, overwrite: bool) -> None:
    """What can be refused before a model is loaded or hours are spent; the mapping itself checks the rest."""
    if not orthomosaic.exists():
        raise RasterError(f"{orthomosaic} does not exist.")
    for path, suffixes in ((out, (".tif", ".tiff")), (preview, (".png",))):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise RasterError(f"{path} must end in {' or '.join(suffixes)}.")
        if not path.resolve().parent.is_dir():
            raise RasterError(f"The folder of {path} does not exist; make it first.")
    if out.exists() and not overwrite:
        raise RasterError(f"{out} exists; add --overwrite to replace it.")


def open_engine(model: Path, device: Device) -> "Engine":
    """ONNX Runtime for an ONNX file and for any model on a CPU, torch for a checkpoint on a GPU.

    Raises:
        EngineError: The file is neither, or cannot be used.
        CheckpointError: The checkpoint cannot be used.
    """
    from salakseg.network.onnx_engine import OnnxEngine, nvidia_driver_present

    on_gpu = device in (Device.cuda, Device.mps) or (device is Device.auto and nvidia_driver_present())
    if model.suffix == ".onnx":
        if device is Device.mps:
            raise EngineError("An .onnx file runs on the CPU or on CUDA; leave --device mps out.")
        engine = OnnxEngine(model, cuda=on_gpu)
        if on_gpu and "CUDA" not in engine.runs_on:
            say("attention: ONNX Runtime cannot use the GPU; does onnxruntime-gpu fit the CUDA installed here?")
        return engine
    if model.suffix not in (".pt", ".pth"):
        raise EngineError(f"{model} is neither a checkpoint (.pt) nor an exported model (.onnx).")
    if on_gpu:
        from salakseg.network.device import pick_device
        from salakseg.network.torch_engine import TorchEngine

        chosen = pick_device(device.value)
        if chosen != "cpu":
            return TorchEngine(model, chosen, TILE)
    from salakseg.export.cache import cached_onnx

    path, made = cached_onnx(model, TILE)
    if made:
        say(f"converted once for ONNX Runtime: {path}")
    return OnnxEngine(path)


def _show(summary: "MapSummary") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("class", "pixels", "share"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, count, share in zip(summary.class_names, summary.class_counts, summary.class_shares, strict=True):
        table.add_row(Text(name), f"{count:,}", f"{100 * share:.2f} %")
    stdout.print(table)
    for warning in summary.warnings:
        say(f"attention: {warning}")
    memory = "" if summary.peak_memory_mb is None else f", {summary.peak_memory_mb:,.0f} MB at most"
    say(
        f"map: {summary.out} ({summary.width} x {summary.height}, {100 * summary.valid_share:.1f} % valid; "
        f"{summary.tiles_run} tiles, {summary.tiles_skipped} empty; {summary.seconds:.1f} s, "
        f"{summary.megapixels_per_second:.2f} Mpx/s{memory})"
    )
