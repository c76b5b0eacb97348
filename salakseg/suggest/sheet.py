"""The contact sheet: picture, prediction and doubt of each suggestion side by side.

Axes: H row, W column, C red green blue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import DataError
from salakseg.network.torch_engine import TorchEngine
from salakseg.replacing import replace
from salakseg.suggest.candidates import CandidateCell
from salakseg.suggest.pixels import doubt_of
from salakseg.suggest.sources import Source

SIDE = 3
"""Cells in a row that are shown of a large candidate: those around its most doubtful one."""

ON_A_SHEET = 12
"""Suggestions on a sheet."""

_EDGE = 300  # pixels of the longer side of a picture on the sheet
_COLUMNS = 2  # suggestions side by side
_WHITE = 255
_WIDE_IN = 1.5  # width of a picture on the page, inches
_TITLE_IN = 0.3
_NAME = 34  # letters of a name


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A suggestion as pictures.

    Attributes:
        image_HWC: uint8, white where there is nothing.
        label_HW: Predicted classes, uint8, 255 where there is nothing.
        score_HW: Score, float32, 0 to 1; NaN where there is nothing.
    """

    image_HWC: NDArray[np.uint8]
    label_HW: NDArray[np.uint8]
    score_HW: NDArray[np.float32]


def show_candidate(
    source: Source,
    cells: Sequence[CandidateCell],
    engine: TorchEngine,
    precision_K: Sequence[float] | None,
) -> Shown:
    """Looks once more at a candidate, or at the `SIDE` x `SIDE` cells around its most doubtful one.

    Args:
        source: Where it is.
        cells: All of its cells.
        engine: The network.
        precision_K: See `doubt_of`.
    """
    worst = max(cells, key=lambda cell: cell.score)
    rows, cols = _window([cell.row for cell in cells], worst.row), _window([cell.col for cell in cells], worst.col)
    wanted = {cell.item: None for cell in cells if cell.row in rows and cell.col in cols}
    looked: dict[tuple[int, int], Shown] = {}
    for number in wanted:
        for cell in source.read(number):
            row, col = (source.place_N2[number] + (cell.row, cell.col)).tolist()
            if row in rows and col in cols:
                looked[row, col] = _look(cell.image_CHW, cell.valid_HW, engine, precision_K)
    return _joined(looked)


def _window(places: Sequence[int], worst: int) -> range:
    """`SIDE` places around one, moved inwards at the ends."""
    first = max(min(places), min(worst - SIDE // 2, max(places) - SIDE + 1))
    return range(first, first + SIDE)


def _look(
    image_CHW: NDArray[np.uint8],
    valid_HW: NDArray[np.bool_],
    engine: TorchEngine,
    precision_K: Sequence[float] | None,
) -> Shown:
    logits, _ = engine.inspect(image_CHW[None])
    doubt = doubt_of(logits, precision_K)
    label_HW = doubt.label_BHW[0].to(torch.uint8).cpu().numpy()
    image_HWC = np.moveaxis(image_CHW, 0, -1)
    return Shown(
        np.where(valid_HW[..., None], image_HWC, np.uint8(_WHITE)),
        np.where(valid_HW, label_HW, np.uint8(IGNORE_INDEX)),
        np.where(valid_HW, doubt.score_BHW[0].cpu().numpy(), np.float32(np.nan)),
    )


def _joined(looked: Mapping[tuple[int, int], Shown]) -> Shown:
    rows, cols = sorted({row for row, _ in looked}), sorted({col for _, col in looked})
    height, width = (max(one.label_HW.shape[axis] for one in looked.values()) for axis in (0, 1))
    shape = (rows[-1] - rows[0] + 1) * height, (cols[-1] - cols[0] + 1) * width
    whole = Shown(
        np.full((*shape, 3), _WHITE, np.uint8),
        np.full(shape, IGNORE_INDEX, np.uint8),
        np.full(shape, np.nan, np.float32),
    )
    for (row, col), one in looked.items():
        top, left = (row - rows[0]) * height, (col - cols[0]) * width
        here = slice(top, top + one.label_HW.shape[0]), slice(left, left + one.label_HW.shape[1])
        whole.image_HWC[here], whole.label_HW[here], whole.score_HW[here] = one.image_HWC, one.label_HW, one.score_HW
    return whole


def write_sheet(
    path: Path, shown: Sequence[Shown], rows: Sequence[Mapping[str, Any]], class_map: ClassMap, title: str
) -> None:
    """Draws a sheet.

    Args:
        path: The PNG to write, which appears only when whole.
        shown: The suggestions.
        rows: Their rows of the table.
        class_map: Names and colours.
        title: Above all of it.

    Raises:
        DataError: It cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    high = max(float(np.nanmax(one.score_HW, initial=0.0)) for one in shown)
    pairs = [shown[first : first + _COLUMNS] for first in range(0, len(shown), _COLUMNS)]
    tall = [_TITLE_IN + _WIDE_IN * max(one.label_HW.shape[0] / one.label_HW.shape[1] for one in pair) for pair in pairs]
    figure = Figure(figsize=(_WIDE_IN * 3.3 * _COLUMNS, sum(tall) + 1.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    grid = figure.add_gridspec(len(pairs) + 1, 3 * _COLUMNS, height_ratios=[*tall, 0.5])
    bar = None
    for place, (one, row) in enumerate(zip(shown, rows, strict=True)):
        first = 3 * (place % _COLUMNS)
        picture, classes, doubt = (figure.add_subplot(grid[place // _COLUMNS, first + n]) for n in range(3))
        for axis in (picture, classes, doubt):
            axis.axis("off")
        picture.imshow(_small(one.image_HWC, Image.Resampling.LANCZOS))
        classes.imshow(_small(_painted(one.label_HW, class_map), Image.Resampling.NEAREST))
        bar = doubt.imshow(one.score_HW, cmap="magma", vmin=0, vmax=high)
        picture.set_title(f"{row['rank']}. {_named(row)}", fontsize=7, loc="left", parse_math=False)
        doubt.set_title(f"worth {row['worth']:.2f}", fontsize=7, loc="right")
    present = sorted({int(value) for one in shown for value in np.unique(one.label_HW)} - {IGNORE_INDEX})
    handles = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*class_map.classes[k].color), label=class_map.names[k])
        for k in present
    ]
    below = figure.add_subplot(grid[-1, :4])
    below.axis("off")
    legend = below.legend(handles=handles, loc="center", ncols=4, fontsize=7, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    if bar is not None:
        beside = figure.add_subplot(grid[-1, 4:])
        beside.axis("off")
        figure.colorbar(bar, ax=beside, orientation="horizontal", fraction=0.4).set_label(
            "doubt of a pixel", fontsize=7
        )
    hidden = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(hidden, format="png")
        replace(hidden, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); choose a folder with space left.") from error
    finally:
        hidden.unlink(missing_ok=True)


def _named(row: Mapping[str, Any]) -> str:
    photo = "/".join(str(row[part]) for part in ("source", "photo") if row[part])
    place = "" if row["row"] == "" else f"  row {row['row']}, col {row['col']}"
    return f"{photo if len(photo) <= _NAME else '...' + photo[3 - _NAME :]}{place}"


def _painted(label_HW: NDArray[np.uint8], class_map: ClassMap) -> NDArray[np.uint8]:
    palette = np.full((256, 3), _WHITE, np.uint8)
    palette[: len(class_map)] = class_map.colors
    return palette[label_HW]


def _small(image_HWC: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
    factor = min(1.0, _EDGE / max(image_HWC.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in image_HWC.shape[:2])
    return np.asarray(Image.fromarray(image_HWC).resize((width, height), how))
