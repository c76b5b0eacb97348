"""One picture of a report: bars of IoU beside the confusion matrix, one row for each class across both.

Lengths are inches until the last step, so that text keeps its size whatever the number of classes.
"""

import textwrap
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.evaluate.formats import count_text, figure_text, percent_text, points_text
from salakseg.evaluate.metrics import Metrics
from salakseg.evaluate.report import Report
from salakseg.evaluate.targets import TargetComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_DPI = 120
_MARGIN = 0.25
_BARS = 4.2  # width of the bars
_FIGURES = 2.25  # width of the numbers beside the bars
_IOU, _TARGET, _GAP = 0.55, 1.35, 2.05  # right edges of these numbers
_ANGLE = 40  # degrees, slope of the column names
_MATRIX = 6.0  # width of the matrix
_NAME_CHARACTERS = 22  # a longer class name goes on in a second line, or is cut over a column
_LINE = 0.19  # height of a line of small text
_CHARACTER = 0.078  # mean width of a character of small text
_INK = "#222222"
_QUIET = "#6b6b6b"
_SMALL = 9.0  # points
_MOST_COUNTED = 12  # classes; narrower cells hold the percentage alone
_MOST_LABELLED = 25  # classes; cells of a larger matrix are too small for numbers


@dataclass(frozen=True, slots=True)
class _Layout:
    """Lengths in inches, from the left and from the top."""

    names: float
    row: float
    rows: int
    column_names: float
    overhang: float
    caption: list[str]
    remarks: list[str]

    @property
    def width(self) -> float:
        return self.matrix_left + _MATRIX + self.overhang

    @property
    def bars_left(self) -> float:
        return _MARGIN + self.names

    @property
    def matrix_left(self) -> float:
        return self.bars_left + _BARS + _FIGURES + 0.35

    @property
    def rows_top(self) -> float:
        return 0.6 + 0.22 * len(self.caption) + self.column_names

    @property
    def footnote_top(self) -> float:
        return self.rows_top + self.row * self.rows + 0.6

    @property
    def height(self) -> float:
        return self.footnote_top + _LINE * len(self.remarks) + _MARGIN

    def box(self, left: float, width: float) -> tuple[float, float, float, float]:
        """Axes over the rows, as matplotlib counts: left, bottom, width, height as shares of the figure."""
        rows = self.row * self.rows
        bottom = self.height - self.rows_top - rows
        return (left / self.width, bottom / self.height, width / self.width, rows / self.height)


