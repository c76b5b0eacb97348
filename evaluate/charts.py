"""The charts of a report, each a matplotlib figure: for files of their own and for the page.

Text and marks keep their size whatever the number of classes: a figure grows instead.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salakseg.classes import ClassMap
from salakseg.evaluate.bootstrap import Interval
from salakseg.evaluate.calibration import Calibration
from salakseg.evaluate.chart_style import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    QUIET,
    SMALL,
    SURFACE,
    add_axes,
    label_axes,
    new_figure,
    paint,
    save_figure,
    text_width,
    wrapped,
    write,
)
from salakseg.evaluate.charts_training import draw_history, draw_thresholds
from salakseg.evaluate.findings import Contender
from salakseg.evaluate.formats import figure_text, points_text, range_text
from salakseg.evaluate.metrics import Metrics
from salakseg.evaluate.report import Report
from salakseg.evaluate.targets import TargetComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

_NAME_CHARACTERS = 24


def chart_files(report: Report) -> dict[str, "Figure"]:
    """Every chart that the report has something for.

    Returns:
        Figures by file name without its ending: figure_iou always; figure_variants, figure_thresholds and
        figure_calibration if the patches were measured; figure_history if the run's history or recorded runs are known.
    """
    comparison = report.comparison if report.comparison is not None and report.comparison.matched else None
    charts = {"figure_iou": draw_iou(report.class_map, report.metrics, report.interval("iou"), comparison)}
    if report.findings is not None:
        charts["figure_variants"] = draw_variants(report.findings.variants)
        charts["figure_thresholds"] = draw_thresholds(report.findings.thresholds, report.class_map)
        charts["figure_calibration"] = draw_calibration(report.findings.calibration)
    history = draw_history(report.history, report.diagnosis, report.recorded)
    if history is not None:
        charts["figure_history"] = history
    return charts


def save_charts(report: Report, folder: Path) -> list[Path]:
    """Writes every chart of `chart_files` as NAME.png and NAME.svg.

    Args:
        report: The report.
        folder: An existing folder; files of these names are replaced.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    return [path for name, figure in chart_files(report).items() for path in save_figure(figure, folder, name)]


def draw_iou(
    class_map: ClassMap, metrics: Metrics, interval: Interval, comparison: TargetComparison | None
) -> "Figure":
    """IoU of every class in its colour, with 95 % intervals and what the target asks for.

    Args:
        class_map: K classes.
        metrics: Their figures.
        interval: [K] of the IoU; NaN where there is none.
        comparison: The target, if it names one of the classes.
    """
    names = [wrapped(name, _NAME_CHARACTERS) for name in class_map.names]
    row = 0.36 if any("\n" in name for name in names) else 0.3
    left, bars, numbers = text_width(names) + 0.25, 3.6, 1.5
    height = row * len(names)
    figure = new_figure(left + bars + numbers + 0.1, height + 0.68)
    axes = add_axes(figure, left, 0.12, bars, height)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), yticks=[], xticks=np.linspace(0, 1, 6))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE)
    legend = "IoU"
    if not np.isnan(interval.low).all():
        legend += ", whiskers: 95 % interval"
    if comparison is not None:
        estimates = ", estimates" if comparison.target.estimates else ""
        legend += f", upright line: target ({comparison.target.name}{estimates})"
    label_axes(axes, legend)
    axes.xaxis.set_label_coords((bars + numbers - left) / 2 / bars, -0.36 / height)
    for c, name in zip(class_map.classes, names, strict=True):
        write(axes, -0.12 / bars, c.id, name, ha="right", linespacing=1.05)
        iou = float(metrics.iou[c.id])
        if np.isnan(iou):
            write(axes, 0.015, c.id, "absent", color=QUIET, fontstyle="italic")
            continue
        # The edge keeps a class in the colour of the page visible
        axes.barh(c.id, iou, height=0.62, color=paint(c.color), edgecolor=INK, linewidth=0.7)
        _whisker(axes, interval.low[c.id], interval.high[c.id], c.id)
        low, high = float(interval.low[c.id]), float(interval.high[c.id])
        write(axes, 1 + 0.5 / bars, c.id, figure_text(iou), ha="right", fontweight="bold")
        write(axes, 1 + 0.6 / bars, c.id, range_text(low, high), color=QUIET)
    if comparison is not None:
        rows = np.flatnonzero(~np.isnan(comparison.expected))
        for color, width in ((SURFACE, 4.5), (INK, 2.0)):  # pale under dark shows on every class colour
            axes.vlines(comparison.expected[rows], rows - 0.4, rows + 0.4, color=color, linewidth=width, zorder=4)
    return figure


