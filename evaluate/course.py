"""The course of a run in figures: what the rules of `salakseg.evaluate.diagnosis` look at.

A figure that was not logged is NaN. Every comparison with NaN is false, so no rule can fire on what is not known.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from salakseg.evaluate.history import Series, TrainingHistory, finite

NOISE = 0.01
"""mIoU; two evaluations that differ by less count as equal. Ours, not the field team's."""

LOSS_RISE = 1.1
"""A loss counts as rising when its last quarter lies this factor above its lowest one; single batches vary by less."""

_LEAST_LOSSES = 8  # records; quarters of fewer than two say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The figures of one run. Scores and shares run from 0 to 1; NaN, or None, is unknown.

    Attributes:
        score_name: What the score is called, with whether background is in it.
        evaluations, undefined: Number of evaluations with a figure, and of those without.
        peak, peak_at: The best score and its iteration, the first of equals.
        beside: The score with background at the peak in brackets, or nothing.
        last, last_at: The last score and its iteration.
        lowest, lowest_at: The lowest score from the peak on.
        since_start: The best score from the last evaluation before self-training began on.
        spread: Highest minus lowest score.
        late_gain: The last score minus the last one within the first three quarters.
        ended: The last iteration with any record.
        planned: Iterations planned.
        stopped_early, watched, patience, every, warmup: See `TrainingHistory` and `Plan`.
        rate_at_peak, rate_at_end: Learning rate at the best score and at the end as a share of its own peak.
        rate_source: Where the shares come from, as the beginning of a sentence.
        kept, kept_foreground: Share of kept pixels once settled: the median over the second half of the records.
        precision_low, precision_high: Range of the pseudo-labels' precision over the second half of the records.
        gap: mIoU on training patches minus validation mIoU, at the last evaluation that has both.
        losses: Number of records of the loss, all of them since the run last went back to an older network.
        loss_first, loss_lowest, loss_last: Medians of the loss over its first, its lowest and its last quarter; the
            supervised loss, since the whole one jumps by design when self-training starts.
        loss_broken: Whether the last record of the loss is not a finite number.
        ce, dice: Medians over the last quarter.
        ce_counts, dice_counts: Whether the recipe trains on them.
        selftraining: Whether self-training took part in the steps that were logged.
        start, weight: First step of self-training and its weight.
        labeller, class_weighted, keep, background_threshold, least_threshold: See `Plan`.
    """

    score_name: str
    evaluations: int
    undefined: int
    peak: float
    peak_at: float
    beside: str
    last: float
    last_at: float
    lowest: float
    lowest_at: float
    since_start: float
    spread: float
    late_gain: float
    ended: float
    planned: float
    stopped_early: bool | None
    watched: str
    patience: float
    every: float
    warmup: float
    rate_at_peak: float
    rate_at_end: float
    rate_source: str
    kept: float
    kept_foreground: float
    precision_low: float
    precision_high: float
    gap: float
    losses: int
    loss_first: float
    loss_lowest: float
    loss_last: float
    loss_broken: bool
    ce: float
    dice: float
    ce_counts: bool | None
    dice_counts: bool | None
    selftraining: bool | None
    start: float
    weight: float
    labeller: str | None
    class_weighted: bool | None
    keep: str | None
    background_threshold: float
    least_threshold: float

    @property
    def score(self) -> str:
        """The name of the score as the beginning of a sentence."""
        return self.score_name[:1].upper() + self.score_name[1:]

    @property
    def fall(self) -> float:
        """From the peak to the last evaluation, in points."""
        return round(100 * (self.peak - self.last), 6)  # 0.61 - 0.60 is a little more than 0.01 in binary

    @property
    def deepest(self) -> float:
        """From the peak to the lowest evaluation after it, in points."""
        return round(100 * (self.peak - self.lowest), 6)

    @property
    def fell(self) -> bool:
        """Whether the run ended clearly below its peak."""
        return self.fall > 100 * NOISE

    @property
    def loss_rises(self) -> bool:
        """Whether the loss ended clearly above its lowest stretch."""
        return self.loss_last > LOSS_RISE * self.loss_lowest

    @property
    def fell_at_start(self) -> bool:
        """Whether the score turned down when self-training began, as nearly as the evaluations tell."""
        kept_up = round(100 * (self.peak - self.since_start), 6) <= 100 * NOISE
        return self.fell_since_start and kept_up and self.peak_at <= self.start + self.every

    @property
    def fell_since_start(self) -> bool:
        """Whether the run ended clearly below what it had when self-training began, or after that."""
        return round(100 * (self.since_start - self.last), 6) > 100 * NOISE

    @property
    def fell_before_start(self) -> bool:
        """Whether the score turned down before self-training began, and not any further since."""
        return self.fell and not self.fell_since_start and self.peak_at < self.start

    @property
    def suspect(self) -> bool:
        """Whether self-training can have caused a fall: it took part, with a weight, before the score turned."""
        return self.selftraining is True and self.weight != 0 and self.fell and not self.fell_before_start

    @property
    def of_plan(self) -> str:
        """The planned iterations as the end of "at iteration 4,000", or nothing."""
        return "" if math.isnan(self.planned) else f" of {self.planned:,.0f}"

    @property
    def precision(self) -> str:
        """The range of the precision for people; one figure where both ends read the same."""
        low, high = f"{self.precision_low:.0%}", f"{self.precision_high:.0%}"
        return low if low == high else f"{low} to {high}"

    @property
    def weighting(self) -> str | None:
        """Whether class weights act on pseudo-labels, for people."""
        return None if self.class_weighted is None else ("on" if self.class_weighted else "off")

    @property
    def level(self) -> str:
        """The last score as the end of "levelled off", or nothing where it is the best."""
        return "" if self.last_at == self.peak_at else f", with {self.last:.4f} at {self.last_at:,.0f}"

    @property
    def depth(self) -> str:
        """The lowest evaluation in brackets where it is clearly below the last, or nothing."""
        if not self.last - self.lowest > NOISE:
            return ""
        return f" (at its lowest, at {self.lowest_at:,.0f}, it was {self.deepest:.1f} points down)"

    @property
    def patience_text(self) -> str:
        """How long was waited for a new best, or nothing if unknown."""
        if math.isnan(self.patience) or math.isnan(self.every):
            return ""
        return f" of {self.patience:,.0f} evaluations, {self.patience * self.every:,.0f} iterations,"


def course_of(history: TrainingHistory) -> Course:
    """Reduces a history to its figures."""
    plan = history.plan
    scores = finite(history.val_miou)
    peak_at, peak = max(scores, key=lambda entry: entry[1], default=(math.nan, math.nan))
    last_at, last = scores[-1] if scores else (math.nan, math.nan)
    lowest_at, lowest = min(
        (entry for entry in scores if entry[0] >= peak_at), key=lambda entry: entry[1], default=(math.nan, math.nan)
    )
    start = _known(plan.selftraining_start)
    values = [value for _, value in scores]
    beside = dict(finite(history.val_miou_with_background)).get(int(peak_at)) if scores else None
    losses = history.loss_sup or _whole_loss(history)
    if history.went_back is not None:  # to an older network, which had learned the labels less well
        losses = tuple(entry for entry in losses if entry[0] > history.went_back)
    quarters = _quarters(losses)
    precision = _second_half(history.pseudo_precision)
    ended = _known(history.ended)
    return Course(
        score_name=history.score_name,
        evaluations=len(scores),
        undefined=len(history.val_miou) - len(scores),
        peak=peak,
        peak_at=peak_at,
        beside="" if beside is None else f" ({beside:.4f} with background)",
        last=last,
        last_at=last_at,
        lowest=lowest,
        lowest_at=lowest_at,
        since_start=_since(scores, start),
        spread=max(values) - min(values) if values else math.nan,
        late_gain=_late_gain(scores),
        ended=ended,
        planned=_known(plan.iterations),
        stopped_early=history.stopped_early,
        watched=history.watched,
        patience=_known(plan.patience),
        every=_known(plan.evaluate_every),
        warmup=_known(plan.warmup),
        rate_at_peak=_rate_share(history, peak_at),
        rate_at_end=_rate_share(history, ended),
        rate_source="The learning rate" if finite(history.learning_rate) else "By its schedule the learning rate",
        kept=median(_second_half(history.kept_share) or [math.nan]),
        kept_foreground=median(_second_half(history.kept_share_foreground) or [math.nan]),
        precision_low=min(precision, default=math.nan),
        precision_high=max(precision, default=math.nan),
        gap=_gap(history),
        losses=len(losses),
        loss_first=quarters[0],
        loss_lowest=min(quarters),
        loss_last=quarters[-1],
        loss_broken=bool(losses) and not math.isfinite(losses[-1][1]),
        ce=_at_end(history.ce),
        dice=_at_end(history.dice),
        ce_counts=None if plan.ce is None else plan.ce > 0,
        dice_counts=None if plan.dice is None else plan.dice > 0,
        selftraining=_took_part(history),
        start=start,
        weight=_known(plan.selftraining_weight),
        labeller=plan.labeller,
        class_weighted=plan.class_weighted,
        keep=plan.keep,
        background_threshold=_known(plan.background_threshold),
        least_threshold=_known(plan.least_threshold),
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _second_half(series: Series) -> list[float]:
    """What came after the start, where pseudo-labels change with every step."""
    values = [value for _, value in finite(series)]
    return values[len(values) // 2 :]


def _quarters(series: Series) -> list[float]:
    """Medians over the four quarters of the records, in order; NaN if there are too few."""
    values = [value for _, value in finite(series)]
    if len(values) < _LEAST_LOSSES:
        return [math.nan] * 4
    edges = [len(values) * i // 4 for i in range(5)]
    return [median(values[a:b]) for a, b in pairwise(edges)]


def _at_end(series: Series) -> float:
    values = [value for _, value in finite(series)]
    return median(values[-max(1, len(values) // 4) :]) if values else math.nan


def _whole_loss(history: TrainingHistory) -> Series:
    """The whole loss since self-training began, before which it lacks a part."""
    if history.plan.selftraining is False:
        return history.loss
    start = history.plan.selftraining_start or 0
    return tuple(entry for entry in history.loss if entry[0] > start)


def _since(scores: Series, start: float) -> float:
    """The best score from the last evaluation that had nothing of self-training on."""
    before = [iteration for iteration, _ in scores if iteration <= start]
    return max((value for iteration, value in scores if iteration >= max(before, default=start)), default=math.nan)


def _late_gain(scores: Series) -> float:
    """What the last quarter of the run brought, by the iterations and not by the number of evaluations."""
    if len(scores) < 2:
        return math.nan
    early = [value for iteration, value in scores[:-1] if iteration <= 0.75 * scores[-1][0]]
    return scores[-1][1] - (early[-1] if early else scores[0][1])


def _rate_share(history: TrainingHistory, iteration: float) -> float:
    """The rate at an iteration as a share of its peak: the last one logged by then, or else the plan's."""
    if math.isnan(iteration):
        return math.nan
    rates = finite(history.learning_rate)
    by_then = [rate for at, rate in rates if at <= iteration]
    # The highest rate logged is the peak only if the warm-up is over; the recipe knows it at any time.
    peak = history.plan.peak_rate or max((rate for _, rate in rates), default=math.nan)
    return by_then[-1] / peak if by_then and peak > 0 else history.plan.rate_share(int(iteration))


def _gap(history: TrainingHistory) -> float:
    train, val = dict(finite(history.train_miou)), dict(finite(history.val_miou))
    both = sorted(train.keys() & val.keys())
    return round(train[both[-1]] - val[both[-1]], 6) if both else math.nan


def _took_part(history: TrainingHistory) -> bool | None:
    plan, ended = history.plan, history.ended
    if history.kept_share or history.kept_share_foreground or history.loss_unsup:
        return True
    if plan.selftraining and plan.selftraining_start is not None and ended is not None:
        return plan.selftraining_start < ended  # the precision is measured before it begins, too
    return True if history.pseudo_precision else plan.selftraining
