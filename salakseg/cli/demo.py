"""``salakseg demo``."""

from pathlib import Path
from typing import Annotated

import typer

from salakseg.cli.console import progress_bar, say, stdout


def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic plantation.")] = 1,
) -> None:
    """Walk the whole way once, on a small synthetic plantation: train, report, export, map. Takes a few minutes."""
    from salakseg.demo import run_demo
    from salakseg.evaluate.terminal import render_terminal

    result = run_demo(out, seed, say, progress_bar)
    stdout.print(render_terminal(result.report))
    unseen = result.unseen
    lines = [
        "",
        f"mIoU on the unseen orthomosaic: {unseen.miou_without_background.text} without background, "
        f"{unseen.miou_with_background.text} with it",
        "",
        "Files:",
        *(f"  {path}: {what}" for path, what in result.files.items()),
        "",
        f"Go on with, in {out}:",
        *(f"  {command}" for command in result.commands),
    ]
    for line in lines:
        stdout.print(line, markup=False, soft_wrap=True)
