"""The curves, in the charts' house style."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contest.figures import went_back_at
from contest.groups import Group
from contest.methods import ABLATIONS, MAIN, STRATEGY_METHODS, TUNING
from salakseg.evaluate.chart_style import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    QUIET,
    RED,
    add_axes,
    label_axes,
    new_figure,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: dict[str, tuple[str, str]] = {
    "phase4": (BLUE, "-"),
    "supervised": (INK, "-"),
    "supervised-all": (INK, ":"),
    "v3": (RED, "-"),
    "v3-tuned": (RED, ":"),
    "unimatch2": (ORANGE, "-"),
    "unimatch": (ORANGE, ":"),
}
_REST = ("--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 3)), (0, (3, 1, 1, 1)), (0, (1, 4)))
"""Of the other methods, all in grey: each has a line of its own, the same in every picture."""

_LINE = 0.24  # inches from one name of the legend to the next

_NEAR = 0.04  # mIoU below supervised training that the near view shows

Point = Callable[[dict[str, Any]], float | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture above or below others: what is on its axis, and where that begins and ends."""

    title: str
    point: Point
    low: float = 0.0
    high: float | None = None


def draw_curves(group: Group) -> "Figure | None":
    """Validation mIoU without class 0 by iteration: every seed thin, their mean thick.

    Where a method collapses the others cannot be told apart any more, so what is near supervised training is shown by
    itself first.
    """

    def score(point: dict[str, Any]) -> float:
        return float(point["miou_without_background"])

    panels = [Panel("mIoU without class 0, all", score)]
    floor = [record["curve"][-1] for record in group.of("supervised")]
    if floor:
        best = max(score(point) for record in group.records for point in record["curve"])
        low = math.floor(100 * (min(score(point) for point in floor) - _NEAR)) / 100
        panels.insert(0, Panel("validation mIoU without class 0", score, low, best + 0.01))
    return _draw(group, _methods(group), panels)


def draw_pseudo_labels(group: Group) -> "Figure | None":
    """How right the pseudo-labels are and how many are kept, by iteration."""

    def pseudo(name: str) -> Point:
        return lambda point: None if point["pseudo"] is None else point["pseudo"][name]

    methods = [m for m in _methods(group) if any(point["pseudo"] for r in group.of(m) for point in r["curve"])]
    panels = [
        Panel("precision of the kept", pseudo("precision"), high=1.02),
        Panel("share kept", pseudo("kept_share"), high=1.02),
    ]
    return _draw(group, methods, panels)


def _methods(group: Group) -> list[str]:
    return [m for m in group.methods if m not in {*ABLATIONS, *TUNING, *STRATEGY_METHODS}]


def _draw(group: Group, methods: list[str], panels: list[Panel]) -> "Figure | None":
    if not methods:
        return None
    height = 3.1 if len(panels) == 1 else 2.2
    figure = new_figure(7.4, 0.35 + len(panels) * (height + 0.55))
    for number, panel in enumerate(panels):
        axes = add_axes(figure, 0.62, 0.2 + number * (height + 0.55), 4.9, height)
        axes.grid(color=LINE, axis="y")
        for method in methods:
            color, style = _style(method)
            _plot(axes, group.of(method), panel.point, color, style)
        axes.set(xlim=(0, 1.02 * group.iterations), ylim=(panel.low, panel.high))
        label_axes(axes, "iteration" if number == len(panels) - 1 else "", panel.title)
        if number == 0:
            notes = ["thin: single seeds"] if any(len(group.of(method)) > 1 for method in methods) else []
            if any(went_back_at(record) for method in methods for record in group.of(method)):
                notes.append("triangle: back to its best")
            _legend(axes, methods, height, notes)
    return figure


def _style(method: str) -> tuple[str, Any]:
    """Colour and line of a method."""
    grey = [name for name in MAIN if name not in _STYLES]
    return _STYLES.get(method) or (QUIET, _REST[grey.index(method) % len(_REST)] if method in grey else "--")


def _plot(axes: "Axes", records: list[dict[str, Any]], point: Point, color: str, style: Any) -> None:  # noqa: ANN401
    series = [{p["iteration"]: value for p in record["curve"] if (value := point(p)) is not None} for record in records]
    shared = sorted(set.intersection(*(set(values) for values in series)))
    if len(series) > 1:
        for values in series:
            axes.plot(list(values), list(values.values()), color=color, linestyle=style, linewidth=0.5, alpha=0.6)
    means = [sum(values[i] for values in series) / len(series) for i in shared]
    axes.plot(shared, means, color=color, linestyle=style, linewidth=1.7)
    for record, values in zip(records, series, strict=True):
        there = [at for at in went_back_at(record) or () if at in values]
        axes.plot(there, [values[at] for at in there], "v", color=color, markersize=5)


def _legend(axes: "Axes", methods: list[str], height: float, notes: list[str]) -> None:
    for order, method in enumerate(methods):
        color, style = _style(method)
        y = 0.97 - order * _LINE / height
        line = axes.plot([1.03, 1.1], [y, y], color=color, linestyle=style, linewidth=1.7, clip_on=False)[0]
        line.set_transform(axes.transAxes)
        write(axes, 1.12, y, method, transform=axes.transAxes)
    for order, note in enumerate(notes, start=len(methods)):
        write(axes, 1.03, 0.97 - order * _LINE / height, note, color=QUIET, transform=axes.transAxes)
