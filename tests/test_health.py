"""The rules of the watch: one by one on made-up records, on whole curves, and as `salakseg diagnose` replays them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import command
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from salakseg.evaluate.history import Plan
from salakseg.evaluate.recorded import load_recorded
from salakseg.evaluate.rules import CURVE, GAP, KEPT, KEPT_FOREGROUND, LENGTH, LOSS, PRECISION
from salakseg.train.alarms import Judgement, alarms_of, replay
from salakseg.train.health import BALANCE, GRADIENT, MEMORY, QUANTITIES, SKIPS, STREAK, TREND
from salakseg.train.readings import kl_divergence, readings_of
from salakseg.train.recipe import load_recipe
from salakseg.train.settings_health import HealthConfig
from salakseg.train.watch import Watch, breakdown

V3 = Plan.from_recipe(load_recipe("v3").model_dump(mode="json"))
SUPERVISED = Plan(iterations=50_000, warmup=1_000, selftraining=False, patience=15, evaluate_every=500)
Records = list[dict[str, Any]]


def run_of(scores: list[float], **series: Any) -> Records:
    """A log with an evaluation every 500 steps; a list gives a figure at each of them, None where it was not logged.

    Names that begin with ``step_`` are of the steps before, all others of the evaluation.
    """
    records: Records = []
    for number, score in enumerate(scores):
        here = {key: values[number] if isinstance(values, list) else values for key, values in series.items()}
        here = {key: value for key, value in here.items() if value is not None}
        iteration = 500 * (number + 1)
        steps = {key.removeprefix("step_"): value for key, value in here.items() if key.startswith("step_")}
        rest = {key: value for key, value in here.items() if not key.startswith("step_")}
        records.append({"kind": "train", "iteration": iteration, **steps})
        records.append({"kind": "val", "iteration": iteration, "miou_without_background": score})
        records.append({"kind": "watch", "iteration": iteration, **rest})
    return records


def last(records: Records, quantity: str, plan: Plan = V3) -> Judgement:
    """What the table says of a quantity at the end; it must say something."""
    return next(judgement for judgement in replay(records, plan, 3)[-1] if judgement.quantity == quantity)


def said(records: Records, plan: Plan = V3) -> list[tuple[int, str, str]]:
    return [(alarm.iteration, alarm.quantity, alarm.level) for alarm in alarms_of(replay(records, plan, 3))]


def v3_records() -> Records:
    (v3,) = (run for run in load_recorded().runs if run.name == "V3")
    steps = [{"kind": "train", "iteration": at, "kept_share": 0.9975} for at, _ in v3.curve if at > 500]
    curve = [{"kind": "val", "iteration": at, "miou_without_background": miou} for at, miou in v3.curve]
    return [*steps, *curve, {"kind": "event", "iteration": 11_500, "event": "stopped early"}]


def test_v3_would_have_been_warned_in_time() -> None:
    """The field team's curve: what was wrong from the first self-training steps on, the fall, and its early end."""
    alarms = alarms_of(replay(v3_records(), V3, 3))
    assert [(alarm.iteration, alarm.quantity, alarm.level, alarm.acts) for alarm in alarms] == [
        (1_000, KEPT, "warning", False),  # 3,000 steps before the peak
        (6_500, CURVE, "warning", False),  # 0.6214 - 0.5699 is the first drop above 0.05
        (9_000, CURVE, "warning", False),
        (9_000, STREAK, "warning", True),  # 6,500, 7,000 and 9,000 lie below; 4,500 and 5,000 are within the noise
        (11_500, LENGTH, "warning", False),
    ]
    kept, drop = alarms[0], alarms[1]
    assert "99.75 %" in kept.seen and kept.change.startswith("Do not keep more pixels.")
    # The team would have lowered the rate; the log says that it was not the cause, and what can be
    assert "so it is not the cause" in drop.why and "--learning-rate" not in drop.change
    for cause in ("selftraining.thresholds", "labeller=teacher", "class_weighted=false", "background_threshold"):
        assert cause in drop.change


