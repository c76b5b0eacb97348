"""Pictures of a run for TensorBoard, in the style of the report's charts.

Axes: H row, W column, C channel, K class.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.evaluate.chart_style import INK, LINE, SMALL, add_axes, new_figure, paint, text_width, wrapped, write
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import figure_text
from salakseg.evaluate.inference import Example

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

_CELL = 0.52  # inches
_PATCH = 1.7
_NAME = 18  # characters in a line of a class name
_UNLABELLED = (150, 150, 150)


def draw_confusion(matrix: ConfusionMatrix, class_map: ClassMap, iteration: int, miou: float) -> NDArray[np.uint8]:
    """Where the pixels of each true class went, in percent of its own, uint8 [H, W, 3].

    Args:
        matrix: Of the validation.
        class_map: Names of the classes.
        iteration: Steps done.
        miou: Without background, 0 to 1.
    """
    shares_KK = matrix.normalised()
    size = _CELL * len(class_map)
    names = [wrapped(name, _NAME) for name in class_map.names]
    title = f"Validation at step {iteration:,}: mIoU without background {figure_text(miou)}"
    meaning = "percent of each true class (row) by predicted class (column)"
    left, top = text_width(names) + 0.25, 0.55
    bottom = text_width(names) + 0.3
    width = max(left + size + 0.2, text_width([title]) + 0.2)
    figure = new_figure(width, top + size + bottom)
    axes = add_axes(figure, left, top, size, size)
    axes.spines[:].set_visible(False)
    axes.imshow(np.nan_to_num(shares_KK), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for k in range(len(class_map)):  # right is what lies on the diagonal
        axes.add_patch(_frame(k))
    ticks = range(len(class_map))
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xticks(ticks, names, rotation=90, parse_math=False)
    for row, col in np.ndindex(shares_KK.shape):
        share = shares_KK[row, col]
        text = "" if np.isnan(share) or share < 0.005 else f"{100 * share:.0f}"
        write(axes, col, row, text, ha="center", color="white" if share > 0.55 else INK)
    # From the left edge: few classes make a narrow picture
    for inches, text, points in ((0.30, title, SMALL), (0.11, meaning, 8)):
        write(axes, -0.5 - (left - 0.1) / _CELL, -0.5 - inches / _CELL, text, ha="left", fontsize=points)
    return _pixels(figure)


def draw_predictions(
    examples: Sequence[Example],
    student: Sequence[NDArray[np.uint8]],
    teacher: Sequence[NDArray[np.uint8]],
    class_map: ClassMap,
    iteration: int,
) -> NDArray[np.uint8]:
    """Photo, label, and what student and moving average say, a row for each patch, uint8 [H, W, 3].

    Args:
        examples: The patches.
        student: Classes by the student, uint8 [H, W] each.
        teacher: The same by the moving average.
        class_map: Names and colours of the classes.
        iteration: Steps done.
    """
    columns = ("Photo", "Label", "Student", "Teacher (average)")
    step, top, edge = _PATCH + 0.08, 0.55, 0.1
    legend = text_width(list(class_map.names)) + 0.45
    figure = new_figure(edge + 4 * step + legend, max(top + len(examples) * step, top + 0.24 * len(class_map) + 0.2))
    for row, example in enumerate(examples):
        maps = (example.label_HW, student[row], teacher[row])
        pictures = [example.image_HWC, *(class_picture(class_HW, class_map) for class_HW in maps)]
        for col, picture in enumerate(pictures):
            axes = add_axes(figure, edge + col * step, top + row * step, _PATCH, _PATCH)
            axes.imshow(picture, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(True)
            axes.spines[:].set_color(LINE)
            if row == 0:
                axes.set_title(columns[col], fontsize=SMALL, color=INK, pad=3)
    _legend(figure, class_map, edge + 4 * step + 0.05, top)
    width, height = figure.get_size_inches()
    title = f"Validation patches at step {iteration:,}"
    figure.text(edge / width, 1 - 0.18 / height, title, fontsize=SMALL, color=INK, va="center")
    return _pixels(figure)


def class_picture(class_HW: NDArray[np.uint8], class_map: ClassMap) -> NDArray[np.uint8]:
    """Classes in their colours, uint8 [H, W, 3]; grey where nobody labelled."""
    palette = np.full((256, 3), _UNLABELLED, np.uint8)
    palette[: len(class_map)] = class_map.colors
    assert IGNORE_INDEX >= len(class_map)
    picture: NDArray[np.uint8] = palette[class_HW]
    return picture


def _legend(figure: "Figure", class_map: ClassMap, left: float, top: float) -> None:
    axes = add_axes(figure, left, top, 1.0, 0.24 * len(class_map))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(class_map), 0)
    for row, land_class in enumerate(class_map.classes):
        axes.add_patch(_square(row, paint(land_class.color)))
        write(axes, 0.24, row + 0.5, land_class.name)


def _frame(k: int) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((k - 0.47, k - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=1.0)


def _square(row: int, color: str) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((0.02, row + 0.2), 0.16, 0.62, facecolor=color, edgecolor=LINE, linewidth=0.6)


def _pixels(figure: "Figure") -> NDArray[np.uint8]:
    figure.canvas.draw()
    buffer = figure.canvas.buffer_rgba()  # type: ignore[attr-defined]  # new_figure gives every figure an Agg canvas
    return np.asarray(buffer)[..., :3].copy()
