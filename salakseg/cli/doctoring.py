"""``salakseg doctor``."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.console import say, stdout

if TYPE_CHECKING:
    from rich.console import RenderableType

    from salakseg.doctor.finding import Finding


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for other programs.")] = False,
) -> None:
    """Say what works on this machine and what is broken, with a remedy for each; the status is 1 if anything is.

    Nothing is changed. It takes half a minute to two, most of it for a loader worker that is really started.
    """
    from salakseg.doctor.examine import examine
    from salakseg.doctor.finding import Status

    found: list[tuple[str, Finding]] = []
    for name, finding in examine():
        found.append((name, finding))
        if not as_json:
            stdout.print(row(name, finding))
    count = {status: sum(finding.status is status for _, finding in found) for status in Status}
    if as_json:
        content = {"ok": not count[Status.BROKEN], "checks": [{"check": n} | f.to_dict() for n, f in found]}
        print(json.dumps(content, indent=1))
    else:
        say(", ".join(f"{number} {status.value}" for status, number in count.items()))
    if count[Status.BROKEN]:
        raise typer.Exit(1)


def row(name: str, finding: "Finding") -> "RenderableType":
    """A line of the screen, and the remedy under it."""
    from rich.table import Table
    from rich.text import Text

    style = {"ok": "green", "warning": "yellow", "broken": "bold red"}[finding.status.value]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=7)
    table.add_column(width=15)
    table.add_column(overflow="fold")
    table.add_row(Text(finding.status.value, style), Text(name), Text(finding.found))
    if finding.remedy:
        table.add_row("", "", Text(f"-> {finding.remedy}", "bold" if style != "green" else "dim"))
    return table
