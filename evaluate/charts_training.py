"""Charts on training: what thresholds would do to pseudo-labels, and how the run went."""

from typing import TYPE_CHECKING

import numpy as np

from salakseg.classes import ClassMap
from salakseg.evaluate.chart_style import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    QUIET,
    RED,
    SMALL,
    SURFACE,
    add_axes,
    label_axes,
    new_figure,
    paint,
    write,
)
from salakseg.evaluate.diagnosis import Diagnosis
from salakseg.evaluate.history import Series, TrainingHistory, finite
from salakseg.evaluate.recorded import Recorded
from salakseg.evaluate.thresholds import ThresholdAnalysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 36
"""Classes in the chart of thresholds; of a longer class map the first."""

_COLUMNS = 3
_WIDTH = 7.0
_LEFT = 0.68
_NAME = 25  # characters over a panel


def draw_thresholds(analysis: ThresholdAnalysis, class_map: ClassMap) -> "Figure":
    """Precision and coverage of each class's pseudo-labels over the threshold, a panel a class.

    Args:
        analysis: The curves of K classes.
        class_map: These classes.
    """
    shown = [k for k in range(len(class_map)) if not np.isnan(analysis.coverage[k]).all()]
    left_out = len(class_map) - len(shown)
    note = f"{left_out} of {len(class_map)} classes are never predicted and have no panel" if left_out else ""
    if len(shown) > MOST_PANELS:
        shown = shown[:MOST_PANELS]
        note = f"the first {MOST_PANELS} of {len(class_map)} classes; report.json has them all"
    rows = max(1, -(-len(shown) // _COLUMNS))
    across, down = (_WIDTH - _LEFT) / _COLUMNS, 1.72
    figure = new_figure(_WIDTH, 0.62 + rows * down + 0.3)
    _threshold_legend(add_axes(figure, 0.1, 0.05, _WIDTH - 0.2, 0.4), analysis)
    for number, k in enumerate(shown):
        row, column = divmod(number, _COLUMNS)
        axes = add_axes(figure, _LEFT + column * across, 0.82 + row * down, across - 0.3, down - 0.62)
        _threshold_panel(axes, analysis, class_map, k)
        if column:
            axes.set_yticklabels([])
        if number + _COLUMNS >= len(shown):
            label_axes(axes, "threshold")
    height = float(figure.get_size_inches()[1])
    figure.text(_LEFT / _WIDTH, 0.06 / height, note, fontsize=SMALL, color=QUIET, parse_math=False)
    return figure


def _threshold_panel(axes: "Axes", analysis: ThresholdAnalysis, class_map: ClassMap, k: int) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xticklabels(["0", "0.5", "1"])
    axes.set_yticklabels(["0", "50 %", "100 %"])
    axes.grid(color=LINE)
    axes.axhline(analysis.wanted, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.plot(analysis.thresholds, analysis.precision[k], color=BLUE, linewidth=1.8)
    axes.plot(analysis.thresholds, analysis.coverage[k], color=ORANGE, linewidth=1.5, linestyle="--")
    if analysis.present is not None:
        axes.axvline(float(analysis.present.threshold[k]), color=INK, linewidth=1.2, linestyle=":")
    recommended = float(analysis.recommended.threshold[k])
    axes.axvline(recommended, color=INK, linewidth=1.4, clip_on=False)
    if recommended >= 1:
        write(axes, 0.5, 0.08, f"never {100 * analysis.wanted:.0f} % right", ha="center", color=QUIET, zorder=7)
    name = class_map.names[k]
    name = name if len(name) <= _NAME else name[: _NAME - 3] + "..."
    axes.plot(
        0.02, 1.17, "s", markersize=7, color=paint(class_map.classes[k].color), markeredgecolor=INK,
        markeredgewidth=0.7, transform=axes.transAxes, clip_on=False,
    )  # fmt: skip
    write(axes, 0.08, 1.17, name, transform=axes.transAxes, fontweight="bold")


def _threshold_legend(axes: "Axes", analysis: ThresholdAnalysis) -> None:
    axes.set(xlim=(0, _WIDTH - 0.2), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    entries = [
        (BLUE, "-", "precision: share of the kept that is right"),
        (ORANGE, "--", "coverage: share that is kept"),
        (INK, "-", f"recommended: {100 * analysis.wanted:.0f} % right from there on"),
    ]
    if analysis.present is not None:
        entries.append((INK, ":", "the recipe's present threshold"))
    for number, (color, style, text) in enumerate(entries):
        x, y = 3.7 * (number % 2), 0.85 - 0.5 * (number // 2)
        axes.plot([x, x + 0.3], [y, y], color=color, linestyle=style, linewidth=1.8)
        write(axes, x + 0.38, y, text)


def draw_history(
    history: TrainingHistory | None, diagnosis: Diagnosis | None, recorded: Recorded | None
) -> "Figure | None":
    """How the run went, and, in a panel of their own, runs that were recorded elsewhere.

    Args:
        history: The run's; None if it is unknown.
        diagnosis: What it says, for the peak.
        recorded: Recorded runs; None leaves them out.

    Returns:
        None if nothing is known.
    """
    curves = [] if recorded is None else [run for run in recorded.runs if len(finite(run.points)) > 1]
    panels = [] if history is None else _panels(history)
    if not panels and not curves:
        return None
    heights = [2.3 if number == 0 else 1.35 for number in range(len(panels))]
    top, gap, recorded_height = 0.35, 0.42, 2.0
    height = top + sum(heights) + gap * len(panels) + 0.25
    figure = new_figure(_WIDTH, height + (recorded_height + 0.75 if curves else 0.0))
    end = 1 if history is None else max(1, history.ended or 1)
    start = history.plan.selftraining_start if history is not None and history.plan.selftraining else None
    for number, (title, lines) in enumerate(panels):
        axes = add_axes(figure, _LEFT, top, _WIDTH - _LEFT - 0.2, heights[number])
        _panel(axes, title, lines, end)
        if start is not None and start < end:
            axes.axvline(start, color=QUIET, linewidth=1, linestyle=":")
            if number == 0:
                _above(axes, start, "self-training starts", "left")
        if number == 0 and history is not None:
            _mark_peak(axes, history, diagnosis, end)
        if number < len(panels) - 1:
            axes.set_xticklabels([])
        else:
            label_axes(axes, "iteration", title)
        top += heights[number] + gap
    if recorded is not None and curves:
        axes = add_axes(figure, _LEFT, height + 0.3 if panels else 0.4, _WIDTH - _LEFT - 0.2, recorded_height)
        axes.set_title(f"Recorded runs: {recorded.mark}", fontsize=SMALL, color=INK, loc="left", parse_math=False)
        styles = ((QUIET, "--"), (ORANGE, "--"), (BLUE, "--"))
        lines = [
            (run.name if run.curve else f"{run.name}, best and last only", run.points, *styles[number % 3])
            for number, run in enumerate(curves)
        ]
        _panel(axes, "", lines, max(run.points[-1][0] for run in curves))
        axes.set_ylim(0, None)
        label_axes(axes, "iteration", "validation mIoU")
    return figure


Line = tuple[str, Series, str, str]
"""Name, series, colour, line style."""


def _panels(history: TrainingHistory) -> list[tuple[str, list[Line]]]:
    """The panels for which something was logged."""
    wanted: list[tuple[str, list[Line]]] = [
        (
            "mIoU",
            [
                ("val, without background", history.val_miou, BLUE, "-"),
                ("val, with background", history.val_miou_with_background, BLUE, ":"),
                ("train, without background", history.train_miou, ORANGE, "--"),
            ],
        ),
        ("learning rate (encoder)", [("learning rate", history.learning_rate, INK, "-")]),
        (
            "self-training",
            [
                ("kept pixels", history.kept_share, ORANGE, "-"),
                ("kept, classes from 1 on", history.kept_share_foreground, ORANGE, "--"),
                ("right among the kept", history.pseudo_precision, BLUE, "-"),
            ],
        ),
        (
            "loss",
            [
                ("on labels", history.loss_sup, INK, "-"),
                ("on pseudo-labels", history.loss_unsup, ORANGE, "--"),
            ],
        ),
    ]
    known = [(title, [line for line in lines if finite(line[1])]) for title, lines in wanted]
    return [(title, lines) for title, lines in known if lines]


def _panel(axes: "Axes", title: str, lines: list[Line], end: int) -> None:
    axes.grid(color=LINE)
    axes.set_xlim(0, 1.02 * end)
    for name, series, color, style in lines:
        points = finite(series)
        steps, values = [step for step, _ in points], [value for _, value in points]
        marker = "o" if len(points) <= 40 else None
        axes.plot(steps, values, color=color, linestyle=style, linewidth=1.6, marker=marker, markersize=3, label=name)
    if title == "self-training":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if title.startswith("learning"):
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        axes.yaxis.get_offset_text().set_fontsize(SMALL)
        axes.yaxis.get_offset_text().set_color(QUIET)
        axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    label_axes(axes, y=title)
    axes.yaxis.set_label_coords(-0.5 / (_WIDTH - _LEFT - 0.2), 0.5)
    if len(lines) > 1:
        legend = axes.legend(fontsize=SMALL - 0.5, frameon=True, loc="best", labelcolor=INK, handlelength=2.2)
        legend.get_frame().set(facecolor=SURFACE, edgecolor="none", alpha=0.75)
        for text in legend.get_texts():
            text.set_parse_math(False)
    elif not title and lines:
        name, series, _, _ = lines[0]
        write(axes, *max(finite(series), key=lambda point: point[1]), f" {name}", va="bottom")


def _mark_peak(axes: "Axes", history: TrainingHistory, diagnosis: Diagnosis | None, end: int) -> None:
    if diagnosis is not None and diagnosis.peak is not None and finite(history.val_miou):
        at, value = diagnosis.peak
        axes.plot(at, value, "o", markersize=8, markerfacecolor="none", markeredgecolor=RED, markeredgewidth=1.6)
        place = "left" if at < 0.2 * end else "right" if at > 0.8 * end else "center"
        _above(axes, at, f"best {value:.4f} at {at:,}", place)
    if history.stopped_early or history.watched:
        axes.axvline(end, color=RED, linewidth=1.2)
        write(
            axes,
            end,
            0.04,
            "stopped by the watch " if history.watched else "stopped early ",
            ha="right",
            color=RED,
            transform=axes.get_xaxis_transform(),
        )


def _above(axes: "Axes", at: float, text: str, place: str) -> None:
    write(axes, at, 1.03, text, ha=place, va="bottom", color=QUIET, transform=axes.get_xaxis_transform())
