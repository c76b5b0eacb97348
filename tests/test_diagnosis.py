"""What is said about a run, on the curves that the project knows and at the edges of every band."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from salakseg.evaluate.course import course_of
from salakseg.evaluate.diagnosis import Diagnosis, Finding, diagnose
from salakseg.evaluate.history import Plan, Series, TrainingHistory, history_of
from salakseg.evaluate.recorded import load_recorded
from salakseg.evaluate.rules import (
    BACKGROUND,
    CE,
    CURVE,
    DICE,
    GAP,
    KEPT,
    KEPT_FOREGROUND,
    LABELLER,
    LENGTH,
    LOSS,
    OF_SELFTRAINING,
    PRECISION,
    RATE,
    RULES,
    START,
    VALUES,
    WEIGHTS,
)
from salakseg.train.recipe import load_recipe

NAN = math.nan


def plan_of(name: str, **changes: Any) -> Plan:
    return replace(Plan.from_recipe(load_recipe(name).model_dump(mode="json")), **changes)


def curve(*values: float, every: int = 100) -> Series:
    return tuple((every * (i + 1), value) for i, value in enumerate(values))


def finding(history: TrainingHistory, quantity: str) -> Finding:
    (found,) = [entry for entry in diagnose(history).findings if entry.quantity == quantity]
    return found


def v3() -> TrainingHistory:
    (run,) = [run for run in load_recorded().runs if run.name == "V3"]
    return TrainingHistory(plan=plan_of("v3"), stopped_early=True, val_miou=run.curve, kept_share=((11_500, 0.9975),))


def full() -> TrainingHistory:
    """V3's curve as if everything had been logged."""
    steps = range(1_000, 12_000, 1_000)
    return replace(
        v3(),
        val_miou_with_background=tuple((iteration, 0.01 + value) for iteration, value in v3().val_miou),
        kept_share_foreground=((11_500, 0.68),),
        pseudo_precision=((11_500, 0.6),),
        train_miou=((11_500, 0.80),),
        learning_rate=tuple((step, 2.5e-4 * v3().plan.rate_share(step)) for step in steps),
        loss_sup=tuple((step, 1.0 + abs(step - 5_000) / 10_000) for step in steps),
        ce=((11_500, 0.9),),
        dice=((11_500, 0.5),),
    )


# ---- the curves that the project knows


def test_v3_is_told_as_what_it_was() -> None:
    diagnosis = diagnose(v3())
    for words in (
        "without background peaked at 4,000 of 50,000 iterations with 0.6214 and fell 4.3 points to 0.5783 by 11,500",
        "(at its lowest, at 9,000, it was 8.2 points down)",
        "stopped early, at 11,500 of 50,000 iterations, when its patience of 15 evaluations, 7,500 iterations, ran out",
        "learning rate was at 99 % of its peak at iteration 4,000 and at 89 % at the end",
        "so it is not the cause",
        "kept 99.75 % of the pixels: the thresholds filter nothing, so lowering them cannot help",
        "come from the student itself",
        "Class weights act on the pseudo-labels",
        "The background threshold of 0 lets every background pixel in",
        "--set selftraining.labeller=teacher",
        "--set selftraining.class_weighted=false",
        "Unknown, since not logged: kept pixels (classes from 1 on), precision of pseudo-labels",
    ):
        assert words in diagnosis.paragraph
    assert diagnosis.peak == (4_000, 0.6214)
    assert diagnosis.last == (11_500, 0.5783)
    assert diagnosis.decline == pytest.approx(4.31)
    assert diagnosis.stopped_early is True
    assert "lower --learning-rate" not in diagnosis.paragraph.lower()
    assert "Lower the thresholds" not in diagnosis.paragraph
    assert {f.quantity for f in diagnosis.findings if f.band == "warning"} == {
        *(CURVE, LENGTH, KEPT, LABELLER, WEIGHTS, BACKGROUND)
    }


def test_the_advice_that_v3_gets_is_a_recipe_that_loads() -> None:
    changes = [word.strip("().") for word in diagnose(v3()).paragraph.split() if word.startswith("selftraining.")]
    assert len(changes) == 5
    for change in changes:
        key, value = change.removeprefix("selftraining.").split("=")
        parsed: Any = {"true": True, "false": False}.get(value, float(value) if value[0].isdigit() else value)
        load_recipe("v3", [{"selftraining": {key: parsed}}])


