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

    for line in run_demo(out, seed, say, progress_bar):
        stdout.print(line, markup=False)
