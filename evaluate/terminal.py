"""How a report is shown in a terminal."""

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from salakseg.evaluate.metrics import count_text, figure_text, percent_text, points_text
from salakseg.evaluate.report import Report

_WIDEST_MATRIX = 12  # classes; more columns do not fit 80 characters


def render_terminal(report: Report) -> RenderableType:
    """The report for `rich`, in ASCII apart from table lines and the user's names, readable from 80 columns on."""
    parts: list[RenderableType] = [
        Text(report.title, style="bold"),
        Text(report.caption),
        Text(),
        _class_table(report),
        Text(),
        _summary(report),
        Text(),
        _matrix_table(report),
    ]
    if report.remarks:
        remarks = Table.grid(padding=(0, 1))
        for remark in report.remarks:
            remarks.add_row("-", Text(remark))
        parts += [Text(), Text("Remarks", style="bold"), remarks]
    return Group(*parts)


def _class_table(report: Report) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")
    for heading in ("id", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("class", overflow="fold")
    for heading in ("pixels", "%", "IoU", "prec.", "recall", "F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    comparison = report.comparison if report.comparison is not None and report.comparison.matched else None
    if comparison is not None:
        table.add_column("target", justify="right", no_wrap=True)
        table.add_column("gap pts", justify="right", no_wrap=True)
    metrics = report.metrics
    pixels = max(1, int(metrics.support.sum()))
    for c in report.class_map.classes:
        swatch = Text("  ", Style(bgcolor="rgb({},{},{})".format(*c.color)))
        row = [Text(str(c.id)), swatch, Text(c.name), Text(count_text(int(metrics.support[c.id])))]
        row.append(Text(percent_text(metrics.support[c.id] / pixels)))
        for values in (metrics.iou, metrics.precision, metrics.recall, metrics.f1):
            row.append(Text(figure_text(values[c.id])))
        if comparison is not None:
            row += [Text(comparison.figure_text(c.id)), Text(points_text(comparison.gap[c.id]))]
            row[-1].stylize("green" if comparison.gap[c.id] >= 0 else "red")
        table.add_row(*row)
    return table


def _summary(report: Report) -> Table:
    metrics = report.metrics
    table = Table.grid(padding=(0, 1))
    for heading, mean in (
        ("mIoU without background", metrics.miou_without_background),
        ("mIoU with background", metrics.miou_with_background),
        ("mean F1 without background", metrics.f1_without_background),
        ("mean F1 with background", metrics.f1_with_background),
    ):
        table.add_row(Text(heading), Text(mean.text, style="bold"))
    table.add_row(Text("overall accuracy"), Text(figure_text(metrics.overall_accuracy), style="bold"))
    if report.comparison is not None:
        style = "green" if report.comparison.headline_gap >= 0 else "red"
        heading = f"target {report.comparison.target.name}"
        table.add_row(Text(heading), Text(report.comparison.headline_text, style=style))
    return table


def _matrix_table(report: Report) -> RenderableType:
    classes = report.class_map.classes
    if len(classes) > _WIDEST_MATRIX:
        return Text(f"The confusion matrix of {len(classes)} classes is too wide to print; see confusion.csv.")
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("class", overflow="fold")
    for c in classes:
        table.add_column(str(c.id), justify="right", no_wrap=True, min_width=4)
    for c, shares in zip(classes, report.matrix.normalised(), strict=True):
        cells = [Text(percent_text(share)) for share in shares]
        cells[c.id].stylize("bold")
        table.add_row(Text(str(c.id)), Text(c.name), *cells)
    title = Text("Confusion: percent of the true pixels of a row's class, by predicted id", style="bold")
    return Group(title, table)
