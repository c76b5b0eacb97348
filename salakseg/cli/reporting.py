"""``salakseg report``."""

from pathlib import Path
from typing import Annotated

import typer

from salakseg.cli.choices import Device, Part, Weights
from salakseg.cli.console import progress_bar, say, stdout


def report(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, or a run's folder for its best one.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report's files; default: report/ of the run.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(envvar="SALAKSEG_DATA_ROOT", help="Where the patches are; default: where they were.")
    ] = None,
    class_mapping: Annotated[
        Path | None, typer.Option(envvar="SALAKSEG_CLASS_MAPPING", help="Checked against the checkpoint's classes.")
    ] = None,
    split: Annotated[Part | None, typer.Option(help="Default: test, or val where there is no test part.")] = None,
    weights: Annotated[Weights, typer.Option(help="Which weights to judge.")] = Weights.ema,
    target: Annotated[str, typer.Option(help="Target to compare with: a name or a TOML file.")] = "diversenet",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
) -> None:
    """Say how good a checkpoint is, class by class, against the DiverseNet target."""
    from salakseg.classes import ClassMap
    from salakseg.evaluate.judge import judge
    from salakseg.evaluate.report import write_report
    from salakseg.evaluate.targets import load_target
    from salakseg.evaluate.terminal import render_terminal
    from salakseg.network.device import pick_device
    from salakseg.project import load_project

    if checkpoint.is_dir():  # a run
        checkpoint = checkpoint / "checkpoints" / "best.pt"
    with progress_bar("evaluate", "patches") as progress:
        result = judge(
            checkpoint,
            load_target(target),
            data_root=data_root,
            fallback_root=load_project().data_root,
            class_map=None if class_mapping is None else ClassMap.from_csv(class_mapping),
            part=None if split is None else split.value,
            weights=weights.value,
            device=pick_device(device.value),
            progress=progress,
        )
    stdout.print(render_terminal(result))
    folder = out or _report_folder(checkpoint)
    write_report(result, folder)
    say(f"report: {folder} (report.json, report.png, per_class.csv, confusion.csv)")


def _report_folder(checkpoint: Path) -> Path:
    """``report/`` of the run, or of the checkpoint's own folder where it was copied out of a run."""
    folder = checkpoint.resolve().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "report"
