"""The report as one HTML page that needs nothing else: no other file, no network, no library.

Python prepares pictures and charts; everything else is in ``templates/``: ``report.html`` is the page, read it first.
Names of classes, files and folders come from users and are escaped wherever they stand.
"""

import base64
import hashlib
import importlib.resources
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from salakseg.classes import ClassMap
from salakseg.evaluate.chart_style import inline_svg
from salakseg.evaluate.charts import chart_files
from salakseg.evaluate.contrast import HEAT_STEPS, css_color, heat_ramp, readable_ink
from salakseg.evaluate.examples import MOST_CLASSES, Picture
from salakseg.evaluate.failures import Place
from salakseg.evaluate.formats import (
    count_text,
    figure_text,
    percent_text,
    points_range_text,
    points_text,
    range_text,
)
from salakseg.evaluate.metrics import OVERALL, TITLES, Mean
from salakseg.evaluate.pictures import CONFIDENCE_COLORS, DISAGREEMENT_COLORS, View, shades, views_of
from salakseg.evaluate.report import Report
from salakseg.evaluate.sentences import (
    best_text,
    border_text,
    calibration_text,
    cost_text,
    difference_text,
    invention_text,
    verdict_of,
)

MOST_NUMBERED = 25
"""Classes of a confusion matrix whose cells hold numbers; those of a larger one are only coloured."""

_ALT = {
    "figure_iou": "IoU of every class with its 95 % interval and target.",
    "figure_variants": "Difference of every variant's mIoU from this report's, with paired 95 % intervals.",
    "figure_thresholds": "Precision and coverage of pseudo-labels over the confidence threshold, class by class.",
    "figure_calibration": "Reliability diagram: share of right pixels over confidence, and share of pixels.",
    "figure_history": "Validation mIoU, learning rate, self-training and loss over the iterations.",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A patch with its views.

    Attributes:
        anchor: Where links to it lead.
        name: The patch.
        classes: True and predicted class of a confusion.
        pixels: Wrong pixels; 0 where heads differ.
        width: Pixels.
        height: Pixels.
        views: At least photo, label, prediction and confidence.
    """

    anchor: str
    name: str
    classes: tuple[int, ...]
    pixels: int
    width: int
    height: int
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class ExampleGroup:
    """Examples that are shown for the same reason.

    Attributes:
        heading: The reason.
        classes: The class that it is about, if it is one.
        examples: One or more.
    """

    heading: str
    classes: tuple[int, ...]
    examples: tuple[Example, ...]


def render_html(report: Report) -> str:
    """The page.

    Args:
        report: The report. Its pictures and charts become part of the page.

    Returns:
        HTML with line feeds only; a browser checks the script against a hash of it.
    """
    environment = _environment(report)
    script = _template("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    findings = report.findings
    pictures = () if findings is None else findings.pictures
    text: str = environment.get_template("report.html").render(
        report=report,
        classes=report.class_map.classes,
        metrics=report.metrics,
        comparison=report.comparison if report.comparison is not None and report.comparison.matched else None,
        findings=findings,
        verdict=verdict_of(report),
        charts=_inline_charts(report),
        groups=_groups(pictures, report.class_map),
        pair_anchors=_pair_anchors(pictures),
        overall=_overall(report),
        numbered=len(report.class_map) <= MOST_NUMBERED,
        most_classes=MOST_CLASSES,
        script=Markup(script),
        script_hash=digest,
    )
    return text


def _code(text: str) -> Markup:
    """A sentence whose commands, in backticks, are shown as such."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _environment(report: Report) -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.filters |= {
        "figure": figure_text,
        "percent": percent_text,
        "points": points_text,
        "count": count_text,
        "raw": _raw,
        "code": _code,
        "heat": _heat_class,
        "css": css_color,
        "ink": readable_ink,
        "hexes": lambda colors: ", ".join(css_color(tuple(color)) for color in shades(colors, 9).tolist()),
    }
    environment.globals |= {
        "range_text": range_text,
        "percent_range": _percent_range,
        "points_range_text": points_range_text,
        "difference_text": difference_text,
        "best_text": best_text,
        "invention_text": invention_text,
        "cost_text": cost_text,
        "calibration_text": calibration_text,
        "border_text": border_text,
        "worst_class": lambda place: _worst_class(place, report.class_map),
        "heat_ramp": heat_ramp,
        "confidence_colors": CONFIDENCE_COLORS,
        "disagreement_colors": DISAGREEMENT_COLORS,
        "nan": math.nan,
    }
    return environment


