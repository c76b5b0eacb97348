"""The list of runs: what their files say, and what is left of them after accidents."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers import command
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import write_run

from salakseg.train.runs import Best, State, list_runs, read_run

FINISHED = {"event": "finished"}
PATIENCE = {"event": "stopped early", "reason": "3 evaluations without a new best"}


@pytest.mark.parametrize(
    ("run", "state", "reason"),
    [
        ({"scores": [0.1, 0.2], "ending": FINISHED}, State.FINISHED, ""),
        ({"scores": [0.1, 0.2], "iterations": 900, "ending": PATIENCE}, State.STOPPED, PATIENCE["reason"]),
        (
            {"scores": [0.1], "iterations": 900, "ending": {"event": "stopped by the watch", "reason": "a fall"}},
            State.STOPPED,
            "a fall",
        ),
        (
            {"scores": [0.1], "iterations": 900, "ending": {"event": "failed", "reason": "the loss became nan"}},
            State.FAILED,
            "the loss became nan",
        ),
        ({"scores": [0.1, 0.2], "iterations": 900}, State.INTERRUPTED, ""),
        ({"scores": [], "iterations": 900}, State.INTERRUPTED, ""),
        ({"scores": [0.1], "iterations": 900, "ending": {"event": "alarm", "rule": "x"}}, State.INTERRUPTED, ""),
        # Logs without an event at the end are judged by their evaluations
        ({"scores": [0.1, 0.2]}, State.FINISHED, ""),
    ],
)
def test_how_a_run_stands(tmp_path: Path, run: dict[str, Any], state: State, reason: str) -> None:
    found = read_run(write_run(tmp_path / "run", **run))
    assert (found.state, found.reason) == (state, reason)
    assert found.iteration == 100 * len(run["scores"])
    assert found.planned == run.get("iterations", 100 * len(run["scores"]))


def test_an_old_log_tells_an_early_stop_by_its_scores(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [0.1, 0.5, 0.4, 0.3], iterations=900, patience=2)
    log = path / "metrics.jsonl"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines() if '"watch"' not in line))
    found = read_run(path)
    assert found.state is State.STOPPED
    assert "2 evaluations without a new best" in found.reason
    log.write_text(log.read_text() + json.dumps({"kind": "train", "iteration": 450}) + "\n")  # it went on
    assert read_run(path).state is State.INTERRUPTED


def test_a_run_that_is_held_is_running_whatever_its_log_says(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [0.1, 0.2], ending=FINISHED)
    before = sorted(path.iterdir())
    assert read_run(path).state is State.FINISHED
    assert sorted(path.iterdir()) == before
    with FileLock(path / ".lock"):
        assert read_run(path).state is State.RUNNING
    assert read_run(path).state is State.FINISHED


def test_the_best_evaluation_and_the_time(tmp_path: Path) -> None:
    found = read_run(write_run(tmp_path / "run", [0.1, 0.6, 0.6, 0.2]))
    assert found.best == Best(0.6, pytest.approx(0.7), 200)  # type: ignore[arg-type]  # of equal ones the first
    assert found.seconds == pytest.approx(40.0)
    empty = read_run(write_run(tmp_path / "empty", [], iterations=10))
    assert empty.best is None
    assert math.isnan(empty.seconds)


def test_a_line_cut_short_is_a_kill_and_a_bad_one_in_the_middle_damage(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [0.1, 0.2], iterations=900)
    log = path / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b'{"kind": "train", "iter')
    assert read_run(path).state is State.INTERRUPTED
    log.write_bytes(b"\xff\xfe\n" + log.read_bytes())
    found = read_run(path)
    assert (found.state, found.reason) == (State.DAMAGED, "metrics.jsonl: line 1 is no record")
    assert found.best is not None and found.best.miou_without_background == 0.2


@pytest.mark.parametrize("spoil", ["missing", "torn", "bytes", "other version"])
def test_a_spoilt_recipe_is_listed(tmp_path: Path, spoil: str) -> None:
    path = write_run(tmp_path / "run", [0.1], iterations=900)
    recipe = path / "recipe.toml"
    if spoil == "missing":
        recipe.unlink()
    elif spoil == "torn":
        recipe.write_text("[schedule\niter")
    elif spoil == "bytes":
        recipe.write_bytes(b"\xff\xfe\x00")
    else:
        recipe.write_text('name = "old"\nunheard_of = 3\n[schedule]\niterations = 900\n')
    (found,) = list_runs(tmp_path)
    if spoil == "other version":
        assert (found.state, found.recipe, found.planned) == (State.INTERRUPTED, "old", 900)
    else:
        assert found.state is State.DAMAGED
        assert found.reason.startswith("recipe.toml cannot be read")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_content_is_an_error(tmp_path_factory: pytest.TempPathFactory, recipe: bytes, log: bytes) -> None:
    path = tmp_path_factory.mktemp("runs") / "run"
    path.mkdir()
    (path / "recipe.toml").write_bytes(recipe)
    (path / "metrics.jsonl").write_bytes(log)
    (found,) = list_runs(path.parent)
    json.dumps(found.to_dict())


RECORDS = st.dictionaries(
    st.sampled_from(["kind", "iteration", "event", "reason", "miou_without_background", "steps_per_second"]),
    st.one_of(
        st.none(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=2),
        st.sampled_from(["val", "train", "event", "finished", "failed"]),
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORDS, max_size=4))
def test_no_record_is_an_error(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> None:
    path = write_run(tmp_path_factory.mktemp("runs") / "run", [0.3], iterations=900)
    with (path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    (found,) = list_runs(path.parent)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_run_is_over_only_after_its_last_evaluation(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [0.1, 0.2], iterations=300)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "iteration": 300, "loss": 1.0}) + "\n")
    assert read_run(path).state is State.INTERRUPTED  # stopped in its last evaluation
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "val", "iteration": 300, "miou_without_background": 0.3}) + "\n")
    assert read_run(path).state is State.FINISHED


def some_runs(root: Path) -> Path:
    """Runs of all kinds, one of a ladder, and what is none."""
    runs = root / "runs"
    for age, (name, scores, ending) in enumerate(
        [("newest", [0.5], FINISHED), ("ladder/phase1", [0.3, 0.4], PATIENCE), ("oldest", [], None)]
    ):
        path = write_run(runs / name, scores, iterations=200, recipe="phase1", ending=ending)
        os.utime(path / "metrics.jsonl", (2e9 - 1000 * age, 2e9 - 1000 * age))
    (runs / "notes").mkdir()
    (runs / "readme.txt").write_text("no run")
    shutil.copy(runs / "newest" / "recipe.toml", runs / "ladder" / "phase1" / "elsewhere.toml")
    return runs


def test_the_newest_comes_first_in_words_and_in_json(tmp_path: Path) -> None:
    runs = some_runs(tmp_path)
    lines = command("runs", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["newest", "ladder/phase1", "oldest"]
    assert lines[3].split()[1:9] == ["phase1", "stopped", "early", "200", "of", "200", "0.4000", "0.5000"]
    assert lines[3].split()[9] == "200"
    assert lines[5] == f"ladder/phase1: {PATIENCE['reason']}"
    told = json.loads(command("runs", runs, "--json").stdout)
    assert [run["path"] for run in told] == [str(runs / name) for name in ("newest", "ladder/phase1", "oldest")]
    assert [run["best_miou_without_background"] for run in told] == [0.5, 0.4, None]
    assert told[1] | {"trained_at": ""} == {
        "path": str(runs / "ladder" / "phase1"), "recipe": "phase1", "state": "stopped early",
        "reason": PATIENCE["reason"], "iteration": 200, "planned": 200, "best_miou_without_background": 0.4,
        "best_miou_with_background": 0.5, "best_iteration": 200, "trained_at": "", "seconds": 20.0,
    }  # fmt: skip


def test_no_runs_are_no_error(tmp_path: Path) -> None:
    done = command("runs", cwd=tmp_path)
    assert done.stdout == "" and "holds no runs yet" in done.stderr
    assert command("runs", "--json", cwd=tmp_path).stdout.strip() == "[]"
    assert "is no folder" in command("runs", tmp_path / "gone", status=1).stderr


def test_a_real_run_is_read(tiny_run: Path) -> None:
    found = read_run(tiny_run)
    assert (found.state, found.recipe, found.iteration, found.planned) == (State.FINISHED, "phase2", 8, 8)
    assert found.best is not None and found.seconds > 0


def test_no_checkpoint_and_no_torch_is_needed() -> None:
    code = "import sys, salakseg.train.runs, salakseg.train.explain; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
