"""A report for the terminal: ASCII apart from table lines and the user's names, readable from 80 columns on."""

import numpy as np
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from salakseg.evaluate.findings import Contender, Findings
from salakseg.evaluate.formats import (
    count_text,
    figure_text,
    percent_text,
    points_range_text,
    points_text,
    range_text,
)
from salakseg.evaluate.metrics import OVERALL, TITLES
from salakseg.evaluate.report import Report
from salakseg.evaluate.sentences import invention_text

_LEAST_NAME = 8  # characters of a class name that a narrow terminal still shows
_WIDEST_MATRIX = 12  # classes; more columns do not fit 80 characters


def render_terminal(report: Report) -> RenderableType:
    """The report for `rich`."""
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
    if report.findings is not None:
        parts += _findings(report, report.findings)
    if report.diagnosis is not None:
        parts += [Text(), Text("Training", style="bold"), Text(report.diagnosis.paragraph)]
    if report.recorded is not None:
        parts += [Text(), _recorded_table(report)]
    if report.remarks:
        remarks = Table.grid(padding=(0, 1))
        for remark in report.remarks:
            remarks.add_row("-", Text(remark))
        parts += [Text(), Text("Remarks", style="bold"), remarks]
    return Group(*parts)


def _findings(report: Report, findings: Findings) -> list[RenderableType]:
    """The sections that need the patches."""
    title = f"Variants, by mIoU without background; difference to the first in points, of {findings.unit_text}"
    parts: list[RenderableType] = [Text(), Text(title, style="bold"), _contenders(findings.variants)]
    if findings.cost is not None:
        parts.append(Text(f"The best variant, {findings.best.name}, takes {findings.cost.text}."))
    for weights, share_NN in findings.disagreement.items():
        apart = share_NN[np.triu_indices(len(share_NN), 1)]
        whose = "EMA" if weights == "ema" else "student"
        parts.append(Text(f"Two heads of the {whose} differ on {percent_text(float(apart.mean()))} % of the pixels."))
    if findings.runs:
        parts += [Text(), Text("Runs side by side, on the same patches", style="bold"), _contenders(findings.runs)]
    parts += [Text(), _threshold_table(report, findings), Text(), _failures(report, findings)]
    return parts


