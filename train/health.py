"""The rules by which a run judges itself as it goes: one table.

`evaluate/rules.py` judges the whole course of a run for the report. Here each evaluation is judged with what was known
by then. The bands are the same ones, and so is the search for causes: where a score falls, advice comes from what the
report's rules find wrong in the course so far, not from the fall itself.

Of each quantity the first rule that fits speaks. A rule that compares a figure that was not logged does not fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from salakseg.evaluate.rules import (
    CURVE,
    DROP,
    GAP,
    GAP_CRITICAL,
    GAP_GOOD,
    GAP_WARNING,
    KEEP_MORE,
    KEPT,
    KEPT_ALL,
    KEPT_CRITICAL,
    KEPT_FOREGROUND,
    KEPT_GOOD,
    KEPT_WARNING,
    LENGTH,
    LOSS,
    PRECISION,
    PRECISION_CRITICAL,
    PRECISION_GOOD,
    PRECISION_WARNING,
    RATE,
    TOO_EARLY,
    past,
)
from salakseg.train.readings import Reading
from salakseg.train.situation import Situation

Level = Literal["good", "between", "warning", "critical"]

STREAK = "course of validation mIoU"
TREND = "course of the precision"
BALANCE = "classes of the pseudo-labels"
GRADIENT = "gradient"
SKIPS = "skipped steps"
MEMORY = "memory"

# ---- bands of our own, beside those of evaluate/rules.py

EXPLODED = 3.0
"""A supervised loss of this many times its lowest mean has left the course; single batches differ by less than 2."""
STEEP = 10.0
"""A mean gradient norm of this many times its usual one."""
MOST_SKIPPED = 0.1
"""Share of the steps between two records of the losses that may lack a finite gradient before the watch acts."""
MEMORY_FULL = 0.95
"""Share of the device's memory above which the next larger batch of a multi-scale step may not fit."""

Text = str | Callable[[Situation], str]
"""A format string over the situation ``s`` and its latest reading ``r``, or a function."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table.

    Attributes:
        quantity: What is judged.
        level: The band.
        when: Whether the rule fits.
        seen: What was seen.
        why: Why it matters.
        change: What to change.
        acts: Whether it calls for action where the recipe allows any.
    """

    quantity: str
    level: Level
    when: Callable[[Situation], bool]
    seen: Text
    why: Text = ""
    change: Text = ""
    acts: bool = False


_KEPT_NOW = "Self-training kept {r.kept:.2%} of the pixels"
_FRONT_NOW = "Counted over the classes from 1 on, self-training kept {r.kept_foreground:.2%} of the pixels"
_RIGHT_NOW = "Of the kept pixels {r.precision:.0%} are labelled right, as measured on the {r.precision_part} part"
_FELL_TO = (
    "Validation mIoU is {s.drop:.4f} below its best, {s.best.miou:.4f} at {s.best.iteration:,}, with {r.miou:.4f} at "
    "{r.iteration:,}"
)
_BY_HEART = (
    "Label more photos, or strengthen the augmentation (augment.jitter, augment.rotation); more pseudo-labels help "
    "only where they are right."
)
_SLOWER = "Go back to the best checkpoint with a lower --learning-rate."


def _lower(s: Situation) -> str:
    """Lower thresholds help only where what they keep out is right."""
    if s.now.kept > KEPT_ALL:
        return s.causes()
    if s.now.precision < PRECISION_WARNING:
        return (
            f"Do not keep more pixels: only {s.now.precision:.0%} of what is kept is right already. Give the "
            "labeller more to learn from first: a later selftraining.start, or more labels."
        )
    return KEEP_MORE.get(s.plan.keep or "fixed", KEEP_MORE["fixed"])


def _less_of_the_class(s: Situation) -> str:
    if s.plan.keep in ("share", "adaptive"):
        return s.causes(
            "See whether the unlabelled photos show so much of it; if not, label a few photos where the labeller takes "
            "something else for it (salakseg suggest)."
        )
    return s.causes(
        "Raise the threshold of that class (selftraining.thresholds, for background "
        "selftraining.background_threshold), and see whether the unlabelled photos show so much of it."
    )


def _filter_more(s: Situation) -> str:
    if s.now.precision >= PRECISION_GOOD:
        return "Watch the precision: while it stays this high, thresholds are not needed."
    return s.causes("Do not keep more pixels.")


def _why_fallen(s: Situation) -> str:
    return " ".join(part for part in ("The last checkpoint is not the one to use.", s.sentence(RATE)) if part)


