"""What figures mean, in a sentence each; where they do not decide, the sentence says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from salakseg.evaluate.calibration import Calibration
from salakseg.evaluate.failures import ErrorPlaces
from salakseg.evaluate.findings import Contender, Findings
from salakseg.evaluate.formats import figure_text, points_range_text, points_text, range_text
from salakseg.evaluate.report import Report

_GATHERED, _EVEN = 2.0, 1.1  # times the share that blind chance would put at borders

Side = Literal["above", "below", "open", "none"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The distance to the target.

    Attributes:
        side: On which side of the target the whole interval lies; "open" if it holds the target or there is none;
            "none" without a target or a figure.
        text: One sentence.
    """

    side: Side
    text: str


def verdict_of(report: Report) -> Verdict:
    """Whether the target is reached, as far as the interval lets one tell."""
    comparison, interval = report.comparison, report.headline_gap_interval
    if comparison is None or interval is None:
        return Verdict("none", "No target was named.")
    gap = comparison.headline_gap
    name, target = comparison.target.name, comparison.target
    estimate = ", an estimate," if target.estimates else ""
    mean = "with" if target.headline_with_background else "without"
    goal = f"the {name} target (mIoU {target.headline_miou:.2f}{estimate} {mean} background)"
    if math.isnan(gap):
        return Verdict("none", f"Nothing was measured that could be compared with {goal}.")
    distance = f"{abs(100 * gap):.1f} points {'above' if gap >= 0 else 'below'} {goal}"
    if comparison.is_of_other_classes:
        return Verdict("none", f"{_upper(distance)}; that was set for other classes, so it decides nothing.")
    span = points_range_text(*interval.ends)
    if not span:
        return Verdict("open", f"{_upper(distance)}; without an interval it cannot be told how sure that is.")
    if interval.decided:
        side: Side = "above" if gap > 0 else "below"
        return Verdict(side, f"{_upper(side)} {goal}: the whole 95 % interval of the distance lies {side} it.")
    return Verdict(
        "open",
        f"{_upper(distance)}, but the 95 % interval of the distance ({span} points) holds 0: with these photos it "
        "cannot be told on which side the network is.",
    )


def difference_text(contender: Contender) -> str:
    """Whether a variant or a run is better than the report's own."""
    if contender.is_subject:
        return "this report"
    if not points_range_text(*contender.interval.ends):
        return ""
    if not contender.interval.decided:
        return "cannot be told apart"
    return "better" if contender.difference > 0 else "worse"


def invention_text(contenders: Sequence[Contender]) -> str:
    """Why a difference is not that of the mIoUs beside it; empty where it is."""
    if len({one.metrics.miou_without_background.classes for one in contenders}) < 2:
        return ""
    return (
        "Some predict a class that has no true pixel, which counts as 0 in their mIoU; the difference, by which the "
        "best is found, leaves such classes out."
    )


def best_text(findings: Findings) -> str:
    """What the best variant would bring."""
    best = findings.best
    count = len(findings.variants)
    if count == 1:
        return "With a single head and one set of weights there is nothing to choose."
    over = " over the classes with true pixels" if invention_text(findings.variants) else ""
    if best.is_subject:
        return f"Of {count} variants none has a higher mIoU{over} than the one of this report."
    span = points_range_text(*best.interval.ends)
    told = f"{_upper(best.name)} has the highest mIoU{over} of {count} variants: {points_text(best.difference)} points"
    if not span:
        return f"{told}."
    if not best.interval.decided:
        return f"{told}, which may be chance (paired 95 % interval {span})."
    return f"{told} (paired 95 % interval {span})."


def cost_text(findings: Findings) -> str:
    """What the best variant takes; empty where it was not measured."""
    cost = findings.cost
    if cost is None:
        return ""
    return (
        f"The best variant takes {cost.text}: {cost.best_seconds:.2g} s a megapixel on {cost.device}, against "
        f"{cost.plain_seconds:.2g} s."
    )


def calibration_text(calibration: Calibration) -> str:
    """How well the network knows itself."""
    if math.isnan(calibration.ece):
        return "No pixel was measured, so nothing is known of the confidence."
    span = range_text(*calibration.interval.ends)
    error = f"Expected calibration error {figure_text(calibration.ece)}" + (f" (95 % {span})" if span else "")
    bias = 100 * calibration.bias
    if abs(bias) < 0.5:
        lean = "on average the confidence is as high as the share of pixels that are right"
    else:
        lean = f"on average the network is {abs(bias):.1f} points too {'sure' if bias > 0 else 'unsure'} of itself"
    return f"{error}: {lean}, at temperature {calibration.temperature:.2f}."


def border_text(errors: ErrorPlaces) -> str:
    """Whether errors lie at borders or inside."""
    if math.isnan(errors.near):
        return "There is no wrong pixel."
    widths = " to ".join(str(distance) for distance in dict.fromkeys((min(errors.distances), max(errors.distances))))
    pixels = "pixel" if errors.distances == (1,) else "pixels"
    told = (
        f"{100 * errors.near:.0f} % of the wrong pixels lie within {widths} {pixels} of a border between two classes, "
        f"where {100 * errors.pixels_near:.0f} % of all pixels lie"
    )
    times = errors.near / errors.pixels_near if errors.pixels_near else math.nan
    if times >= _GATHERED:
        return f"{told}: errors gather at outlines, {times:.1f} times as dense as chance would have them."
    if times >= _EVEN:
        return f"{told}: errors are {times:.1f} times as dense there as chance would have them."
    return f"{told}: no denser than chance would have them, so classes are taken for each other inside as well."


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