def test_a_good_share_over_the_classes_does_not_excuse_thresholds_that_filter_nothing() -> None:
    history = replace(v3(), kept_share_foreground=((11_500, 0.68),))
    assert finding(history, KEPT_FOREGROUND).band == "good"
    assert finding(history, KEPT).band == "warning"
    assert "not whether they are right" in diagnose(history).paragraph


def test_v31_fell_while_its_rate_was_coming_down() -> None:
    history = TrainingHistory(
        plan=plan_of("phase2"), stopped_early=False, val_miou=((53_000, 0.6512), (74_900, 0.6231))
    )
    diagnosis = diagnose(history)
    assert "peaked at 53,000 of 75,000 iterations with 0.6512 and fell 2.8 points to 0.6231" in diagnosis.paragraph
    assert "at 21 % of its peak at iteration 53,000 and at 0 % at the end" in diagnosis.paragraph
    assert "so a high rate is not the cause" in diagnosis.paragraph
    assert finding(history, CURVE).band == "between"
    assert finding(history, LENGTH).band == "good"


def test_unimatch_kept_nearly_all_at_a_threshold_of_095() -> None:
    plan = Plan(iterations=80, selftraining=True, labeller="student", class_weighted=False, least_threshold=0.95)
    history = TrainingHistory(plan=plan, val_miou=((33, 0.8293), (80, 0.7502)), kept_share=((80, 0.993),))
    diagnosis = diagnose(history)
    assert "peaked at 33 of 80 iterations" in diagnosis.paragraph and "fell 7.9 points" in diagnosis.paragraph
    assert "kept 99.30 % of the pixels: even thresholds from 0.95 on filter nothing" in diagnosis.paragraph
    assert "Raise the thresholds" not in diagnosis.paragraph
    assert "labeller=teacher" in diagnosis.paragraph and "class_weighted" not in diagnosis.paragraph
    assert "Unknown, since not logged: learning rate," in diagnosis.paragraph


def test_the_quick_trials_collapse_is_told_by_its_precision_weights_and_start() -> None:
    plan = plan_of("v3", iterations=600, warmup=30, selftraining_start=300, evaluate_every=50, patience=100)
    history = TrainingHistory(
        plan=plan,
        stopped_early=False,
        val_miou=curve(0.30, 0.40, 0.46, 0.49, 0.50, 0.51, 0.22, 0.20, 0.19, 0.18, 0.18, 0.18, every=50),
        kept_share=curve(0.96, 0.97, 0.96),
        pseudo_precision=((350, 0.6), (400, 0.42), (450, 0.30), (500, 0.23)),
    )
    diagnosis = diagnose(history)
    assert finding(history, PRECISION).band == "critical"
    assert finding(history, START).band == "warning"
    assert finding(history, WEIGHTS).band == "warning"
    assert finding(history, LENGTH).band == "good"
    assert "23 % to 30 % were labelled right: the student learns mostly mistakes" in diagnosis.paragraph
    assert "turned when self-training began, at iteration 300" in diagnosis.paragraph


def test_a_healthy_rising_run_is_told_to_go_on() -> None:
    history = TrainingHistory(
        plan=plan_of("phase1", labeller="teacher", class_weighted=False, background_threshold=0.9),
        stopped_early=False,
        val_miou=tuple((step, 0.3 + step / 250_000) for step in range(5_000, 75_001, 5_000)),
        kept_share=((75_000, 0.7),),
        kept_share_foreground=((75_000, 0.5),),
    )
    diagnosis = diagnose(history)
    assert "was still rising at the end of the plan: 0.6000 at 75,000 of 75,000" in diagnosis.paragraph
    assert "Train longer: plan more iterations in a new run" in diagnosis.paragraph
    assert not {"warning", "critical"} & {f.band for f in diagnosis.findings}
    assert "rate was" not in diagnosis.paragraph and "were kept" not in diagnosis.paragraph  # nothing to explain
    assert diagnosis.decline == 0


# ---- other courses


def test_a_short_run_is_measured_by_its_own_plan() -> None:
    plan = Plan(iterations=600, patience=2, evaluate_every=50)
    ran = TrainingHistory(plan=plan, stopped_early=False, val_miou=((300, 0.5), (600, 0.52)))
    assert finding(ran, LENGTH).band == "good"
    assert "early" not in diagnose(ran).paragraph
    soon = TrainingHistory(plan=plan, stopped_early=True, val_miou=((100, 0.5), (200, 0.5)))
    assert finding(soon, LENGTH).band == "warning"
    later = TrainingHistory(plan=plan, stopped_early=True, val_miou=((100, 0.5), (240, 0.5)))
    assert finding(later, LENGTH).band == "good"
    assert "patience of 2 evaluations, 100 iterations, ran out" in diagnose(later).paragraph