def draw_variants(variants: Sequence[Contender]) -> "Figure":
    """How much better or worse every variant is than the report's own, in points with paired 95 % intervals.

    Args:
        variants: The report's own and the others.
    """
    order = sorted(variants, key=lambda v: (not v.is_subject, -np.nan_to_num(v.difference, nan=-9.0)))
    names = [wrapped(variant.name, 34) for variant in order]
    row = 0.36 if any("\n" in name for name in names) else 0.27
    left, span, numbers = text_width(names) + 0.25, 3.2, 1.7
    height = row * len(names)
    figure = new_figure(left + span + numbers + 0.1, height + 0.95)
    axes = add_axes(figure, left, 0.35, span, height)
    axes.set(ylim=(len(names) - 0.5, -0.5), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE)
    axes.axvline(0, color=INK, linewidth=1)
    label_axes(axes, "difference of mIoU without background in points,\nwith paired 95 % interval")
    write(axes, 1 + 0.55 / span, -0.62, "mIoU", ha="right", va="bottom", color=QUIET, transform=_mixed(axes))
    write(axes, 1 + 1.25 / span, -0.62, "points", ha="right", va="bottom", color=QUIET, transform=_mixed(axes))
    for number, (variant, name) in enumerate(zip(order, names, strict=True)):
        weight = "bold" if variant.is_subject else "normal"
        write(axes, -0.12 / span, number, name, ha="right", fontweight=weight, transform=_mixed(axes), linespacing=1.05)
        score = variant.metrics.miou_without_background.value
        write(axes, 1 + 0.55 / span, number, figure_text(score), ha="right", fontweight=weight, transform=_mixed(axes))
        told = "this report" if variant.is_subject else points_text(variant.difference)
        right = 1.62 if variant.is_subject else 1.25
        color = QUIET if variant.is_subject else INK
        write(axes, 1 + right / span, number, told, ha="right", color=color, transform=_mixed(axes))
        if not variant.is_subject:
            low, high = variant.interval.ends
            axes.hlines(number, 100 * low, 100 * high, color=BLUE, linewidth=1.6)
        filled = BLUE if variant.is_best else SURFACE
        axes.plot(100 * variant.difference, number, "o", markersize=6, color=filled, markeredgecolor=BLUE)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.0), max(high, 1.0))  # a difference of nothing is not stretched over the whole width
    return figure


def draw_calibration(calibration: Calibration) -> "Figure":
    """The reliability diagram over the share of pixels in each bin.

    Args:
        calibration: Of the report's variant.
    """
    side, left = 3.0, 0.65
    figure = new_figure(left + side + 0.2, 4.8)
    axes = add_axes(figure, left, 0.15, side, side)
    bins = len(calibration.confidence)
    centres = (np.arange(bins) + 0.5) / bins
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6), xticklabels=[])
    axes.grid(color=LINE)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--")
    filled = ~np.isnan(calibration.accuracy)
    axes.bar(centres[filled], calibration.accuracy[filled], 0.85 / bins, color=BLUE, alpha=0.35)
    axes.plot(calibration.confidence[filled], calibration.accuracy[filled], "o-", color=BLUE, markersize=4, linewidth=1)
    label_axes(axes, y="share that is right")
    low, high = calibration.interval.ends
    write(axes, 0.03, 0.94, f"ECE {figure_text(calibration.ece)}", fontweight="bold")
    write(axes, 0.03, 0.865, range_text(low, high) and f"95 %: {range_text(low, high)}", color=QUIET)
    write(axes, 0.97, 0.07, "below the dashed line:\ntoo sure of itself", ha="right", color=INK, fontsize=SMALL - 1)
    shares = add_axes(figure, left, 0.15 + side + 0.2, side, 0.85)
    shares.set(xlim=(0, 1), ylim=(0, max(0.05, 1.05 * float(calibration.share.max()))), xticks=np.linspace(0, 1, 6))
    shares.bar(centres, calibration.share, 0.85 / bins, color=ORANGE, alpha=0.75)
    shares.locator_params(axis="y", nbins=3)
    shares.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    label_axes(shares, "confidence", "pixels")
    figure.align_ylabels([axes, shares])
    return figure


def _whisker(axes: "Axes", low: float, high: float, y: float) -> None:
    for color, width in ((SURFACE, 3.6), (INK, 1.3)):  # pale under dark shows on every class colour
        axes.hlines(y, low, high, color=color, linewidth=width, zorder=3)
        axes.vlines([low, high], y - 0.14, y + 0.14, color=color, linewidth=width, zorder=3)


def _mixed(axes: "Axes") -> "Transform":
    """Shares of the width across, rows down."""
    return axes.get_yaxis_transform()
