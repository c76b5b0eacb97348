"""``salakseg doctor``."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from salakseg.cli.console import say, stdout

if TYPE_CHECKING:
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
            tell(name, finding)
    count = {status: sum(finding.status is status for _, finding in found) for status in Status}
    if as_json:
        content = {"ok": not count[Status.BROKEN], "checks": [{"check": n} | f.to_dict() for n, f in found]}
        print(json.dumps(content, indent=1))
    else:
        say(", ".join(f"{number} {status.value}" for status, number in count.items()))
    if count[Status.BROKEN]:
        raise typer.Exit(1)


def tell(name: str, finding: "Finding") -> None:
    """Prints what was found, and the remedy under it: in one line, as it may hold a command to copy."""
    from rich.table import Table
    from rich.text import Text

    from salakseg.cli.tables import show

    style = {"ok": "green", "warning": "yellow", "broken": "bold red"}[finding.status.value]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=7)
    table.add_column(width=15)
    table.add_column(overflow="fold")
    table.add_row(Text(finding.status.value, style), Text(name), Text(finding.found))
    show(stdout, table)
    if finding.remedy:
        stdout.print(Text(f"         -> {finding.remedy}", "dim" if style == "green" else "bold"), soft_wrap=True)
