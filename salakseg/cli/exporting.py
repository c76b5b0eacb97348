"""``salakseg export``."""

from pathlib import Path
from typing import Annotated

import typer

from salakseg.cli.choices import Weights, as_choice
from salakseg.cli.console import say


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, such as a run's checkpoints/best.pt.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    size: Annotated[int, typer.Option(help="Side of the square input in pixels.")] = 512,
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
    overwrite: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
) -> None:
    """Write a checkpoint as one ONNX file for QGIS (Deepness), servers and laptops."""
    from salakseg.export.onnx import export_onnx

    exported = export_onnx(
        checkpoint,
        out,
        tile=size,
        weights=as_choice(weights),
        heads=heads,
        data_root=data_root,
        overwrite=overwrite,
    )
    parity = exported.parity
    say(
        f"{exported.path}: {exported.size_mb:.1f} MB; agrees with torch on {100 * parity.agreement:.4f} % of the "
        f"pixels of {parity.tiles} tiles ({exported.real_tiles} real), largest difference {parity.max_difference:.1e}"
    )