def test_v3_under_guard_goes_back_once_the_fall_is_a_course() -> None:
    records = v3_records()
    for action, expected in (("guard", "roll back"), ("stop", "stop"), ("warn", "go on")):
        watch = Watch(HealthConfig(action=action), V3)  # type: ignore[arg-type]
        acted = {}
        for reading in readings_of(records):
            verdict = watch.evaluated([record for record in records if record["iteration"] <= reading.iteration])
            acted[reading.iteration] = verdict.action
        assert [at for at, action in acted.items() if action != "go on"] == ([9_000, 11_500] * (action != "warn"))
        assert acted[9_000] == expected


RISING = [0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("quantity", "figures", "level"),
    [
        # the field team's bands as shares: 50,000, 20,000 and 5,000 of 8 x 256 x 256 pixels
        (KEPT_FOREGROUND, {"step_kept_share": 0.5, "step_kept_share_foreground": 0.10}, "good"),
        (KEPT_FOREGROUND, {"step_kept_share": 0.5, "step_kept_share_foreground": 0.05}, "between"),
        (KEPT_FOREGROUND, {"step_kept_share": 0.5, "step_kept_share_foreground": 0.03}, "warning"),
        (KEPT_FOREGROUND, {"step_kept_share": 0.5, "step_kept_share_foreground": 0.009}, "critical"),
        (KEPT, {"step_kept_share": 0.951}, "warning"),
        (KEPT, {"step_kept_share": 0.95}, "good"),
        (GAP, {"train_miou": 0.59}, "good"),
        (GAP, {"train_miou": 0.60}, "between"),
        (GAP, {"train_miou": 0.65}, "between"),
        (GAP, {"train_miou": 0.66}, "warning"),
        (GAP, {"train_miou": 0.76}, "critical"),
        (PRECISION, {"pseudo_precision": 0.90}, "good"),
        (PRECISION, {"pseudo_precision": 0.89}, "between"),
        (PRECISION, {"pseudo_precision": 0.74}, "warning"),
        (PRECISION, {"pseudo_precision": 0.49}, "critical"),
        (TREND, {"step_kept_share": 0.5, "pseudo_precision": [0.9, 0.84, 0.84, 0.84]}, "warning"),
        (TREND, {"step_kept_share": 0.5, "pseudo_precision": [0.9, 0.84, 0.86, 0.9]}, "good"),
        # classes 0 and 1 make 40 and 60 % of the labels: half of what is not its own is 30 and 20 %
        (BALANCE, {"step_kept_pixels": [71, 29], "labelled_share": [0.4, 0.6]}, "warning"),
        (BALANCE, {"step_kept_pixels": [69, 31], "labelled_share": [0.4, 0.6]}, "good"),
        (BALANCE, {"step_kept_pixels": [19, 81], "labelled_share": [0.4, 0.6]}, "warning"),
        (LOSS, {"step_loss": [1, 1, 1, None], "step_loss_sup": [1.0, 0.5, 0.4, 1.3]}, "critical"),
        (LOSS, {"step_loss": 1.0, "step_loss_sup": [1.0, 0.5, 0.4, 1.1]}, "good"),
        (LOSS, {"step_loss": [1.0, 1.0, 1.0, math.nan]}, "critical"),
        (GRADIENT, {"step_gradient_norm": [1.0, 2.0, 3.0, 21.0]}, "warning"),
        (GRADIENT, {"step_gradient_norm": [1.0, 2.0, 3.0, 19.0]}, "good"),
        (SKIPS, {"step_skipped_share": [0.0, 0.0, 0.0, 0.02]}, "warning"),
        (MEMORY, {"memory_gib": 7.8, "memory_share": 0.96}, "warning"),
        (MEMORY, {"memory_gib": 7.8, "memory_share": 0.94}, "good"),
        (MEMORY, {"memory_gib": 7.8, "batch_parts": 2}, "warning"),
    ],
)  # fmt: skip
def test_each_band(quantity: str, figures: dict[str, Any], level: str) -> None:
    # A row of class counts is one figure, a list of four is one for each evaluation
    rows = {
        key: [value] * 4 if isinstance(value, list) and len(value) == 2 else value for key, value in figures.items()
    }
    judgement = last(run_of(RISING, **rows), quantity)
    assert judgement.level == level
    assert judgement.is_alarm == (level in ("warning", "critical"))
    if judgement.is_alarm:
        assert judgement.seen and judgement.why and judgement.change