RULES: tuple[Rule, ...] = (
    # ---- the score
    Rule(CURVE, "warning", lambda s: s.drop > DROP, _FELL_TO + ".", _why_fallen, Situation.causes),
    Rule(CURVE, "good", lambda s: s.drop == 0, "Validation mIoU is at its best so far, {r.miou:.4f}."),
    Rule(CURVE, "between", lambda s: s.drop > 0, _FELL_TO + "."),
    # One evaluation may be unlucky; several in a row are a course. This is what an action waits for.
    Rule(
        STREAK, "warning", lambda s: s.streak >= s.falling,
        "Validation mIoU has been clearly below its best of {s.best.miou:.4f} at {s.best.iteration:,} for {s.streak} "
        "evaluations in a row.",
        "What the network learns now does not help on held-out photos; more of the same makes it worse.",
        Situation.causes, acts=True,
    ),
    Rule(STREAK, "good", lambda s: s.streak == 0 and s.now.miou >= 0, "Validation mIoU keeps up with its best."),
    Rule(
        LENGTH, "warning", lambda s: s.now.stopped and s.now.iteration < past(TOO_EARLY, s.course),
        "The run stopped early, at {r.iteration:,}{s.course.of_plan} iterations.",
        "What the rest of the plan, with its falling rate, would have brought is unknown.",
        lambda s: (
            s.causes("Find the cause of the fall before raising the patience.")
            if s.course.fell
            else "Raise --early-stop-patience."
        ),
    ),
    # ---- pseudo-labels: how many
    Rule(
        KEPT, "warning", lambda s: s.now.kept > KEPT_ALL,
        lambda s: f"{_KEPT_NOW.format(r=s.now)}: the thresholds filter nothing{_of_which(s.now)}.",
        "Every mistake of the labeller is taught as if it were a label, so lower thresholds cannot help. The field "
        "team's V3 fell at 99.75 %.",
        _filter_more,
    ),
    Rule(KEPT, "good", lambda s: s.now.kept >= 0, _KEPT_NOW + ": the thresholds do filter."),
    # Before a second evaluation with pseudo-labels the network had no time to become sure of anything
    Rule(
        KEPT_FOREGROUND, "critical", lambda s: s.now.kept_foreground < KEPT_CRITICAL and s.taught > 1,
        _FRONT_NOW + ".", "The unlabelled photos teach next to nothing.", _lower,
    ),
    Rule(
        KEPT_FOREGROUND, "warning", lambda s: s.now.kept_foreground < KEPT_WARNING and s.taught > 1,
        _FRONT_NOW + ".", "The unlabelled photos teach little.", _lower,
    ),
    Rule(KEPT_FOREGROUND, "between", lambda s: s.now.kept_foreground <= KEPT_GOOD, _FRONT_NOW + "."),
    Rule(KEPT_FOREGROUND, "good", lambda s: s.now.kept_foreground > KEPT_GOOD, _FRONT_NOW + "."),
    # ---- pseudo-labels: which
    Rule(
        PRECISION, "critical", lambda s: s.now.precision < PRECISION_CRITICAL and s.taught > 1, _RIGHT_NOW + ".",
        "The student learns mostly mistakes.",
        lambda s: s.causes("Begin self-training later (selftraining.start), or go without it."), acts=True,
    ),
    Rule(
        PRECISION, "warning", lambda s: s.now.precision < PRECISION_WARNING and s.taught > 1, _RIGHT_NOW + ".",
        "In trials with known truth, runs with so few right ones fell behind supervised training.",
        lambda s: s.causes("Lower the weight of self-training (selftraining.weight)."),
    ),
    Rule(PRECISION, "between", lambda s: s.now.precision < PRECISION_GOOD, _RIGHT_NOW + "."),
    Rule(PRECISION, "good", lambda s: s.now.precision >= PRECISION_GOOD, _RIGHT_NOW + "."),
    Rule(
        TREND, "warning", lambda s: s.precision_streak >= s.falling,
        "The precision of the pseudo-labels has been below its best of {s.best_precision:.0%} for {s.precision_streak} "
        "evaluations in a row; now it is {r.precision:.0%}.",
        "The labeller is learning its own mistakes, and the score will follow.", Situation.causes, acts=True,
    ),
    Rule(TREND, "good", lambda s: s.precision_streak == 0 and s.now.precision >= 0, "The precision keeps up."),
    Rule(
        BALANCE, "warning", lambda s: s.swallower is not None, "{s.swallowed} of the labelled ones.",
        "A class that swallows others among the pseudo-labels soon does so in the map.", _less_of_the_class,
    ),
    Rule(
        BALANCE, "good", lambda s: s.now.divergence >= 0,
        "The classes of the pseudo-labels are spread like the labelled ones but for {r.divergence:.2f} nats.",
    ),
    # ---- fitting the labels; the team would raise the weight of self-training for that
    Rule(
        GAP, "critical", lambda s: s.now.gap > GAP_CRITICAL,
        "mIoU on labelled patches is {r.gap:.3f} above validation.", "The labelled patches are learnt by heart.",
        _BY_HEART,
    ),
    Rule(
        GAP, "warning", lambda s: s.now.gap > GAP_WARNING,
        "mIoU on labelled patches is {r.gap:.3f} above validation.", "That points to overfitting.", _BY_HEART,
    ),
    Rule(GAP, "between", lambda s: s.now.gap >= GAP_GOOD, "mIoU on labelled patches is {r.gap:.3f} above validation."),
    Rule(GAP, "good", lambda s: s.now.gap < GAP_GOOD, "mIoU on labelled patches minus validation is {r.gap:.3f}."),
    # ---- the arithmetic
    Rule(
        LOSS, "critical", lambda s: s.now.loss_broken and not 0 < s.now.skipped <= MOST_SKIPPED,
        "The loss was no finite number in some steps.",
        "Such a step teaches nothing, and one that is not skipped spoils every weight.", _SLOWER, acts=True,
    ),
    Rule(
        LOSS, "critical", lambda s: s.now.loss_sup > EXPLODED * s.lowest_loss,
        "The supervised loss is {r.loss_sup:.3f}, and was {s.lowest_loss:.3f} at its lowest.",
        "The training diverges.", lambda s: s.causes(_SLOWER), acts=True,
    ),
    Rule(
        LOSS, "critical", lambda s: s.course.loss_rises,
        "The loss rose from {s.course.loss_lowest:.3f} to {s.course.loss_last:.3f}.",
        "A loss on labels that rises is a training that diverges, or labels that pseudo-labels contradict.",
        lambda s: s.causes(),
    ),
    Rule(LOSS, "good", lambda s: s.now.loss >= 0, "The loss is {r.loss:.3f}."),
    Rule(
        SKIPS, "warning", lambda s: s.now.skipped > 0, "{r.skipped:.1%} of the steps had no finite gradient.",
        "They were left out; the more there are, the nearer is a loss that is no number.",
        "Lower --learning-rate, or compute in float32 (--set precision=32-true).",
    ),
    Rule(
        GRADIENT, "warning", lambda s: s.now.gradient_norm > STEEP * s.usual_gradient,
        "The gradient's norm is {r.gradient_norm:.3g}, and was {s.usual_gradient:.3g} before.",
        "Clipping keeps a step short, not its direction right; a loss that explodes often begins so.",
        lambda s: s.causes("If it stays, lower --learning-rate."),
    ),
    Rule(GRADIENT, "good", lambda s: s.now.gradient_norm >= 0, "The gradient's norm is {r.gradient_norm:.3g}."),
    Rule(
        MEMORY, "warning", lambda s: s.now.batch_parts > 1,
        "The device's memory does not suffice: each batch is learned in {r.batch_parts:.0f} parts.",
        "The batch counts as before, but a step takes longer.",
        "Close what else uses the device, or take half the --batch-size (the field team took 4).",
    ),
    Rule(
        MEMORY, "warning", lambda s: s.now.memory_share > MEMORY_FULL,
        "{r.memory_share:.0%} of the device's memory were taken, {r.memory_gib:.1f} GiB.",
        "The next larger multi-scale batch may not fit; it is then learned in parts, which takes longer.",
        "Lower --scale-max, or take half the --batch-size.",
    ),
    Rule(MEMORY, "good", lambda s: s.now.memory_gib >= 0, "{r.memory_gib:.1f} GiB of memory were taken."),
)  # fmt: skip
"""The whole judgement, by quantity; of each quantity the first rule that fits speaks."""

QUANTITIES = tuple(dict.fromkeys(rule.quantity for rule in RULES))


def _of_which(reading: Reading) -> str:
    return f", and {reading.precision:.0%} of what is kept is right" if reading.precision >= 0 else ""
