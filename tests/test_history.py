"""Reading the history of a run: its log, its checkpoint, and numbers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from salakseg.errors import ReportError
from salakseg.evaluate.diagnosis import diagnose
from salakseg.evaluate.history import (
    RESUMED,
    STOPPED_EARLY,
    WATCHED,
    Plan,
    TrainingHistory,
    finite,
    history_of_records,
    read_history,
)
from salakseg.evaluate.rules import LENGTH
from salakseg.network.checkpoint import load_checkpoint
from salakseg.train.recipe import load_recipe
from salakseg.train.schedule import rate_factor

RECIPE = load_recipe("v3").model_dump(mode="json")


def val(iteration: int, miou: float | None) -> dict[str, Any]:
    return {"kind": "val", "iteration": iteration, "miou_without_background": miou, "miou_with_background": 0.2}


def write_log(path: Path, *records: object, end: str = "") -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end, encoding="utf-8")
    return path


def test_a_real_run_is_read_whole(tiny_run: Path) -> None:
    last = load_checkpoint(tiny_run / "checkpoints" / "last.pt")
    history = read_history(tiny_run / "metrics.jsonl", last.recipe)
    assert [iteration for iteration, _ in history.val_miou] == [4, 8]
    for ours, key in (
        (history.val_miou, "miou_without_background"),
        (history.val_miou_with_background, "miou_with_background"),
    ):
        assert ours == tuple((record["iteration"], record[key]) for record in last.history)
    logged = ("learning_rate", "kept_share", "kept_share_foreground", "loss", "loss_sup", "loss_unsup")
    for name in (*logged, "ce", "dice", "focal", "gradient_norm"):
        assert [iteration for iteration, _ in finite(history.series()[name])] == [4, 8], name
    assert history.plan == Plan.from_recipe(last.recipe)
    assert history.stopped_early is False
    assert history.ended == 8
    # What the watch measures is there too; a precision is undefined where nothing was kept
    assert [iteration for iteration, _ in finite(history.train_miou)] == [4, 8]
    assert [iteration for iteration, _ in history.pseudo_precision] == [4, 8]
    assert history_of_records(last.history, last.recipe).val_miou == history.val_miou
    assert "training minus" not in diagnose(history).paragraph.partition("Unknown")[2]


def test_a_recipe_gives_the_plan() -> None:
    assert Plan.from_recipe(RECIPE) == Plan(
        iterations=50_000,
        warmup=1_000,
        peak_rate=2.5e-4,
        evaluate_every=500,
        patience=15,
        tells_its_end=True,
        ce=0.4,
        dice=0.4,
        selftraining=True,
        selftraining_start=500,
        selftraining_weight=1.0,
        labeller="student",
        class_weighted=True,
        keep="fixed",
        background_threshold=0.0,
        least_threshold=0.55,
    )
    share = Plan.from_recipe(load_recipe("v3", [{"selftraining": {"keep": "share"}}]).model_dump(mode="json"))
    assert (share.keep, share.background_threshold, share.least_threshold) == ("share", None, None)
    assert Plan.from_recipe(load_recipe("quick").model_dump(mode="json")).class_weighted is False  # no class weights


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"schedule": None, "selftraining": "on"},
        {"schedule": {"iterations": "many", "warmup": True}, "selftraining": {"enabled": 1, "thresholds": ["a"]}},
    ],
)
def test_what_a_recipe_does_not_say_is_unknown(recipe: dict[str, Any]) -> None:
    assert Plan.from_recipe(recipe) == Plan()


@pytest.mark.parametrize("name", ["v3", "phase3", "quick"])
def test_the_planned_rate_is_the_trainer_s(name: str) -> None:
    recipe = load_recipe(name)
    plan, schedule = Plan.from_recipe(recipe.model_dump(mode="json")), recipe.schedule
    for step in {0, 1, schedule.warmup - 1, schedule.warmup, schedule.warmup + 1, 333, schedule.iterations - 1}:
        assert plan.rate_share(step + 1) == pytest.approx(rate_factor(step, schedule), abs=1e-12)
    assert math.isnan(Plan(iterations=5).rate_share(3))


def test_nulls_torn_lines_and_unknown_records_are_survived(tmp_path: Path) -> None:
    log = write_log(
        tmp_path / "metrics.jsonl",
        {"kind": "train", "iteration": 50, "loss": 1.5, "kept_share": None, "colour": "red", "ce": "high"},
        {"kind": "note", "iteration": 60, "loss": 9.0},
        val(100, None),
        {"kind": "val", "iteration": 100},
        [1, 2],
        {"kind": "train", "iteration": True, "loss": 2.0},
        {"kind": "train", "iteration": 150, "loss": 10**400, "pseudo_precision": 0.9},
        val(200, 0.3),
        val(200, 0.4),
        end='{"kind": "val", "itera',
    )
    history = read_history(log, {})
    assert history.loss[0] == (50, 1.5) and math.isnan(history.loss[1][1])
    assert [iteration for iteration, _ in history.kept_share] == [50] and not finite(history.kept_share)
    assert math.isnan(history.val_miou[0][1]) and history.val_miou[1:] == ((200, 0.4),)  # what was written last counts
    assert history.pseudo_precision == ((150, 0.9),)
    assert history.ce == ()
    assert history.stopped_early is None


def test_an_empty_log_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(write_log(tmp_path / "metrics.jsonl"), RECIPE)
    assert history == TrainingHistory(plan=Plan.from_recipe(RECIPE))
    assert history.ended is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"class_name,class_color\n", "no line is a record; take metrics.jsonl"),
        (b'{"schema": "salakseg.report"}\n', "no line is a record"),
        (b"[" * 100_000, "no line is a record"),
        (b"\x89PNG\xff\n", "no line is a record"),
        (
            b'{"kind": "val", "iteration": 5, "miou_without_background": 62.1}\n',
            "val_miou does not lie between 0 and 1",
        ),
    ],
)
def test_a_file_that_is_no_log_is_one_clear_error(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=reason) as caught:
        read_history(path, {})
    assert "other.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_log_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="does not exist"):
        read_history(tmp_path / "metrics.jsonl", {})
    with pytest.raises(ReportError, match="cannot be read"):
        read_history(tmp_path, {})


@pytest.mark.parametrize(
    ("iterations", "from_log", "from_checkpoint"),
    [
        ([500, 4_000, 11_000], False, None),  # interrupted, or still going
        ([500, 4_000, 11_500], True, True),  # 15 evaluations of 500 after the best
        ([500, 4_000, 50_000], False, False),  # patience and plan ran out together
        ([4_000], False, None),  # a best checkpoint ends with the best; the log does not
        ([], None, None),
    ],
)
def test_an_early_stop_of_another_program_is_told_by_the_patience(
    iterations: list[int], from_log: bool | None, from_checkpoint: bool | None, tmp_path: Path
) -> None:
    records = [val(iteration, 0.6 if iteration == 4_000 else 0.5) for iteration in iterations]
    log = write_log(tmp_path / "metrics.jsonl", *records)
    evaluation = {key: RECIPE["evaluation"][key] for key in ("every", "patience")}
    foreign = {**RECIPE, "evaluation": evaluation}
    assert read_history(log, foreign).stopped_early is from_log
    assert history_of_records(records, foreign).stopped_early is from_checkpoint
    assert read_history(log, {}).stopped_early is None


@pytest.mark.parametrize(
    ("event", "stopped", "watched"),
    [
        ({}, False, ""),  # by hand, or still going: a longer patience was given, or the curve still rises
        ({"event": "finished"}, False, ""),
        ({"event": STOPPED_EARLY, "reason": "15 evaluations without a new best"}, True, ""),
        ({"event": WATCHED, "reason": "The score fell by 5.0 points."}, False, "The score fell by 5.0 points."),
    ],
)
def test_the_trainer_s_own_log_says_how_it_ended(
    event: dict[str, Any], stopped: bool, watched: str, tmp_path: Path
) -> None:
    records = [val(iteration, 0.6 if iteration == 4_000 else 0.5) for iteration in (4_000, 8_000, 11_500)]
    told = [{"kind": "event", "iteration": 11_500, **event}] if event else []
    log = write_log(tmp_path / "metrics.jsonl", *records, *told)
    history = read_history(log, RECIPE)
    assert (history.stopped_early, history.watched) == (stopped, watched)
    (length,) = [finding for finding in diagnose(history).findings if finding.quantity == LENGTH]
    assert (f"The watch stopped the run at 11,500 of 50,000 iterations: {watched}" == length.sentence) is bool(watched)
    assert history_of_records(records, RECIPE).stopped_early is None  # its evaluations alone do not tell
    gone_on = read_history(write_log(tmp_path / "more.jsonl", *records, *told, val(12_000, 0.7)), RECIPE)
    assert (gone_on.stopped_early, gone_on.watched) == (False, "")
    again = {"kind": "event", "iteration": 11_500, "event": RESUMED}
    gone_on = read_history(write_log(tmp_path / "again.jsonl", *records, *told, again), RECIPE)
    assert (gone_on.stopped_early, gone_on.watched) == (False, "")


def test_numbers_are_put_in_order_and_percentages_refused() -> None:
    assert TrainingHistory(val_miou=((2, 0.2), (1, 0.1))).val_miou == ((1, 0.1), (2, 0.2))
    with pytest.raises(ValueError, match="kept_share does not lie"):
        TrainingHistory(kept_share=((1, 99.75),))