def test_of_what_was_not_logged_nothing_is_said() -> None:
    quantities = {judgement.quantity for judgement in replay(run_of(RISING), V3, 3)[-1]}
    assert quantities == {CURVE, STREAK}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5, 0.6, 0.55, 0.58, 0.59], []),  # exactly 0.05 is no drop, and 0.01 is noise
        ([0.5, 0.6, 0.5499], [(1_500, CURVE, "warning")]),
        ([0.5, 0.6, 0.58, 0.57, 0.58], [(2_500, STREAK, "warning")]),
        ([0.5, 0.6, 0.58, 0.57, 0.595, 0.58], []),
        # said once while it lasts, and again when it comes back
        ([0.5, 0.6, 0.5, 0.59, 0.5], [(1_500, CURVE, "warning"), (2_500, CURVE, "warning")]),
        ([0.5, 0.6, 0.54, 0.54], [(1_500, CURVE, "warning")]),
    ],
)
def test_a_falling_score(scores: list[float], expected: list[tuple[int, str, str]]) -> None:
    assert said(run_of(scores)) == expected


def test_after_a_rollback_the_fall_is_counted_anew() -> None:
    scores = [0.5, 0.6, 0.58, 0.57, 0.58, 0.58, 0.58, 0.58]
    records = run_of(scores)
    records.append({"kind": "event", "iteration": 2_500, "event": "rollback"})
    records.sort(key=lambda record: record["iteration"])  # as it stands in a log: after the evaluation that led to it
    alarms = said(records)
    assert alarms == [(2_500, STREAK, "warning"), (4_000, STREAK, "warning")]


def test_a_worse_level_is_said_again_and_a_better_one_is_not() -> None:
    records = run_of([0.3] * 4, train_miou=[0.46, 0.47, 0.6, 0.5])
    assert [entry for entry in said(records) if entry[1] == GAP] == [(500, GAP, "warning"), (1_500, GAP, "critical")]


def test_thresholds_are_not_to_be_lowered_where_pseudo_labels_are_wrong() -> None:
    few = {"step_kept_share": 0.5, "step_kept_share_foreground": 0.005}
    assert "Lower the thresholds" in last(run_of(RISING, **few), KEPT_FOREGROUND).change
    wrong = last(run_of(RISING, **few, pseudo_precision=0.6), KEPT_FOREGROUND)
    assert "Do not keep more pixels: only 60 %" in wrong.change
    swallowed = last(run_of(RISING, step_kept_share=0.97, step_kept_share_foreground=0.005), KEPT_FOREGROUND)
    assert "Raise the thresholds" in swallowed.change
    share = Plan.from_recipe(load_recipe("phase2", [{"selftraining": {"keep": "share"}}]).model_dump(mode="json"))
    assert "selftraining.kept_share" in last(run_of(RISING, **few), KEPT_FOREGROUND, share).change
    swallowing = {"step_kept_pixels": [[71, 29]] * 4, "labelled_share": [[0.4, 0.6]] * 4}
    assert "selftraining.thresholds" in last(run_of(RISING, **swallowing), BALANCE).change
    assert "thresholds" not in last(run_of(RISING, **swallowing), BALANCE, share).change


def test_advice_of_one_evaluation_does_not_contradict_itself() -> None:
    records = run_of(
        [0.1, 0.1, 0.1],
        step_kept_share=0.02,
        step_kept_share_foreground=0.001,
        pseudo_precision=[0.1, 0.1, 0.1],
        pseudo_precision_part="calibration",
    )
    advice = " ".join(judgement.change for judgement in replay(records, V3, 3)[-1])
    assert "Do not keep more pixels" in advice
    assert "Lower the thresholds" not in advice


def test_too_few_pixels_are_no_alarm_before_the_network_had_time() -> None:
    few = {"step_kept_share": [None, 0.005, 0.005], "step_kept_share_foreground": [None, 0.005, 0.005]}
    assert said(run_of([0.1, 0.2, 0.3], **few)) == [(1_500, KEPT_FOREGROUND, "critical")]


def test_an_early_stop_is_judged_by_the_plan() -> None:
    for plan, stop, warned in ((V3, 19_500, True), (V3, 20_000, False), (Plan(iterations=600), 200, True)):
        records: Records = [{"kind": "val", "iteration": stop, "miou_without_background": 0.5}]
        records.append({"kind": "event", "iteration": stop, "event": "stopped early"})
        alarms = alarms_of(replay(records, plan, 3))
        assert [alarm.quantity for alarm in alarms] == [LENGTH] * warned
        assert not warned or alarms[0].change == "Raise --early-stop-patience."


