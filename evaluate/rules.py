"""The rules by which a run's history is judged, in one table.

Of each quantity the first rule that fits speaks. The bands are those that the field
team watches by its own notes; where a rule has none of theirs, a comment says whose figure it is. The remedies in the
team's notes were guesses, made from a band alone; here advice needs a cause among what was logged.

The team's bands leave room between good and warning, which is called "between". Its band on the device's memory has no
rule, since a run without memory cannot log that.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from salakseg.evaluate.course import NOISE, Course

Band = Literal["good", "between", "warning", "critical", "unknown", "not applicable"]

CURVE = "validation mIoU"
LENGTH = "length of the run"
RATE = "learning rate"
KEPT = "kept pixels (all classes)"
KEPT_FOREGROUND = "kept pixels (classes from 1 on)"
PRECISION = "precision of pseudo-labels"
LABELLER = "who labels"
WEIGHTS = "class weights on pseudo-labels"
BACKGROUND = "background threshold"
START = "start of self-training"
GAP = "training minus validation mIoU"
LOSS = "loss"
CE = "cross entropy"
DICE = "Dice loss"

VALUES = {
    CURVE: "{c.score_name}: best {c.peak:.4f} at {c.peak_at:,.0f}, last {c.last:.4f} at {c.last_at:,.0f}",
    LENGTH: "{c.ended:,.0f}{c.of_plan} iterations",
    RATE: "{c.rate_at_peak:.0%} of its peak at the best score, {c.rate_at_end:.0%} of it at the end",
    KEPT: "{c.kept:.2%}",
    KEPT_FOREGROUND: "{c.kept_foreground:.2%}",
    PRECISION: "{c.precision}",
    LABELLER: "{c.labeller}",
    WEIGHTS: "{c.weighting}",
    BACKGROUND: "{c.background_threshold:g}",
    START: "iteration {c.start:,.0f}",
    GAP: "{c.gap:.3f}",
    LOSS: "{c.loss_first:.3f}, lowest {c.loss_lowest:.3f}, end {c.loss_last:.3f}",
    CE: "{c.ce:.3f}",
    DICE: "{c.dice:.3f}",
}
"""Every quantity in the order of the report, and how its value is written."""

OF_SELFTRAINING = (KEPT, KEPT_FOREGROUND, PRECISION, LABELLER, WEIGHTS, BACKGROUND, START)
"""Quantities that a supervised run does not have."""

# ---- the field team's bands

DROP = 0.05
"""mIoU; a larger fall from the best is a warning."""
GOES_ON, TOO_EARLY = 15_000, 20_000
"""Iterations: going on past the first is good, an early stop before the second a warning."""
KEPT_GOOD, KEPT_WARNING, KEPT_CRITICAL = 0.095, 0.038, 0.0095
"""Shares of the pixels, counted over classes from 1 on: 50,000, 20,000 and 5,000 of 8 x 256 x 256."""
KEPT_ALL = 0.95
"""Share of all pixels above which the thresholds filter nothing. Ours: by the team's band V3's decline was good."""
GAP_GOOD, GAP_WARNING, GAP_CRITICAL = 0.10, 0.15, 0.25
"""Training minus validation mIoU."""
CE_HIGH, DICE_HIGH = 0.8, 0.4
"""Where the team's good ranges (cross entropy 0.8 to 0.3, Dice 0.4 to 0.15) begin, for the loss of the V3 recipe."""

# ---- bands of our own, from short trials on labelled images whose truth was known (not a field run)

PRECISION_GOOD, PRECISION_WARNING, PRECISION_CRITICAL = 0.90, 0.75, 0.50
"""Runs at 0.79 to 1.0 kept up with supervised training, one at 0.67 to 0.92 fell behind, one below 0.42 collapsed."""
RATE_AT_PEAK = 0.90
"""Share of the peak rate above which the rate had not yet changed to speak of."""
HIGH_THRESHOLD = 0.90
"""A threshold from which on raising it further is no remedy."""