def write_figure(report: Report, path: Path) -> None:
    """Draws the report as a PNG, about 1,800 pixels wide.

    Args:
        report: The report.
        path: Where the picture goes; an existing file is replaced.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = _lay_out(report)
    figure = Figure(figsize=(layout.width, layout.height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _draw_header(figure, report, layout)
    _draw_bars(figure.add_axes(layout.box(layout.bars_left, _BARS)), report)
    _draw_matrix(figure.add_axes(layout.box(layout.matrix_left, _MATRIX)), report)
    _draw_footnote(figure, layout)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    path.write_bytes(buffer.getvalue())


def _lay_out(report: Report) -> _Layout:
    rows, columns = _row_names(report.class_map), _column_names(report.class_map)
    classes = len(rows)
    names = max(len(line) for name in rows for line in name.split("\n")) * _CHARACTER * 1.1 + 0.3
    slope = np.radians(_ANGLE)
    ends = [(i + 0.6) * _MATRIX / classes + len(name) * _CHARACTER * np.cos(slope) for i, name in enumerate(columns)]
    characters = int((names + _BARS + _FIGURES + _MATRIX) / _CHARACTER)
    caption = [f"{report.title}: {report.caption}"]
    if report.comparison is not None:
        caption.append(f"Target {report.comparison.target.name}: {report.comparison.headline_text}")
    return _Layout(
        names=names,
        row=0.52 if classes <= 16 else 0.34,
        rows=classes,
        column_names=0.4 + max(map(len, columns)) * _CHARACTER * float(np.sin(slope)),
        overhang=max(_MARGIN, max(ends) - _MATRIX),
        caption=[line for text in caption for line in textwrap.wrap(text, int(characters / 1.2))],
        remarks=[line for text in report.remarks for line in textwrap.wrap(text, characters)],
    )


def _row_names(class_map: ClassMap) -> list[str]:
    """The names in at most two lines, with the id where the columns have nothing else."""
    names = class_map.names
    if len(names) > _MOST_LABELLED:
        names = tuple(f"{c.name} ({c.id})" for c in class_map.classes)
    return ["\n".join(textwrap.wrap(name, _NAME_CHARACTERS, max_lines=2, placeholder="...")) for name in names]


def _column_names(class_map: ClassMap) -> list[str]:
    """The names cut to a length, or ids where the columns are too narrow for names."""
    if len(class_map) > _MOST_LABELLED:
        return [str(c.id) for c in class_map.classes]
    return [name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 3] + "..." for name in class_map.names]


def _draw_header(figure: "Figure", report: Report, layout: _Layout) -> None:
    metrics = report.metrics
    headline = (
        f"mIoU {metrics.miou_without_background.text} without background, "
        f"{metrics.miou_with_background.text} with background"
    )
    left = _MARGIN / layout.width
    top = 1 - 0.45 / layout.height
    figure.text(left, top, headline, parse_math=False, va="baseline", fontsize=15, fontweight="bold", color=_INK)
    top = 1 - 0.56 / layout.height
    caption = "\n".join(layout.caption)
    figure.text(left, top, caption, parse_math=False, va="top", fontsize=10.5, color=_INK, linespacing=1.4)


def _draw_footnote(figure: "Figure", layout: _Layout) -> None:
    left, top = _MARGIN / layout.width, 1 - layout.footnote_top / layout.height
    text = "\n".join(layout.remarks)
    figure.text(left, top, text, parse_math=False, va="top", fontsize=_SMALL, color=_QUIET, linespacing=1.4)


def _draw_bars(axes: "Axes", report: Report) -> None:
    metrics = report.metrics
    comparison = report.comparison if report.comparison is not None and report.comparison.matched else None
    classes = report.class_map.classes
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5), yticks=[], xticks=np.linspace(0, 1, 6))
    estimates = ", estimates" if comparison is not None and comparison.target.estimates else ""
    line = "" if comparison is None else f"   (upright line: {comparison.target.name} target{estimates})"
    whiskers = "" if np.isnan(report.interval("iou").low).all() else ", whiskers: 95 % interval"
    axes.set_xlabel(f"IoU{whiskers}{line}", fontsize=_SMALL, color=_INK, parse_math=False)
    axes.tick_params(labelsize=_SMALL, color=_QUIET, labelcolor=_INK)
    axes.grid(axis="x", color="#e4e4e4", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for c, name in zip(classes, _row_names(report.class_map), strict=True):
        _write(axes, -0.03, c.id, name, ha="right", fontsize=10)
        iou = metrics.iou[c.id]
        if np.isnan(iou):
            _write(axes, 0.015, c.id, "not in the truth, never predicted", color=_QUIET, fontstyle="italic")
        else:
            # The dark edge keeps a white or pale class visible.
            color = np.array(c.color) / 255
            axes.barh(c.id, iou, height=0.56, color=color, edgecolor=_INK, linewidth=0.6, zorder=2)
    _draw_whiskers(axes, report)
    _draw_numbers(axes, metrics, comparison)
    if comparison is not None:
        _draw_targets(axes, comparison)


def _draw_whiskers(axes: "Axes", report: Report) -> None:
    """The intervals; white under black shows on every class colour."""
    interval = report.interval("iou")
    rows = np.flatnonzero(~np.isnan(interval.low))
    for color, width in (("white", 3.0), (_INK, 1.2)):
        axes.hlines(rows, interval.low[rows], interval.high[rows], color=color, linewidth=width, zorder=2.5)
        for ends in (interval.low[rows], interval.high[rows]):
            axes.vlines(ends, rows - 0.1, rows + 0.1, color=color, linewidth=width, zorder=2.5)


def _draw_targets(axes: "Axes", comparison: TargetComparison) -> None:
    rows = np.flatnonzero(~np.isnan(comparison.expected))
    # White under black shows on every class colour.
    for color, width in (("white", 4.5), (_INK, 2.0)):
        axes.vlines(comparison.expected[rows], rows - 0.38, rows + 0.38, color=color, linewidth=width, zorder=3)


def _draw_numbers(axes: "Axes", metrics: Metrics, comparison: TargetComparison | None) -> None:
    """The figures as columns of their own: text on a bar would have to suit every colour."""
    columns = [(_IOU, "IoU")]
    if comparison is not None:
        columns += [(_TARGET, "target"), (_GAP, "gap (pts)")]
    for right, heading in columns:
        _write(axes, 1 + right / _BARS, -0.62, heading, ha="right", va="bottom", color=_QUIET)
    for row, iou in enumerate(metrics.iou):
        _write(axes, 1 + _IOU / _BARS, row, figure_text(iou), ha="right", fontweight="bold")
        if comparison is not None:
            _write(axes, 1 + _TARGET / _BARS, row, comparison.figure_text(row), ha="right")
            gap = comparison.gap[row]
            color = "#1b7837" if gap >= 0 else "#b2182b"
            _write(axes, 1 + _GAP / _BARS, row, points_text(gap), ha="right", color=color)


def _draw_matrix(axes: "Axes", report: Report) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    shares = report.matrix.normalised()
    classes = len(shares)
    colors = colormaps["Blues"]
    axes.imshow(np.nan_to_num(shares), cmap=colors, vmin=0, vmax=1, aspect="auto")
    axes.set(xticks=[], yticks=[], xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    legend = "rows: truth, columns: prediction; percent of the row, diagonal = recall"
    axes.set_xlabel(legend, fontsize=_SMALL, color=_INK, labelpad=8)
    for row in range(classes):
        if np.isnan(shares[row]).all():
            axes.add_patch(Rectangle((-0.5, row - 0.5), classes, 1, color="#eeeeee", zorder=1))
            _write(axes, (classes - 1) / 2, row, "no true pixels", ha="center", color=_QUIET, fontstyle="italic")
        else:
            axes.add_patch(Rectangle((row - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_INK, zorder=2))
    for column, name in enumerate(_column_names(report.class_map)):
        if classes <= _MOST_LABELLED:
            _write(axes, column, -0.62, name, rotation=_ANGLE, rotation_mode="anchor", va="bottom")
        else:
            _write(axes, column, -0.62, name, ha="center", va="bottom", fontsize=min(_SMALL, 240 / classes))
    if classes <= _MOST_LABELLED:
        _write_cells(axes, shares, report.matrix.counts, colors)


def _write_cells(axes: "Axes", shares: NDArray[np.float64], counts: NDArray[np.int64], colors: "Colormap") -> None:
    classes = len(shares)
    size = float(np.clip(110 / classes, 5, 10))
    for row, column in np.argwhere(counts > 0):
        share = float(shares[row, column])
        # Luminance decides between dark and white text.
        ink = _INK if np.dot(colors(share)[:3], (0.299, 0.587, 0.114)) > 0.55 else "white"
        both = classes <= _MOST_COUNTED
        _write(axes, column, row - (0.13 if both else 0), percent_text(share), ha="center", fontsize=size, color=ink)
        if both:
            count = count_text(int(counts[row, column]))
            _write(axes, column, row + 0.24, count, ha="center", fontsize=0.68 * size, color=ink)


def _write(axes: "Axes", x: float, y: float, text: str, **style: str | float) -> None:
    """Text at a place of the axes, taken literally: a dollar sign in a class name starts no formula."""
    settings: dict[str, Any] = {"va": "center", "ha": "left", "fontsize": _SMALL, "color": _INK, "zorder": 4}
    axes.text(x, y, text, parse_math=False, clip_on=False, **(settings | style))