@pytest.mark.parametrize(
    ("ended", "planned", "stopped", "band"),
    [
        (19_999, 50_000, True, "warning"),
        (20_000, 50_000, True, "good"),
        (19_999, 75_000, True, "warning"),
        (20_000, 75_000, True, "good"),
        (15_000, 75_000, False, "between"),
        (15_001, 75_000, False, "good"),
        (50_000, 50_000, None, "good"),
        (15_001, 75_000, None, "unknown"),
        (11_500, None, True, "unknown"),
        (11_500, None, None, "unknown"),
    ],
)
def test_the_band_of_the_length(ended: int, planned: int | None, stopped: bool | None, band: str) -> None:
    values = ((1_000, 0.5), (ended, 0.5))
    history = TrainingHistory(plan=Plan(iterations=planned), stopped_early=stopped, val_miou=values)
    assert finding(history, LENGTH).band == band
    assert f"{ended:,}" in finding(history, LENGTH).value


@pytest.mark.parametrize(
    ("values", "band", "words"),
    [
        ((0.2, 0.6, 0.55), "between", "fell 5.0 points"),
        ((0.2, 0.6, 0.5499), "warning", "fell 5.0 points"),
        ((0.2, 0.6, 0.59), "good", "levelled off, with 0.5900 at 300"),
        ((0.2, 0.6, 0.5899), "between", "fell 1.0 points"),
        ((0.2, 0.6, 0.50, 0.595), "warning", "fell 10.0 points by 300 and had recovered to 0.5950"),
        ((0.5, 0.501, 0.499, 0.5), "between", "hardly moved in 4 evaluations"),
        ((0.0, 0.0), "between", "hardly moved"),
        ((0.2, 0.5, 0.6, 0.605, 0.607), "good", "and levelled off."),
        ((0.2, 0.3, 0.4, 0.5), "good", "still rising where the records end"),
        ((0.3,), "unknown", "measured once, 0.3000"),
        ((NAN, NAN), "unknown", "undefined in all of 2 evaluations"),
        ((0.2, NAN, 0.6, 0.5), "warning", "peaked at 300"),
        ((), "unknown", "since it was not logged"),
    ],
)
def test_the_band_of_the_curve(values: tuple[float, ...], band: str, words: str) -> None:
    found = finding(TrainingHistory(val_miou=curve(*values)), CURVE)
    assert found.band == band
    assert words in found.sentence


def test_the_records_of_a_best_checkpoint_promise_nothing_about_what_came_after() -> None:
    history = TrainingHistory(plan=plan_of("v3"), val_miou=v3().val_miou[:8])
    paragraph = diagnose(history).paragraph
    assert "what came after is unknown" in paragraph
    assert "Train longer" not in paragraph
    assert "--resume" in diagnose(replace(history, stopped_early=False)).paragraph


def test_a_supervised_run_has_nothing_unknown_about_pseudo_labels() -> None:
    history = TrainingHistory(
        plan=plan_of("quick"), stopped_early=False, val_miou=curve(0.4, 0.5, 0.55, 0.58, 0.59, 0.6)
    )
    diagnosis = diagnose(history)
    for quantity in OF_SELFTRAINING:
        assert finding(history, quantity).band == finding(history, quantity).value == "not applicable"
        assert quantity not in diagnosis.paragraph
    before_start = replace(history, plan=plan_of("v3", iterations=600, selftraining_start=600))
    assert finding(before_start, LABELLER).band == "not applicable"
    assert finding(history, DICE).band == "not applicable"  # logged in some runs, trained on in none of this recipe


def test_a_supervised_fall_beside_a_falling_loss_is_overfitting() -> None:
    losses = tuple((step, 1.0 - step / 1_000) for step in range(50, 601, 50))
    history = TrainingHistory(plan=plan_of("quick"), val_miou=curve(0.4, 0.6, 0.55, 0.5, 0.5, 0.5), loss_sup=losses)
    assert "learnt by heart" in diagnose(history).paragraph
    assert finding(history, RATE).band == "good"


