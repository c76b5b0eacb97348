"""The result as one HTML page that needs nothing else: no other file, no network, no script.

Everything that is seen is in ``templates/check.html``. Names of classes, files and folders come from users and are
escaped wherever they stand.
"""

import importlib.resources
from collections.abc import Callable

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from numpy.typing import NDArray

from salakseg.check.finding import Severity
from salakseg.check.result import CheckResult
from salakseg.check.thumbs import thumbs_of
from salakseg.classes import Color
from salakseg.evaluate.contrast import css_color, readable_ink
from salakseg.evaluate.formats import count_text, percent_text

MOST_COLUMNS = 12
"""Classes of a table whose shares are told in numbers; those of a larger class map are only drawn."""


def render_page(result: CheckResult) -> str:
    """The page, with small pictures of the examples.

    Args:
        result: What was found.
    """
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"css": css_color, "ink": readable_ink, "percent": percent_text, "count": count_text}
    text: str = environment.get_template("check.html").render(
        result=result,
        severities=[severity for severity in Severity if result.count(severity)],
        thumbs=[thumbs_of(result.root, finding, result.class_map) for finding in result.findings],
        classes=result.class_map.classes,
        in_numbers=len(result.class_map) <= MOST_COLUMNS,
        shares=_shares,
        mean_color=_mean_color,
        heading=_heading(result),
    )
    return text


def _template(name: str) -> str:
    return (importlib.resources.files("salakseg.check") / "templates" / name).read_text(encoding="utf-8")


def _heading(result: CheckResult) -> Callable[[str], str]:
    """A folder's name, or the root's for the plain layout."""
    return lambda name: name or result.root.absolute().name


def _shares(pixels_K: NDArray[np.int64]) -> list[float]:
    """Shares of the labelled pixels, NaN where there are none."""
    total = int(pixels_K.sum())
    return [pixels / total if total else float("nan") for pixels in pixels_K.tolist()]


def _mean_color(mean_C: NDArray[np.float64]) -> Color | None:
    if not np.isfinite(mean_C).all():
        return None
    red, green, blue = (round(value) for value in mean_C.tolist())
    return (red, green, blue)