def _template(name: str) -> str:
    return (importlib.resources.files("salakseg.evaluate") / "templates" / name).read_text(encoding="utf-8")


def _percent_range(low: float, high: float) -> str:
    """An interval of shares in percent; empty where it is undefined."""
    return "" if math.isnan(low) or math.isnan(high) else f"{100 * low:.0f}-{100 * high:.0f}"


def _raw(value: float) -> str:
    """A value for sorting; empty where it is undefined."""
    return "" if math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _heat_class(share: float) -> str:
    """The style of a heat map's cell."""
    return "none" if math.isnan(share) else f"h{math.ceil(share * HEAT_STEPS - 0.5)}" if share > 0 else "h0"


def _inline_charts(report: Report) -> dict[str, tuple[Markup, str]]:
    """SVG and alternative text of every chart by name; matplotlib has escaped the names in it."""
    return {name: (Markup(inline_svg(figure, name)), _ALT[name]) for name, figure in chart_files(report).items()}


def _overall(report: Report) -> list[tuple[str, float, str, str, str]]:
    """Name, value, its text, interval and number of classes of every figure over all classes."""
    rows: list[tuple[str, float, str, str, str]] = []
    figures: list[tuple[str, Mean | float, str]] = [
        (TITLES[name], report.metrics.overall(name), range_text(*report.interval(name).ends)) for name in OVERALL
    ]
    if report.findings is not None:
        for name, mean in report.findings.boundary_means.items():
            title = name.removeprefix("boundary_miou_").replace("_", " ")
            figures.append((f"mean boundary IoU {title}", mean, range_text(*report.interval(name).ends)))
        calibration = report.findings.calibration
        figures.append(("calibration error (ECE)", calibration.ece, range_text(*calibration.interval.ends)))
    for title, figure, span in figures:
        value, covers = (figure.value, str(figure.classes)) if isinstance(figure, Mean) else (figure, "")
        rows.append((title, value, figure_text(value), span, covers))
    return rows


def _worst_class(place: Place, class_map: ClassMap) -> tuple[str, float]:
    """The class with true pixels there that is met least, and its IoU; ("", NaN) if there is none."""
    iou = np.where(place.metrics.support > 0, place.metrics.iou, np.nan)
    if np.isnan(iou).all():
        return "", math.nan
    worst = int(np.nanargmin(iou))
    return class_map.names[worst], float(iou[worst])


def _groups(pictures: Sequence[Picture], class_map: ClassMap) -> list[ExampleGroup]:
    """Pictures in their order, those of one reason together."""
    found: dict[tuple[Any, ...], list[Example]] = {}
    for number, picture in enumerate(pictures):
        wanted = picture.wanted
        height, width = picture.label_HW.shape
        pair = wanted.classes if wanted.kind == "pair" else ()
        views = views_of(picture, class_map)
        example = Example(_anchor(number), picture.name, pair, wanted.pixels, width, height, views)
        key = (wanted.kind, wanted.classes if wanted.kind == "class" else ())
        found.setdefault(key, []).append(example)
    headings = {
        "class": "Most wrong pixels of",
        "pair": "Confused classes",
        "disagreement": "Where the heads differ most",
    }
    return [ExampleGroup(headings[kind], classes, tuple(examples)) for (kind, classes), examples in found.items()]


def _pair_anchors(pictures: Sequence[Picture]) -> dict[tuple[int, ...], str]:
    """Where the example of each confused pair is."""
    return {
        picture.wanted.classes: _anchor(number)
        for number, picture in enumerate(pictures)
        if picture.wanted.kind == "pair"
    }


def _anchor(number: int) -> str:
    return f"example-{number + 1}"
