"""Plain tables for the terminal."""

import math
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = (), fold: str = "") -> Table:
    """A table without lines.

    Args:
        columns: Headings.
        rows: Cells; markup in them stays text.
        left: Headings of the columns that hold words; figures stand to the right.
        fold: The column that gives way where the terminal is narrow.
    """
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in columns:
        justify: Literal["left", "right"] = "left" if heading in left else "right"
        made.add_column(heading, justify=justify, overflow="fold", no_wrap=heading != fold)
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def show(console: Console, made: Table) -> None:
    """Prints a table, as wide as it wants to be where there is no terminal to fit into."""
    if not console.is_terminal:
        wanted = console.measure(made, options=console.options.update(width=10_000)).maximum
        console = Console(file=console.file, quiet=console.quiet, width=wanted)
    console.print(made)


def score(value: float | None) -> str:
    """An mIoU, or a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def duration(seconds: float) -> str:
    """A time in the two largest units that it has; a dash where it is unknown."""
    if math.isnan(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
