"""The result for the terminal: readable from 80 columns on, the user's names never taken for markup."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from salakseg.check.finding import Finding, Severity
from salakseg.check.result import CheckResult, Part
from salakseg.evaluate.formats import percent_text

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}
_EXAMPLES = 3


def render_check(result: CheckResult) -> RenderableType:
    """Verdict, findings and parts for `rich`."""
    parts: list[RenderableType] = [
        Text(result.verdict, style="bold red" if result.has_errors else "bold green"),
        Text(result.caption),
    ]
    if result.findings:
        table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        for finding in result.findings:
            severity = Text(finding.severity.value, style=_STYLES[finding.severity])
            table.add_row(severity, Text(f"{finding.count:,}"), _words(finding))
        parts += [Text(), table]
    if result.parts:
        parts += [_parts_table(result), Text()]
    return Group(*parts)


def _words(finding: Finding) -> Text:
    text = Text(f"{finding.title}. ", style="bold")
    text.append(Text(f"{finding.message} {finding.remedy}", style="not bold"))
    for path, detail in finding.places[:_EXAMPLES]:
        text.append(Text(f"\n  {path}" + (f": {detail}" if detail else ""), style="not bold dim"))
    left = finding.count - _EXAMPLES
    if left > 0 and len(finding.examples) > _EXAMPLES:
        text.append(Text(f"\n  and {left:,} more", style="not bold dim"))
    return text


def _parts_table(result: CheckResult) -> RenderableType:
    """Class shares by part: classes down, so that many of them fit."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("percent of labelled pixels", overflow="fold")
    for part in result.parts:
        table.add_column(part.name, justify="right", no_wrap=True)
    table.add_row("patches", *(f"{part.patches:,}" for part in result.parts))
    for c in result.class_map.classes:
        table.add_row(Text(c.name), *(_share(part, c.id) for part in result.parts))
    return table


def _share(part: Part, class_id: int) -> Text:
    total = int(part.pixels_K.sum())
    return Text(percent_text(int(part.pixels_K[class_id]) / total) if total else "-")