def _table(*columns: tuple[str, str]) -> Table:
    """A table without lines; columns are a heading and "left" or "right"."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style="bold")
    for heading, side in columns:
        if side == "left":
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def _class_table(report: Report) -> Table:
    table = _table(("id", "right"), ("", "right"), ("class", "left"))
    table.columns[-1].min_width = _LEAST_NAME
    interval = report.findings is not None
    headings = ["pixels", "%", "IoU", *(["95 %"] if interval else []), "prec.", "recall"]
    comparison = report.comparison if report.comparison is not None and report.comparison.matched else None
    if comparison is not None:
        headings += ["target", "gap pts"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    metrics = report.metrics
    pixels = max(1, int(metrics.support.sum()))
    ends = report.interval("iou")
    for c in report.class_map.classes:
        swatch = Text("  ", Style(bgcolor="rgb({},{},{})".format(*c.color)))
        row = [Text(str(c.id)), swatch, Text(c.name), Text(count_text(int(metrics.support[c.id])))]
        row.append(Text(percent_text(metrics.support[c.id] / pixels)))
        row.append(Text(figure_text(metrics.iou[c.id]), style="bold"))
        if interval:
            row.append(Text(range_text(*ends[c.id].ends)))
        row += [Text(figure_text(values[c.id])) for values in (metrics.precision, metrics.recall)]
        if comparison is not None:
            row += [Text(comparison.figure_text(c.id)), Text(points_text(comparison.gap[c.id]))]
            row[-1].stylize("green" if comparison.gap[c.id] >= 0 else "red")
        table.add_row(*row)
    return table


def _summary(report: Report) -> Table:
    table = Table.grid(padding=(0, 1))
    for name in OVERALL:
        table.add_row(
            Text(TITLES[name]),
            Text(report.metrics.overall_text(name), style="bold"),
            Text(range_text(*report.interval(name).ends)),
        )
    if report.findings is not None:
        for name, mean in report.findings.boundary_means.items():
            ends = range_text(*report.interval(name).ends)
            table.add_row(Text(TITLES[name]), Text(mean.text, style="bold"), Text(ends))
        calibration = report.findings.calibration
        error = Text(figure_text(calibration.ece), style="bold")
        table.add_row(Text("calibration error (ECE)"), error, Text(range_text(*calibration.interval.ends)))
    if report.comparison is not None and report.headline_gap_interval is not None:
        style = "green" if report.comparison.headline_gap >= 0 else "red"
        heading = f"target {report.comparison.target.name}"
        interval = points_range_text(*report.headline_gap_interval.ends)
        table.add_row(Text(heading), Text(report.comparison.headline_text, style=style), Text(interval))
    return table


def _matrix_table(report: Report) -> RenderableType:
    classes = report.class_map.classes
    if len(classes) > _WIDEST_MATRIX:
        return Text(f"The confusion matrix of {len(classes)} classes is too wide to print; see confusion.csv.")
    table = _table(("id", "right"), ("class", "left"))
    for c in classes:
        table.add_column(str(c.id), justify="right", no_wrap=True, min_width=4)
    for c, shares in zip(classes, report.matrix.normalised(), strict=True):
        cells = [Text(percent_text(share)) for share in shares]
        cells[c.id].stylize("bold")
        table.add_row(Text(str(c.id)), Text(c.name), *cells)
    title = Text("Confusion: percent of the true pixels of a row's class, by predicted id", style="bold")
    return Group(title, table)


def _contenders(contenders: tuple[Contender, ...]) -> RenderableType:
    told = invention_text(contenders)
    return Group(_contender_table(contenders), Text(told)) if told else _contender_table(contenders)


def _contender_table(contenders: tuple[Contender, ...]) -> Table:
    table = _table(("", "left"), ("", "left"))
    for heading in ("mIoU", "with bg", "cl.", "diff.", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in contenders:
        scores = one.metrics.miou_without_background.value, one.metrics.miou_with_background.value
        interval = "" if one.is_subject else points_range_text(*one.interval.ends)
        style = "bold" if one.is_best else ""
        table.add_row(
            Text("best" if one.is_best else "", style="bold green"),
            Text(one.name, style=style),
            *(Text(figure_text(score), style=style) for score in scores),
            Text(str(one.metrics.miou_without_background.classes)),
            Text("" if one.is_subject else points_text(one.difference)),
            Text(interval),
        )
    return table


def _threshold_table(report: Report, findings: Findings) -> RenderableType:
    analysis = findings.thresholds
    table = _table(("class", "left"))
    if analysis.present is not None:
        for heading in ("now", "kept %", "right %"):
            table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("better", "kept %", "right %", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in report.class_map.classes:
        row = [Text(c.name)]
        for marked in (analysis.present, analysis.recommended):
            if marked is None:
                continue
            row.append(Text(f"{marked.threshold[c.id]:.2f}"))
            row.append(Text(percent_text(marked.coverage[c.id])))
            row.append(Text(percent_text(marked.precision[c.id])))
        row.append(Text(range_text(*analysis.recommended.interval[c.id].ends)))
        table.add_row(*row)
    labeller = "the EMA" if analysis.labeller == "ema" else "the student"
    title = (
        f"Pseudo-labels by {labeller}: thresholds now, and for {100 * analysis.wanted:.0f} % right of what is kept "
        "(1.00 keeps nothing)"
    )
    kept = f"Kept of all pixels: {percent_text(analysis.recommended_kept)} %"
    if analysis.present is not None:
        kept += f", now {percent_text(analysis.present_kept)} %"
    return Group(Text(title, style="bold"), table, Text(f"{kept}."))


def _failures(report: Report, findings: Findings) -> RenderableType:
    names = report.class_map.names
    pairs = _table(("true class", "left"), ("taken for", "left"))
    for heading in ("pixels", "% of class", "% of errors"):
        pairs.add_column(heading, justify="right", no_wrap=True)
    for pair in findings.pairs:
        pairs.add_row(
            Text(names[pair.truth]),
            Text(names[pair.prediction]),
            Text(count_text(pair.pixels)),
            Text(percent_text(pair.share_of_truth)),
            Text(percent_text(pair.share_of_errors)),
        )
    parts: list[RenderableType] = [Text("Most confused classes", style="bold"), pairs]
    errors = findings.errors
    if not np.isnan(errors.near):
        reach = " or ".join(str(distance) for distance in errors.distances[:3])
        parts.append(
            Text(
                f"{percent_text(errors.near)} % of the wrong pixels lie within {reach} pixels of a border, where "
                f"{percent_text(errors.pixels_near)} % of all pixels lie."
            )
        )
    if len(findings.folders) > 1:
        folders = _table(("folder", "left"))
        for heading in ("patches", "mIoU", "with bg", "classes"):
            folders.add_column(heading, justify="right", no_wrap=True)
        for place in findings.folders:
            figures = place.metrics.miou_without_background.value, place.metrics.miou_with_background.value
            covers = Text(str(place.metrics.miou_without_background.classes))
            count = Text(f"{place.patches:,}")
            folders.add_row(Text(place.name), count, *(Text(figure_text(figure)) for figure in figures), covers)
        parts += [Text(), Text("By folder", style="bold"), folders]
    return Group(*parts)


def _recorded_table(report: Report) -> RenderableType:
    assert report.recorded is not None
    table = _table(("recorded", "left"), ("best mIoU", "right"), ("at", "right"), ("", "left"))
    for run in report.recorded.runs:
        at = "" if run.iteration is None else f"{run.iteration:,}"
        table.add_row(Text(run.name), Text(figure_text(run.best_miou)), Text(at), Text(run.remark))
    title = Text(f"Earlier results ({report.recorded.mark})", style="bold")
    return Group(title, table, Text(report.recorded.remark))
