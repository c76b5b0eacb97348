"""``salakseg export``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.choices import Normalisation, Outputs, Precision, Weights, as_choice
from salakseg.cli.console import progress_bar, say, stdout
from salakseg.cli.patch_folder import is_from_environment

if TYPE_CHECKING:
    from salakseg.export.onnx import Exported
    from salakseg.export.settings import ExportSettings
    from salakseg.network.checkpoint import Checkpoint


def export(
    context: typer.Context,
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Checkpoint, such as a run's checkpoints/best.pt; or the folder of a run or a bundle."),
    ],
    out: Annotated[Path | None, typer.Option(help="ONNX file to write; not needed with --compare or --bundle.")] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side of the square input in pixels. Default: 512; in a bundle that of the training crops."),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Any height and width; QGIS needs --size.")] = False,
    normalisation: Annotated[
        Normalisation, typer.Option(help="metadata: told there, QGIS needs this; baked: done inside, input 0 to 255.")
    ] = Normalisation.metadata,
    outputs: Annotated[
        Outputs,
        typer.Option(
            help="prob: class probabilities, QGIS needs this; prob+confidence: with the highest; argmax: class ids."
        ),
    ] = Outputs.prob,
    precision: Annotated[
        Precision, typer.Option(help="fp16: half the size, for GPUs; int8: calibrated on the run's train patches.")
    ] = Precision.fp32,
    weights: Annotated[
        Weights | None, typer.Option(help="Which weights to export. Default: what the checkpoint prefers, ema.")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(help="mean, prob, vote, diversenet, or the number of a head. Default: what it prefers, mean."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(envvar="SALAKSEG_DATA_ROOT", help="Patches for the comparison; default: where they were."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show all precisions side by side.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder to write as a release: weights, ONNX, card, report.")
    ] = None,
    sidecars: Annotated[bool, typer.Option(help="Write STAC item, model card and script beside the file.")] = True,
    licence: Annotated[str, typer.Option(help="Licence of the model, such as CC-BY-4.0.")] = "unspecified",
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the top of the model card.")] = None,
    lean: Annotated[
        bool, typer.Option("--lean", help="A small bundle: the moving average alone, its weights in float16.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
) -> None:
    """Write a checkpoint as one ONNX file for QGIS (Deepness), servers and laptops."""
    if out is None and bundle is None and not compare:
        raise typer.BadParameter("name the file to write with --out, or a folder with --bundle, or ask for --compare.")
    if size is not None and dynamic:
        raise typer.BadParameter("--size is one size, --dynamic is any; give one of the two.")
    if lean and bundle is None:
        raise typer.BadParameter("--lean is for --bundle.")
    if bundle is not None and outputs is Outputs.argmax:
        raise typer.BadParameter("--outputs argmax is for --out: predict, which opens bundles, needs probabilities.")
    from salakseg.cli.model_paths import checkpoint_at
    from salakseg.export.settings import DEFAULT_SIZE, ExportSettings
    from salakseg.network.checkpoint import load_checkpoint

    checkpoint = checkpoint_at(checkpoint)
    loaded = load_checkpoint(checkpoint)
    settings = ExportSettings(
        variant=loaded.choose(as_choice(weights), heads),
        size=None if dynamic else size if size is not None else DEFAULT_SIZE if bundle is None else loaded.default_tile,
        normalisation=normalisation.value,
        outputs=outputs.value,
        precision=precision.value,
        licence=licence,
    )
    if lean and settings.variant.weights == "student":
        raise typer.BadParameter("--lean keeps the moving average alone; add --weights ema, or leave --lean out.")
    if bundle is not None:
        from salakseg.export.bundle import check_folder

        check_folder(bundle, overwrite)  # before minutes are spent on the rest
    if data_root is None or is_from_environment(context, "data_root"):
        data_root = _projects_data(loaded, data_root)
    if compare:
        _compare(checkpoint, settings, data_root)
    if out is not None:
        _write(checkpoint, loaded, out, settings, data_root, overwrite, sidecars, note or [])
    if bundle is not None:
        _bundle(checkpoint, loaded, bundle, settings, data_root, overwrite, note or [], lean)


def _projects_data(checkpoint: "Checkpoint", in_environment: Path | None) -> Path | None:
    """The patches of the environment or the project, where those of the run are not where they were."""
    from salakseg.project import load_project

    if os.path.isdir(checkpoint.data_root or ""):  # Path.is_dir fails where one may not look
        return None
    root = in_environment or load_project().data_root
    return root if root is not None and os.path.isdir(root) else None


def _write(
    checkpoint: Path,
    loaded: "Checkpoint",
    out: Path,
    settings: "ExportSettings",
    data_root: Path | None,
    overwrite: bool,
    sidecars: bool,
    notes: list[str],
) -> None:
    from salakseg.export.onnx import export_onnx
    from salakseg.export.sidecars import check_sidecars, find_report, write_sidecars

    report = find_report(checkpoint, loaded) if sidecars else None
    if sidecars:
        check_sidecars(out, overwrite)
    with progress_bar("comparing with torch", "tiles") as bar:
        exported = export_onnx(checkpoint, out, settings, data_root=data_root, overwrite=overwrite, progress=bar)
    _tell(exported, str(exported.path))
    if sidecars:
        for path in write_sidecars(out, loaded, report, notes):
            say(f"{path}")


def _bundle(
    checkpoint: Path,
    loaded: "Checkpoint",
    folder: Path,
    settings: "ExportSettings",
    data_root: Path | None,
    overwrite: bool,
    notes: list[str],
    lean: bool,
) -> None:
    import tempfile

    from salakseg.export.bundle import write_bundle
    from salakseg.export.onnx import export_onnx
    from salakseg.export.sidecars import find_report

    report = find_report(checkpoint, loaded)
    with tempfile.TemporaryDirectory(prefix="salakseg-") as temporary:
        model = Path(temporary) / "model.onnx"
        with progress_bar("comparing with torch", "tiles") as bar:
            exported = export_onnx(checkpoint, model, settings, data_root=data_root, progress=bar)
        _tell(exported, f"{folder}/{model.name}")
        write_bundle(checkpoint, model, folder, report=report, notes=notes, overwrite=overwrite, lean=lean)
    say(f"{folder}: the bundle" + ("" if report else ", without a report: make one with `salakseg report`"))


def _compare(checkpoint: Path, settings: "ExportSettings", data_root: Path | None) -> None:
    from rich.table import Table

    from salakseg.export.compare import compare_precisions

    with progress_bar("comparing precisions", "tiles") as bar:
        comparison = compare_precisions(checkpoint, settings, data_root=data_root, progress=bar)
    columns = ("", "MB", "nodes", "ms", "agrees", "mIoU", "worst class", "gate")
    table = Table(*columns, caption=None if comparison.real else "compared on noise: no patches are at hand")
    for row in comparison.rows:
        loss = row.parity.loss
        table.add_row(
            row.precision,
            f"{row.size_mb:.1f}",
            str(row.nodes),
            f"{row.milliseconds:.0f}",
            f"{100 * row.parity.agreement:.3f}%",
            "no labels" if loss is None else f"{loss.miou[1]:.4f} ({-loss.points:+.2f})",
            "" if loss is None else f"{loss.worst[0]} {-loss.worst[1]:+.2f}",
            row.objection or "holds",
        )
    stdout.print(table)
    for reason in comparison.left_out.values():
        say(reason)
    say(comparison.advice)


def _tell(exported: "Exported", name: str) -> None:
    """One line on the file, one on its accuracy where labels are at hand, and one if another size is better."""
    from salakseg.evaluate.formats import counted

    parity, settings = exported.parity, exported.settings
    where = "" if exported.real else " of noise, as the run's patches are not at hand"
    say(
        f"{name}: {settings.precision}, {exported.size_mb:.1f} MB, {exported.nodes} nodes; agrees with torch "
        f"on {100 * parity.agreement:.4f} % of the pixels of {counted(parity.tiles, 'tile', 'tiles')}{where}, largest "
        f"difference {parity.max_difference:.1e}"
    )
    if parity.loss is not None:
        before, after = parity.loss.miou
        pairs = zip(parity.loss.names, parity.loss.before, parity.loss.after, strict=True)
        classes = ", ".join(f"{name} {new:.4f} ({100 * (new - old):+.2f})" for name, old, new in pairs)
        say(f"mIoU without background {after:.4f} ({100 * (after - before):+.2f} points against torch): {classes}")
        if parity.loss.unjudged:
            say(f"not judged, as none of these tiles shows them: {', '.join(parity.loss.unjudged)}")
    if settings.size not in (None, exported.default_tile):
        say(f"maps are better with --size {exported.default_tile}, the size that this network was trained at")