def test_the_rate_is_blamed_where_the_log_does() -> None:
    plan = plan_of("quick", warmup=300)
    in_warmup = TrainingHistory(plan=plan, val_miou=curve(0.4, 0.6, 0.5, 0.4, 0.4, 0.4))
    assert finding(in_warmup, RATE).band == "warning"
    assert "Try a lower --learning-rate" in diagnose(in_warmup).paragraph
    rising = tuple((step, 1.0 + step / 600) for step in range(50, 601, 50))
    diverging = replace(in_warmup, plan=plan_of("quick"), loss_sup=rising)
    assert finding(diverging, RATE).band == "warning"
    assert finding(diverging, LOSS).band == "critical"
    with_pseudo_labels = replace(full(), loss_sup=tuple((step, float(step)) for step in range(1_000, 12_000, 1_000)))
    assert finding(with_pseudo_labels, RATE).band == "between"
    assert "is not the cause" not in diagnose(with_pseudo_labels).paragraph


def test_the_logged_rate_goes_before_the_planned_one() -> None:
    history = replace(v3(), learning_rate=((3_950, 1.0e-4), (11_500, 0.5e-4)))
    assert "The learning rate was at 40 % of its peak at iteration 4,000 and at 20 % at the end" in (
        diagnose(history).paragraph
    )
    assert "By its schedule the learning rate" in diagnose(v3()).paragraph
    unplanned = replace(history, plan=Plan())
    assert "at 100 % of its peak at iteration 4,000 and at 50 % at the end" in diagnose(unplanned).paragraph


def test_a_fall_before_self_training_is_not_laid_at_its_door() -> None:
    history = replace(v3(), plan=plan_of("v3", selftraining_start=9_000))
    assert finding(history, LABELLER).band == "between"
    assert "turned before self-training began, at iteration 9,000, so self-training is not the cause" in (
        diagnose(history).paragraph
    )
    assert finding(replace(v3(), plan=plan_of("v3", selftraining_weight=0.0)), WEIGHTS).band == "between"


def test_an_early_peak_is_no_alibi_for_self_training() -> None:
    plan = plan_of("v3", iterations=12_000, selftraining_start=4_000, evaluate_every=500, patience=100)
    kept_up = curve(0.5, 0.55, 0.58, 0.59, 0.595, 0.60, 0.599, 0.599, 0.57, 0.52, 0.48, 0.45, every=500)
    fallen_twice = curve(0.5, 0.55, 0.58, 0.59, 0.595, 0.60, 0.59, 0.585, 0.57, 0.52, 0.48, 0.45, every=500)
    fallen_before = curve(0.5, 0.55, 0.58, 0.59, 0.595, 0.60, 0.59, 0.58, 0.575, 0.58, 0.582, 0.575, every=500)
    bands = {}
    for name, scores in {"up": kept_up, "twice": fallen_twice, "before": fallen_before}.items():
        history = TrainingHistory(plan=plan, stopped_early=False, val_miou=scores, kept_share=curve(0.9, every=5_000))
        bands[name] = finding(history, START).band
    assert bands == {"up": "warning", "twice": "between", "before": "good"}


def test_a_loss_is_not_said_to_rise_where_the_run_went_back_to_an_older_network() -> None:
    loss = (
        *((step, 1 - step / 1_000) for step in range(50, 501, 50)),
        *((step, 0.8) for step in range(550, 1_001, 50)),
    )
    records: list[dict[str, Any]] = [{"kind": "train", "iteration": step, "loss_sup": value} for step, value in loss]
    records += [{"kind": "val", "iteration": step, "miou_without_background": 0.5} for step in (500, 1_000)]
    rises = [course_of(history_of(records, Plan(), "log")).loss_rises]
    records.append({"kind": "event", "iteration": 500, "event": "rollback"})
    rises.append(course_of(history_of(records, Plan(), "log")).loss_rises)
    assert rises == [True, False]


def test_a_loss_that_broke_is_critical() -> None:
    history = TrainingHistory(loss=((50, 1.0), (100, NAN)), val_miou=curve(0.4, 0.5))
    assert finding(history, LOSS).band == "critical"
    assert finding(replace(history, loss=((50, NAN), (100, 1.0))), LOSS).sentence == (
        "The loss was logged too seldom to judge, 2 times."
    )