KEEP_MORE = {
    "fixed": "Lower the thresholds of the classes (selftraining.thresholds).",
    "adaptive": "Lower the least threshold of the classes (selftraining.adaptive_floor).",
    "share": "Raise the share that is kept of each class (selftraining.kept_share).",
}
KEEP_LESS = {
    "fixed": "Raise the thresholds until clearly less is kept, for instance --set selftraining.thresholds=0.9.",
    "adaptive": "Raise the least threshold of the classes, for instance --set selftraining.adaptive_floor=0.9.",
    "share": "Lower the share that is kept of each class (selftraining.kept_share).",
}
"""Remedies by what says which pseudo-labels count (selftraining.keep)."""


def past(iterations: int, c: Course) -> float:
    """One of the field team's edges for a plan.

    They were written for plans of 50,000 and more. A plan of 600 iterations cannot reach 15,000, so below 50,000 the
    edge is the same share of the plan: 30 % and 40 %.
    """
    return iterations * min(c.planned / 50_000, 1.0) if not math.isnan(c.planned) else math.nan


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table.

    Attributes:
        quantity: What is judged.
        band: The verdict.
        when: Whether the rule fits; false where a figure that it compares is unknown.
        sentence: What happened; a format string over the course ``c``.
        advice: What to try, or nothing; or what says so of the course.
    """

    quantity: str
    band: Band
    when: Callable[[Course], bool]
    sentence: str
    advice: str | Callable[[Course], str] = ""


_FELL = (
    "{c.score} peaked at {c.peak_at:,.0f}{c.of_plan} iterations with {c.peak:.4f}{c.beside} and fell {c.fall:.1f} "
    "points to {c.last:.4f} by {c.last_at:,.0f}{c.depth}."
)
_RISES = (
    "{c.score} was still rising where the records end: {c.last:.4f}{c.beside} at "
    "{c.last_at:,.0f}{c.of_plan} iterations."
)
_BEST = "Use the checkpoint of the best evaluation, not the last one."
_RATE_IS = (
    "{c.rate_source} was at {c.rate_at_peak:.0%} of its peak at iteration {c.peak_at:,.0f} and at {c.rate_at_end:.0%} "
    "at the end"
)
_KEPT_IS = "Self-training kept {c.kept:.2%} of the pixels"
_FRONT_IS = "Counted over classes from 1 on, {c.kept_foreground:.2%} of the pixels were kept"
_RIGHT = "Of the kept pixels {c.precision} were labelled right"


def _lower(c: Course) -> str:
    """More pseudo-labels help only where they are right."""
    if c.precision_low < PRECISION_WARNING:
        return (
            "Do not keep more pixels: too little of what is kept is right already. Give the labeller more to "
            "learn from first: a later selftraining.start, or more labels."
        )
    return KEEP_MORE.get(c.keep or "fixed", KEEP_MORE["fixed"])


def _raise(c: Course) -> str:
    return KEEP_LESS.get(c.keep or "fixed", KEEP_LESS["fixed"])


_COMPARE = (
    "Run the same recipe without self-training (--set selftraining.enabled=false) beside it: only that shows what the "
    "unlabelled patches bring."
)
_RAN = "Self-training ran from iteration {c.start:,.0f} on."
_LEARN = "Look for more labelled photos or stronger augmentation."

RULES: tuple[Rule, ...] = (
    # A supervised run has no pseudo-labels: nothing about them is unknown, there is nothing to know.
    *(
        Rule(quantity, "not applicable", lambda c: c.selftraining is False, "No step had pseudo-labels.")
        for quantity in OF_SELFTRAINING
    ),
    # ---- the curve
    Rule(
        CURVE, "unknown", lambda c: c.evaluations == 0 and c.undefined > 0,
        "{c.score} was undefined in all of {c.undefined} evaluations.",
        "See that the validation part has labelled photos with classes beside background (splits.csv).",
    ),
    Rule(
        CURVE, "unknown", lambda c: c.evaluations == 1,
        "{c.score} was measured once, {c.peak:.4f}{c.beside} at {c.peak_at:,.0f}{c.of_plan} iterations, which shows no "
        "course.",
        "Evaluate more often (--set evaluation.every=...).",
    ),
    Rule(CURVE, "warning", lambda c: c.fell and c.deepest > 100 * DROP, _FELL, _BEST),
    Rule(CURVE, "between", lambda c: c.fell, _FELL, _BEST),
    Rule(
        CURVE, "warning", lambda c: c.deepest > 100 * DROP,
        "{c.score} peaked at {c.peak_at:,.0f}{c.of_plan} iterations with {c.peak:.4f}{c.beside}, fell {c.deepest:.1f} "
        "points by {c.lowest_at:,.0f} and had recovered to {c.last:.4f} by {c.last_at:,.0f}.",
    ),
    Rule(
        CURVE, "between", lambda c: c.spread <= NOISE,
        "{c.score} hardly moved in {c.evaluations} evaluations: best {c.peak:.4f}{c.beside} at {c.peak_at:,.0f}"
        "{c.of_plan} iterations.",
        "See whether the network learns at all: it must be able to learn a few labelled patches by heart.",
    ),
    Rule(
        CURVE, "good", lambda c: c.late_gain > NOISE and c.ended >= c.planned,
        "{c.score} was still rising at the end of the plan: {c.last:.4f}{c.beside} at {c.last_at:,.0f}{c.of_plan} "
        "iterations.",
        "Train longer: plan more iterations in a new run, since the schedule of this one has used up its rate.",
    ),
    Rule(
        CURVE, "good",
        lambda c: c.late_gain > NOISE and c.ended < c.planned and (c.stopped_early is None or bool(c.watched)),
        _RISES,  # no advice: the records of a best checkpoint always end at the best, whatever came after
    ),
    Rule(
        CURVE, "good", lambda c: c.late_gain > NOISE and c.ended < c.planned, _RISES,
        "Train longer: go on with `salakseg train --resume`.",
    ),
    Rule(CURVE, "good", lambda c: c.late_gain > NOISE, _RISES, "Train longer."),
    Rule(
        CURVE, "good", lambda c: c.evaluations > 1,
        "{c.score} rose to {c.peak:.4f}{c.beside} at {c.peak_at:,.0f}{c.of_plan} iterations and levelled off"
        "{c.level}.",
    ),
    # ---- how far it came
    Rule(
        LENGTH, "warning", lambda c: bool(c.watched),
        "The watch stopped the run at {c.ended:,.0f}{c.of_plan} iterations: {c.watched}",
        "See what it found with `salakseg diagnose`; --set health.action=guard goes back to the best network instead.",
    ),
    Rule(
        LENGTH, "warning", lambda c: c.stopped_early is True and c.ended < past(TOO_EARLY, c) and c.fell,
        "The run stopped early, at {c.ended:,.0f}{c.of_plan} iterations, when its patience{c.patience_text} ran out.",
        "Find the cause of the fall before raising the patience: patience alone lets the same training go on.",
    ),
    Rule(
        LENGTH, "warning", lambda c: c.stopped_early is True and c.ended < past(TOO_EARLY, c),
        "The run stopped early, at {c.ended:,.0f}{c.of_plan} iterations, when its patience{c.patience_text} ran out.",
        "Raise --early-stop-patience.",
    ),
    Rule(
        LENGTH, "good", lambda c: c.stopped_early is True and c.ended >= past(TOO_EARLY, c),
        "The run stopped at {c.ended:,.0f}{c.of_plan} iterations, when its patience{c.patience_text} ran out.",
    ),
    Rule(
        LENGTH, "unknown", lambda c: c.stopped_early is True,
        "The run stopped early at {c.ended:,.0f} iterations; of how many is unknown.",
    ),
    Rule(LENGTH, "good", lambda c: c.ended >= c.planned, "The run went through all {c.planned:,.0f} iterations."),
    Rule(
        LENGTH, "good", lambda c: c.stopped_early is False and c.ended > past(GOES_ON, c),
        "The run ended at {c.ended:,.0f}{c.of_plan} iterations with patience left: interrupted, or still going.",
    ),
    Rule(
        LENGTH, "between", lambda c: c.stopped_early is False and c.ended < c.planned,
        "The run ended at {c.ended:,.0f}{c.of_plan} iterations with patience left: interrupted, or still going.",
    ),
    Rule(
        LENGTH, "unknown", lambda c: c.ended < c.planned,
        "The records end at {c.ended:,.0f}{c.of_plan} iterations; what came after is unknown.",
    ),
    Rule(
        LENGTH, "unknown", lambda c: c.ended > 0,
        "The records end at {c.ended:,.0f} iterations; how many were planned is unknown.",
    ),
    # ---- the learning rate: the team blames it for every drop; it is blamed here only where the log does
    Rule(
        RATE, "warning", lambda c: c.fell and c.peak_at <= c.warmup and c.rate_at_peak < 1,
        "{c.rate_source} was still rising in the warm-up when the score turned, at {c.rate_at_peak:.0%} of its peak: "
        "it can be the cause.",
        "Try a lower --learning-rate or a longer warm-up.",
    ),
    Rule(
        RATE, "warning", lambda c: c.fell and c.loss_rises and c.selftraining is False and c.rate_at_peak > 0,
        _RATE_IS + "; the loss rises as well, without any pseudo-labels, so the rate can be the cause.",
        "Try a lower --learning-rate.",
    ),
    Rule(
        RATE, "between", lambda c: c.fell and c.loss_rises and c.rate_at_peak > 0,
        _RATE_IS + "; the loss rises as well, so the rate cannot be ruled out.",
    ),
    Rule(
        RATE, "good", lambda c: c.fell and c.rate_at_peak >= RATE_AT_PEAK,
        _RATE_IS + ": the score rose to its best at that very rate, so it is not the cause.",
    ),
    Rule(
        RATE, "good", lambda c: c.fell and c.rate_at_peak < RATE_AT_PEAK,
        _RATE_IS + ": it was coming down before the score turned, so a high rate is not the cause.",
    ),
    Rule(RATE, "good", lambda c: c.rate_at_peak >= 0, _RATE_IS + "."),
    Rule(RATE, "good", lambda c: c.rate_at_end >= 0, "{c.rate_source} ended at {c.rate_at_end:.0%} of its peak."),
    # ---- self-training: how many pixels
    Rule(
        KEPT, "warning", lambda c: c.kept > KEPT_ALL and c.least_threshold >= HIGH_THRESHOLD,
        _KEPT_IS + ": even thresholds from {c.least_threshold:g} on filter nothing, so lowering them cannot help, and "
        "confidence no longer tells right from wrong.",
        "Do not lower the thresholds; change who labels, and what the student sees.",
    ),
    Rule(
        KEPT, "warning", lambda c: c.kept > KEPT_ALL,
        _KEPT_IS + ": the thresholds filter nothing, so lowering them cannot help.",
        _raise,
    ),
    # Kept over classes from 1 on is at most this, so the team's lower bands hold here too.
    Rule(KEPT, "critical", lambda c: c.kept < KEPT_CRITICAL, _KEPT_IS + ": it is all but dead.", _lower),
    Rule(KEPT, "warning", lambda c: c.kept < KEPT_WARNING, _KEPT_IS + ": it has little to learn from.", _lower),
    Rule(KEPT, "good", lambda c: c.kept <= KEPT_ALL, _KEPT_IS + ": the thresholds do filter."),
    Rule(
        KEPT_FOREGROUND, "critical", lambda c: c.kept_foreground < KEPT_CRITICAL and c.kept > KEPT_ALL,
        _FRONT_IS + ", though nearly everything was kept: nearly everything is labelled background.",
    ),
    Rule(
        KEPT_FOREGROUND, "warning", lambda c: c.kept_foreground < KEPT_WARNING and c.kept > KEPT_ALL,
        _FRONT_IS + ", though nearly everything was kept: nearly everything is labelled background.",
    ),
    Rule(
        KEPT_FOREGROUND, "critical", lambda c: c.kept_foreground < KEPT_CRITICAL,
        _FRONT_IS + ": the unlabelled patches teach next to nothing.", _lower,
    ),
    Rule(
        KEPT_FOREGROUND, "warning", lambda c: c.kept_foreground < KEPT_WARNING,
        _FRONT_IS + ": the unlabelled patches teach little.", _lower,
    ),
    Rule(KEPT_FOREGROUND, "between", lambda c: c.kept_foreground <= KEPT_GOOD, _FRONT_IS + "."),
    Rule(
        KEPT_FOREGROUND, "good", lambda c: c.kept_foreground > KEPT_GOOD and c.fell,
        _FRONT_IS + ": good by the field team's band, which says how many are kept and not whether they are right.",
    ),
    Rule(KEPT_FOREGROUND, "good", lambda c: c.kept_foreground > KEPT_GOOD, _FRONT_IS + "."),
    # ---- self-training: which labels, and how they count (no bands of the team)
    Rule(
        PRECISION, "critical", lambda c: c.precision_low < PRECISION_CRITICAL,
        _RIGHT + ": the student learns mostly mistakes.",
        "Stop self-training on these labels (--set selftraining.enabled=false) until most of them are right.",
    ),
    Rule(
        PRECISION, "warning", lambda c: c.precision_low < PRECISION_WARNING,
        _RIGHT + ": too few to learn from without harm.",
        "Lower the weight of self-training until more of its labels are right.",
    ),
    Rule(PRECISION, "between", lambda c: c.precision_low < PRECISION_GOOD, _RIGHT + "."),
    Rule(PRECISION, "good", lambda c: c.precision_low >= PRECISION_GOOD, _RIGHT + "."),
    Rule(
        LABELLER, "warning", lambda c: c.suspect and c.labeller == "student",
        "The pseudo-labels come from the student itself, which so learns its own mistakes.",
        "Let the moving average label (--set selftraining.labeller=teacher).",
    ),
    Rule(LABELLER, "between", lambda c: c.labeller == "student", "The pseudo-labels come from the student itself."),
    Rule(
        LABELLER, "good", lambda c: c.labeller == "teacher",
        "The pseudo-labels come from the moving average, as a teacher.",
    ),
    Rule(
        WEIGHTS, "warning", lambda c: c.suspect and c.class_weighted is True,
        "Class weights act on the pseudo-labels, so that a few false pixels of a rare class can rule a batch.",
        "Take the class weights off the pseudo-labels (--set selftraining.class_weighted=false).",
    ),
    Rule(WEIGHTS, "between", lambda c: c.class_weighted is True, "Class weights act on the pseudo-labels."),
    Rule(WEIGHTS, "good", lambda c: c.class_weighted is False, "No class weights act on the pseudo-labels."),
    Rule(
        BACKGROUND, "not applicable", lambda c: c.keep in ("adaptive", "share"),
        "The thresholds follow how sure the labeller is of each class.",
    ),
    Rule(
        BACKGROUND, "warning", lambda c: c.background_threshold == 0 and c.kept > KEPT_ALL,
        "The background threshold of 0 lets every background pixel in.",
        "Ask background pixels for confidence too (--set selftraining.background_threshold=0.9).",
    ),
    Rule(
        BACKGROUND, "between", lambda c: c.background_threshold == 0,
        "The background threshold of 0 lets every background pixel in.",
    ),
    Rule(
        BACKGROUND, "good", lambda c: c.background_threshold > 0,
        "Background pixels need a confidence of {c.background_threshold:g}.",
    ),
    Rule(
        START, "warning", lambda c: c.suspect and c.fell_at_start,
        "The score turned when self-training began, at iteration {c.start:,.0f}.",
        _COMPARE,
    ),
    Rule(
        START, "good", lambda c: c.fell_before_start,
        "The score turned before self-training began, at iteration {c.start:,.0f}, so self-training is not the cause.",
    ),
    Rule(
        START, "between", lambda c: c.suspect and c.start >= 0, _RAN, _COMPARE,
    ),
    Rule(START, "good", lambda c: c.selftraining is True and c.start >= 0, _RAN),
    # ---- fitting the labels; the team would raise the weight of self-training, which no log has shown to help
    Rule(
        GAP, "critical", lambda c: c.gap > GAP_CRITICAL,
        "Training mIoU is {c.gap:.3f} above {c.score_name}: the labelled patches are learnt by heart.", _LEARN,
    ),
    Rule(
        GAP, "warning", lambda c: c.gap > GAP_WARNING,
        "Training mIoU is {c.gap:.3f} above {c.score_name}, which points to overfitting.", _LEARN,
    ),
    Rule(GAP, "between", lambda c: c.gap >= GAP_GOOD, "Training mIoU is {c.gap:.3f} above {c.score_name}."),
    Rule(
        GAP, "good", lambda c: c.gap < GAP_GOOD,
        "Training mIoU minus {c.score_name} is {c.gap:.3f}, no sign of overfitting, if no photo is in both parts.",
    ),
    Rule(
        LOSS, "critical", lambda c: c.loss_broken, "The loss is no longer a finite number.",
        "Start again with a lower --learning-rate.",
    ),
    Rule(
        LOSS, "critical", lambda c: c.loss_rises and c.suspect,
        "The loss rose from {c.loss_lowest:.3f} to {c.loss_last:.3f} while pseudo-labels took part.",
        "If the loss still rises without self-training, start again with a lower --learning-rate.",
    ),
    Rule(
        LOSS, "critical", lambda c: c.loss_rises,
        "The loss rose from {c.loss_lowest:.3f} to {c.loss_last:.3f}: the training diverges.",
        "Start again with a lower --learning-rate.",
    ),
    Rule(
        LOSS, "warning", lambda c: c.fell and c.selftraining is False and c.loss_last < c.loss_first,
        "The loss went on falling, from {c.loss_first:.3f} to {c.loss_last:.3f}, while validation fell: the "
        "labelled patches are learnt by heart.", _LEARN,
    ),
    Rule(
        LOSS, "unknown", lambda c: c.losses > 0 and math.isnan(c.loss_last),
        "The loss was logged too seldom to judge, {c.losses} times.",
    ),
    Rule(LOSS, "good", lambda c: c.loss_last >= 0, "The loss went from {c.loss_first:.3f} to {c.loss_last:.3f}."),
    # The team's ranges are of a loss that trains on both parts; a part that is only logged does not have to fall.
    Rule(CE, "not applicable", lambda c: c.ce_counts is False, "The recipe does not train on cross entropy."),
    Rule(CE, "good", lambda c: c.ce <= CE_HIGH, "Cross entropy ended at {c.ce:.3f}."),
    Rule(CE, "between", lambda c: c.ce > CE_HIGH, "Cross entropy ended at {c.ce:.3f}, above the usual 0.8 to 0.3."),
    Rule(DICE, "not applicable", lambda c: c.dice_counts is False, "The recipe does not train on the Dice loss."),
    Rule(DICE, "good", lambda c: c.dice <= DICE_HIGH, "The Dice loss ended at {c.dice:.3f}."),
    Rule(
        DICE, "between", lambda c: c.dice > DICE_HIGH,
        "The Dice loss ended at {c.dice:.3f}, above the usual 0.4 to 0.15.",
    ),
)  # fmt: skip
"""The whole judgement, by quantity; of each quantity the first rule that fits speaks."""