@pytest.mark.parametrize(("part", "acts"), [("calibration", True), ("val", False)])
def test_precision_on_the_validation_part_decides_nothing(part: str, acts: bool) -> None:
    records = run_of(RISING, step_kept_share=0.5, pseudo_precision=0.3, pseudo_precision_part=part)
    alarm = last(records, PRECISION)
    assert (alarm.level, alarm.acts) == ("critical", acts)
    assert f"on the {part} part" in alarm.seen
    verdict = Watch(HealthConfig(action="guard"), V3).evaluated(records)
    assert verdict.action == ("roll back" if acts else "go on")


@pytest.mark.parametrize("action", ["stop", "guard"])
def test_what_pseudo_labels_would_be_like_before_there_are_any_calls_for_no_action(action: Any) -> None:
    """With fixed thresholds it is measured from the first evaluation on, when the labeller knows next to nothing."""
    before = run_of([0.1, 0.2, 0.3], pseudo_precision=[0.9, 0.45, 0.45], pseudo_precision_part="calibration")
    late = replace(V3, selftraining_start=1_500)
    assert Watch(HealthConfig(action=action), late).evaluated(before).action == "go on"
    # and a labeller that was sure of next to nothing then is no yardstick for what it keeps later
    scores, kept = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [None, 0.5, 0.5, 0.5, 0.5, 0.5]
    after = run_of(
        scores, pseudo_precision=[0.99, *[0.8] * 5], pseudo_precision_part="calibration", step_kept_share=kept
    )
    assert Watch(HealthConfig(action=action), V3).evaluated(after).action == "go on"
    taught = run_of(RISING, pseudo_precision=0.45, pseudo_precision_part="calibration", step_kept_share=0.5)
    assert Watch(HealthConfig(action=action), V3).evaluated(taught).action != "go on"


def test_one_skipped_step_calls_for_no_action() -> None:
    """Its loss makes the mean of fifty steps no number; it was left out."""
    lost = [1.0, 1.0, 1.0, math.nan]
    one = run_of(RISING, step_loss=lost, step_loss_sup=lost, step_skipped_share=[0.0, 0.0, 0.0, 0.02])
    many = run_of(RISING, step_loss=lost, step_loss_sup=lost, step_skipped_share=[0.0, 0.0, 0.0, 0.2])
    assert Watch(HealthConfig(action="guard"), V3).evaluated(one).action == "go on"
    assert Watch(HealthConfig(action="guard"), V3).evaluated(many).action == "roll back"


def test_guard_leaves_a_supervised_run_alone_unless_its_numbers_break() -> None:
    falling = run_of([0.5, 0.6, 0.5, 0.5, 0.5])
    assert Watch(HealthConfig(action="guard"), SUPERVISED).evaluated(falling).action == "go on"
    assert Watch(HealthConfig(action="stop"), SUPERVISED).evaluated(falling).action == "stop"
    exploding = run_of(RISING, step_loss_sup=[1.0, 0.5, 0.4, 5.0])
    assert Watch(HealthConfig(action="guard"), SUPERVISED).evaluated(exploding).action == "roll back"


def test_guard_goes_back_at_most_so_often_also_after_a_resume() -> None:
    records = run_of([0.5, 0.6, 0.5, 0.5, 0.5], step_kept_share=0.5)
    watch = Watch(HealthConfig(action="guard", rollbacks=2), V3)
    for factor in (0.5, 0.25):
        assert watch.evaluated(records).action == "roll back"
        watch.rolled_back()
        assert watch.weight_factor == factor
        again = Watch(watch.config, V3)
        again.load_state(watch.state())
        watch = again
    assert watch.evaluated(records).action == "go on"
    assert not watch.may_roll_back


@pytest.mark.parametrize(
    ("means", "broken"),
    [
        ({"loss": 1.0, "skipped_share": 0.0}, False),
        ({"loss": math.nan, "skipped_share": 0.02}, False),  # one of fifty: it was left out
        ({"loss": math.nan, "skipped_share": 0.2}, True),
        ({"loss": 1.0, "skipped_share": 0.2}, True),
        ({"loss": math.inf}, True),
    ],
)
def test_what_skipping_steps_does_not_mend(means: dict[str, float], broken: bool) -> None:
    assert (breakdown(means) is not None) == broken