def test_the_whole_loss_may_jump_when_self_training_starts() -> None:
    plan = plan_of("v3", iterations=2_000, selftraining_start=1_000)
    losses = tuple((step, 0.5 if step <= 1_000 else 1.5 - step / 10_000) for step in range(50, 2_001, 50))
    assert finding(TrainingHistory(plan=plan, loss=losses), LOSS).band == "good"
    assert finding(TrainingHistory(plan=replace(plan, selftraining=False), loss=losses), LOSS).band == "critical"


# ---- the edges of the bands


@pytest.mark.parametrize(
    ("share", "band"),
    [
        *((0.0, "critical"), (0.0094, "critical"), (0.0095, "warning"), (0.0379, "warning")),
        *((0.038, "between"), (0.095, "between"), (0.0951, "good"), (1.0, "good")),
    ],
)
def test_the_bands_of_kept_pixels_over_classes(share: float, band: str) -> None:
    assert finding(TrainingHistory(kept_share_foreground=((5, share),)), KEPT_FOREGROUND).band == band


@pytest.mark.parametrize(
    ("share", "band"),
    [(0.0094, "critical"), (0.0379, "warning"), (0.038, "good"), (0.95, "good"), (0.9501, "warning")],
)
def test_the_bands_of_kept_pixels_over_all(share: float, band: str) -> None:
    assert finding(TrainingHistory(kept_share=((5, share),)), KEPT).band == band


def test_thresholds_that_filter_nothing_are_not_lowered_even_if_few_pixels_are_of_a_class() -> None:
    few = TrainingHistory(kept_share=((5, 0.9975),), kept_share_foreground=((5, 0.005),))
    assert finding(few, KEPT_FOREGROUND).band == "critical"
    assert "Lower the thresholds" not in diagnose(few).paragraph
    assert "labelled background" in diagnose(few).paragraph
    assert "Lower the thresholds" in diagnose(replace(few, kept_share=((5, 0.3),))).paragraph


def test_a_background_threshold_that_has_no_effect_is_not_unknown() -> None:
    history = TrainingHistory(kept_share=((5, 0.5),), plan=plan_of("phase4"))
    assert finding(history, BACKGROUND).band == "not applicable"
    assert "background threshold" not in diagnose(history).paragraph


@pytest.mark.parametrize(
    ("keep", "setting"),
    [("fixed", "selftraining.thresholds"), ("adaptive", "adaptive_floor"), ("share", "selftraining.kept_share")],
)
def test_the_remedy_names_a_setting_that_has_an_effect(keep: str, setting: str) -> None:
    plan = Plan(keep=keep)
    assert setting in finding(TrainingHistory(kept_share=((5, 0.005),), plan=plan), KEPT).advice
    assert setting in finding(TrainingHistory(kept_share=((5, 0.97),), plan=plan), KEPT).advice


@pytest.mark.parametrize(
    ("train", "band"),
    [
        *((0.5, "good"), (0.599, "good"), (0.6, "between"), (0.65, "between"), (0.651, "warning")),
        *((0.75, "warning"), (0.751, "critical")),
    ],
)
def test_the_bands_of_the_gap(train: float, band: str) -> None:
    history = TrainingHistory(val_miou=((5, 0.5), (9, 0.4)), train_miou=((5, train),))
    assert finding(history, GAP).band == band


@pytest.mark.parametrize(
    ("precision", "band"),
    [(0.49, "critical"), (0.5, "warning"), (0.74, "warning"), (0.75, "between"), (0.89, "between"), (0.9, "good")],
)
def test_the_bands_of_precision(precision: float, band: str) -> None:
    history = TrainingHistory(pseudo_precision=((1, 0.1), (2, 0.1), (3, precision), (4, 1.0)))
    assert finding(history, PRECISION).band == band  # the first half is the start, where labels are still changing


@pytest.mark.parametrize(("quantity", "edge"), [(CE, 0.8), (DICE, 0.4)])
def test_the_bands_of_the_parts_of_the_loss(quantity: str, edge: float) -> None:
    def band(value: float) -> str:
        name = {CE: "ce", DICE: "dice"}[quantity]
        return finding(TrainingHistory(**{name: ((5, value),)}), quantity).band  # type: ignore[arg-type]

    assert (band(edge), band(edge + 0.001)) == ("good", "between")


# ---- what was not logged

