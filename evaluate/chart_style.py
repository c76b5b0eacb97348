"""What all charts share: lengths in inches, quiet axes, text taken literally, and the ways to save one.

A chart is drawn in plain colours on white. Within a page its inks become the page's own colours, so that it follows a
dark theme, and its text takes the page's font.
"""

import re
import textwrap
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from salakseg.classes import Color
from salakseg.evaluate.contrast import css_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f26"
QUIET = "#5c6673"
LINE = "#d8dde3"
SURFACE = "#fefefe"
BLUE = "#1f6fb2"
ORANGE = "#b85c12"
RED = "#b3261e"

_THEMED = {
    INK: "currentColor",
    QUIET: "var(--quiet)",
    LINE: "var(--line)",
    SURFACE: "var(--surface)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    RED: "var(--bad)",
}

SMALL = 9.0
"""Points, the size of nearly all text."""

_DPI = 150
_CHARACTER = 0.074  # inches, mean width of a character of small text
_WIDEST, _NARROWEST = 105, 70  # pixels of a page an inch: text of 13 and of 9 pixels
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure.

    Args:
        width: Inches.
        height: Inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes in the house's style.

    Args:
        figure: Where.
        left: Inches from the figure's left edge.
        top: Inches from its top.
        width: Inches.
        height: Inches.
    """
    whole_width, whole_height = figure.get_size_inches()
    bottom = whole_height - top - height
    axes = figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height), facecolor="none"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=SMALL, color=QUIET, labelcolor=INK, length=3)
    axes.set_axisbelow(True)
    return axes


def write(axes: "Axes", x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401
    """Text at a place of the axes, taken literally: a dollar sign in a class name starts no formula."""
    settings: dict[str, Any] = {"va": "center", "ha": "left", "fontsize": SMALL, "color": INK, "zorder": 6}
    axes.text(x, y, text, parse_math=False, clip_on=False, **(settings | style))


def label_axes(axes: "Axes", x: str = "", y: str = "") -> None:
    """Names the axes."""
    axes.set_xlabel(x, fontsize=SMALL, color=QUIET, parse_math=False)
    axes.set_ylabel(y, fontsize=SMALL, color=QUIET, parse_math=False)


def paint(color: Color) -> str:
    """A class's colour; one that is by chance an ink of the charts moves by a shade, or a theme would change it."""
    text = css_color(color)
    return text if text not in _THEMED else css_color((color[0], color[1], color[2] ^ 1))


def wrapped(name: str, characters: int, lines: int = 2) -> str:
    """A name in a few lines, cut if it is longer still."""
    return "\n".join(textwrap.wrap(name, characters, max_lines=lines, placeholder=" ...")) or name[:characters]


def text_width(texts: list[str]) -> float:
    """Inches that the longest line of small text takes."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0) * _CHARACTER


def save_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Writes a chart as PNG and as SVG, on white; what stood under these names is replaced.

    Args:
        figure: The chart.
        folder: An existing folder.
        name: File name without its ending.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    buffer = BytesIO()
    _quietly(lambda: figure.savefig(buffer, format="png"))
    paths[0].write_bytes(buffer.getvalue())
    paths[1].write_bytes(_svg(figure, name, transparent=False))
    return paths


def inline_svg(figure: "Figure", salt: str) -> str:
    """A chart as an SVG element for a page, without any reference to the outside.

    Ink becomes ``currentColor``, the other colours of the charts the page's variables ``--quiet --line --surface
    --blue --orange --bad``; the ground is transparent, and text inherits the page's font.

    Args:
        figure: The chart.
        salt: Makes the ids unique among the charts of a page.
    """
    root = ElementTree.fromstring(_svg(figure, salt, transparent=True))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {
            key.removeprefix(_XLINK): _themed(" ".join(value.split()))
            for key, value in element.attrib.items()
            if not (key == "id" and element.tag == "g")  # these repeat from chart to chart, and nothing refers to them
        }
        if element.tag != "text":
            element.text = element.tail = None
        else:
            element.tail = None
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("style", "metadata")]:
            parent.remove(child)  # the style would apply to the whole page
    width = figure.get_size_inches()[0]
    style = f"max-width:{_WIDEST * width:.0f}px;min-width:{_NARROWEST * width:.0f}px"
    root.attrib = {"viewBox": root.attrib["viewBox"], "style": style, "role": "img"}
    return ElementTree.tostring(root, encoding="unicode")


def _svg(figure: "Figure", salt: str, transparent: bool) -> bytes:
    import matplotlib

    buffer = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        _quietly(lambda: figure.savefig(buffer, format="svg", transparent=transparent, metadata=_NO_METADATA))
    return buffer.getvalue()


def _quietly(save: Callable[[], None]) -> None:
    """Without a warning for every letter of a class name that the font does not have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        save()


def _themed(value: str) -> str:
    """An attribute in the page's colours and font, with coordinates to a hundredth of a point."""
    value = re.sub(r"font-family:[^;]*(;\s*|$)", "", value)
    value = re.sub(r"font:\s*([\d.]+px)[^;]*", r"font-size: \1", value)
    for color, name in _THEMED.items():
        value = value.replace(color, name)
    return re.sub(r"(\.\d\d)\d+", r"\1", value)