counts = st.lists(st.integers(0, 10**6), min_size=2, max_size=7)


@given(counts)
def test_divergence_of_a_histogram_from_itself_is_nothing(own: list[int]) -> None:
    value = kl_divergence(own, own)
    assert math.isnan(value) if sum(own) == 0 else value == pytest.approx(0)


@given(st.lists(st.tuples(st.integers(1, 10**4), st.integers(1, 10**4)), min_size=2, max_size=7))
def test_divergence_is_scipys(pairs: list[tuple[int, int]]) -> None:
    p, q = zip(*pairs, strict=True)
    smooth_p, smooth_q = ([value / sum(counts) + 1e-6 for value in counts] for counts in (p, q))
    assert kl_divergence(p, q) == pytest.approx(float(entropy(smooth_p, smooth_q)), abs=1e-9)
    assert kl_divergence(p, q) >= 0


def test_every_quantity_can_alarm() -> None:
    from salakseg.train.health import RULES

    assert {rule.quantity for rule in RULES if rule.level in ("warning", "critical")} == set(QUANTITIES)
    for rule in RULES:
        assert (rule.level in ("warning", "critical")) == bool(rule.change), rule


# ---- the command


def v3_csv(path: Path) -> Path:
    (v3,) = (run for run in load_recorded().runs if run.name == "V3")
    rows = [f"{at},{miou},{0.9975 if at > 500 else ''}" for at, miou in v3.curve]
    path.write_text("\n".join(["iteration,miou,kept_share", *rows]) + "\n")
    return path


EXPECTED = [(1_000, KEPT), (6_500, CURVE), (9_000, CURVE), (9_000, STREAK), (11_500, LENGTH)]


def test_diagnose_replays_a_table(tmp_path: Path) -> None:
    path = v3_csv(tmp_path / "v3.csv")
    done = json.loads(command("diagnose", path, "--recipe", "v3", "--json").stdout)
    assert [(alarm["iteration"], alarm["quantity"]) for alarm in done["alarms"]] == EXPECTED
    assert (done["evaluations"], done["recipe"]) == (14, "v3")
    told = command("diagnose", path, "--recipe", "v3").stdout
    assert "14 evaluations, 5 alarms" in told and "at 6,500  warning  validation mIoU" in told
    # Without the recipe neither the plan nor the causes that it names are known
    bare = json.loads(command("diagnose", path, "--json").stdout)
    assert [(alarm["iteration"], alarm["quantity"]) for alarm in bare["alarms"]] == EXPECTED[:-1]
    assert "labeller" not in bare["alarms"][1]["change"]


def test_diagnose_takes_json_in_both_ways(tmp_path: Path) -> None:
    (v3,) = (run for run in load_recorded().runs if run.name == "V3")
    rows = [{"step": at, "val_miou": miou, "kept_share": 0.9975 if at > 500 else None} for at, miou in v3.curve]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    for content in (rows, columns):
        path = tmp_path / "curve.json"
        path.write_text(json.dumps(content))
        done = json.loads(command("diagnose", path, "--recipe", "v3", "--json").stdout)
        assert [(alarm["iteration"], alarm["quantity"]) for alarm in done["alarms"]] == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.csv", None, "does not exist"),
        ("a.csv", "iteration,miou\n500,62.1\n", "row 2: '62.1' is no mIoU from 0 to 1"),
        ("a.csv", "epoch,miou\n5,0.6\n", "expected a column iteration"),
        ("a.csv", "iteration,miou\n", "has no evaluation"),
        ("a.json", "{", "is no JSON file"),
        ("a.json", "[1, 2]", "holds no curve"),
        ("a.json", '{"iteration": [1, 2], "miou": [0.5]}', "different lengths"),
        ("a.csv", "iteration,miou,kept_share\n500,0.5,99.75\n", "kept_share does not lie between 0 and 1"),
        ("metrics.jsonl", '{"kind": "train", "iteration": 50}\n', "has no evaluation yet"),
    ],
)
def test_what_is_no_curve_is_told_in_a_sentence(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    done = command("diagnose", path, status=1)
    assert message in " ".join(done.stderr.split())