NO_PLAN: dict[str, dict[str, Any]] = {
    RATE: {"iterations": None},
    LABELLER: {"labeller": None},
    WEIGHTS: {"class_weighted": None},
    BACKGROUND: {"background_threshold": None},
    START: {"selftraining_start": None},
}
NO_SERIES: dict[str, dict[str, Any]] = {
    RATE: {"learning_rate": ()},
    KEPT: {"kept_share": ()},
    KEPT_FOREGROUND: {"kept_share_foreground": ()},
    PRECISION: {"pseudo_precision": ()},
    GAP: {"train_miou": ()},
    LOSS: {"loss_sup": ()},
    CE: {"ce": ()},
    DICE: {"dice": ()},
}


def without(quantity: str) -> TrainingHistory:
    history = replace(full(), **NO_SERIES.get(quantity, {}))
    return replace(history, plan=replace(history.plan, **NO_PLAN.get(quantity, {})))


def told(diagnosis: Diagnosis) -> str:
    return diagnosis.paragraph.split("Unknown, since not logged:")[0]


@pytest.mark.parametrize("quantity", sorted(NO_PLAN.keys() | NO_SERIES.keys()))
def test_what_was_not_logged_is_unknown_and_the_paragraph_is_silent_on_it(quantity: str) -> None:
    before, after = finding(full(), quantity), finding(without(quantity), quantity)
    assert before.band not in ("unknown", "not applicable")
    assert before.sentence in told(diagnose(full())) or quantity in (CE, DICE)
    assert (after.value, after.band, after.advice) == ("unknown", "unknown", "")
    assert after.sentence.lower() == f"{quantity.lower()}: unknown, since it was not logged."
    assert after.sentence not in told(diagnose(without(quantity)))
    words = {
        RATE: ["rate"],
        KEPT: ["99.75 %", "filter nothing", "Raise the thresholds"],
        KEPT_FOREGROUND: ["classes from 1 on"],
        PRECISION: ["labelled right"],
        LABELLER: ["student itself", "labeller"],
        WEIGHTS: ["lass weights", "class_weighted"],
        BACKGROUND: ["ackground threshold", "background_threshold"],
        START: ["ran from iteration"],
        GAP: ["Training mIoU"],
        LOSS: ["The loss"],
        CE: ["ross entropy"],
        DICE: ["Dice"],
    }[quantity]
    if quantity != RATE:  # advice on a rising loss names the rate too
        assert not any(word in told(diagnose(without(quantity))) for word in words)
    else:
        assert "learning rate" not in told(diagnose(without(quantity)))
    assert quantity in diagnose(without(quantity)).paragraph.split("Unknown, since not logged:")[1]


def test_without_evaluations_nothing_is_said_of_a_peak_or_a_fall() -> None:
    diagnosis = diagnose(replace(full(), val_miou=()))
    assert diagnosis.peak is None and diagnosis.last is None and math.isnan(diagnosis.decline)
    for word in ("peaked", "fell", "fall", "best", "score", "mIoU"):
        assert word not in told(diagnosis)
    assert "Unknown, since not logged: validation mIoU," in diagnosis.paragraph


def test_of_nothing_everything_is_unknown() -> None:
    diagnosis = diagnose(TrainingHistory())
    assert {f.band for f in diagnosis.findings} == {"unknown"}
    assert diagnosis.paragraph == f"Unknown, since not logged: {', '.join(VALUES)}."


def test_no_number_that_is_none_reaches_a_sentence() -> None:
    histories = [full(), v3(), TrainingHistory(), *(without(quantity) for quantity in NO_SERIES | NO_PLAN)]
    histories += [replace(history, val_miou=()) for history in histories]
    histories += [replace(history, plan=Plan()) for history in histories]
    histories += [replace(history, stopped_early=stop) for history in histories for stop in (None, False)]
    for history in histories:
        diagnosis = diagnose(history)
        everything = json.dumps(diagnosis.to_dict(), allow_nan=False)
        assert " nan" not in everything and "None" not in everything and "{" not in diagnosis.paragraph


def test_the_table_covers_the_quantities_and_its_sentences_are_sentences() -> None:
    assert {rule.quantity for rule in RULES} == set(VALUES)
    course = replace(course_of(full()), watched="The score fell by 5.0 points.")
    for rule in RULES:
        advice = rule.advice(course) if callable(rule.advice) else rule.advice
        for text in (rule.sentence.format(c=course), advice):
            assert text == "" or (text.endswith(".") and ".." not in text.replace("...", "")), text


def test_a_diagnosis_is_plain_values() -> None:
    record = diagnose(v3()).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["peak"] == [4_000, 0.6214]
    assert record["findings"][0]["quantity"] == CURVE
