"""The ladder of phases: when it climbs on, what it starts from, and that nothing is done twice."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, command, write_plantation
from hypothesis import given
from hypothesis import strategies as st
from run_folders import write_run
from training import quiet

from salakseg.errors import RecipeError, TrainingError
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.project import load_project
from salakseg.train.ladder import best_rung, climb, next_rung, open_ladder
from salakseg.train.ladder_plan import FILE, RUNGS, LadderConfig, Plan, make_plan, read_plan
from salakseg.train.recipe import parse_setting
from salakseg.train.run import RunFolder
from salakseg.train.start import Request, start_run
from salakseg.train.unfinished import newest_unfinished

FINISHED = {"event": "finished"}


def plan_of(data: Path, settings: Sequence[str] = (), go_on: bool = False, project: Any = None) -> Plan:
    request = Request("auto", [], data, data.parent / "runs", device="cpu")
    return make_plan(request, [parse_setting(text) for text in settings], project or {}, go_on, quiet)


# ---- when it climbs on


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_it_climbs_while_a_rung_is_too_low(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float], second: float, third: float
) -> None:
    folder = tmp_path_factory.mktemp("ladder")
    plan = Plan(LadderConfig(phase2_below=second, phase3_below=third), False, {}, Request("", [], folder, folder))
    expected = 1 if scores[0] >= second else 2 if scores[1] >= third else 3
    for count in range(1, expected + 1):
        done, following = next_rung(folder, plan)
        assert [rung.run.path.name for rung in done] == list(RUNGS[: count - 1])
        assert following == RUNGS[count - 1]
        write_run(folder / RUNGS[count - 1], [scores[count - 1] / 2, scores[count - 1]], ending=FINISHED)
    done, following = next_rung(folder, plan)
    assert (len(done), following) == (expected, None)
    reached = [rung.run.best.miou_without_background for rung in done if rung.run.best]
    assert best_rung(done) == done[reached.index(max(reached))].run.path


@pytest.mark.parametrize(("first", "second", "rungs"), [(0.68, 0, 1), (0.6799, 0.70, 2), (0.5, 0.6999, 3)])
def test_the_field_team_s_figures(tmp_path: Path, first: float, second: float, rungs: int) -> None:
    plan = Plan(LadderConfig(), False, {}, Request("", [], tmp_path, tmp_path))
    for recipe, score in zip(RUNGS, (first, second, 0.3), strict=True):
        write_run(tmp_path / recipe, [score], ending=FINISHED)
    done, _ = next_rung(tmp_path, plan)
    assert len(done) == rungs
    assert done[0].verdict == (
        "0.6800 is not below 0.6800: no further phase" if rungs == 1 else f"{first:.4f} is below 0.6800: on to phase2"
    )


def test_an_unfinished_rung_is_gone_on_with_and_a_damaged_one_told(tmp_path: Path) -> None:
    plan = Plan(LadderConfig(), False, {}, Request("", [], tmp_path, tmp_path))
    write_run(tmp_path / "phase1", [0.9], iterations=900)
    assert next_rung(tmp_path, plan) == ([], "phase1")
    (tmp_path / "phase1" / "recipe.toml").write_text("[")
    with pytest.raises(TrainingError, match=r"phase1 is damaged: recipe\.toml cannot be read"):
        next_rung(tmp_path, plan)


# ---- what is asked


def test_a_setting_counts_for_the_rungs_where_it_has_an_effect(tmp_path: Path) -> None:
    """Phase 3 has no multi-scale batches; the size of such is for the two before."""
    plan = plan_of(tmp_path, ["augment.scale_max=300", "seed=3", "ladder.phase3_below=0.5"])
    assert [plan.changes[rung].get("augment") for rung in RUNGS] == [{"scale_max": 300}, {"scale_max": 300}, None]
    assert all(plan.changes[rung]["seed"] == 3 for rung in RUNGS)
    assert plan.config == LadderConfig(phase2_below=0.68, phase3_below=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["strong.hue=0.1"], r"Without effect in every rung: strong\.hue"),
        (["augment.multi_scale=false", "augment.scale_max=300"], r"augment\.scale_max"),
        (["ladder.phase4_below=0.5"], "ladder: there is no setting 'phase4_below'"),
        (["ladder.phase2_below=70"], "ladder: phase2_below"),
        (["ladder.phase2_below=high"], "ladder: phase2_below: a number is wanted"),
        (["ladder=3"], "ladder"),
        (["loss.dcie=1"], "no setting 'loss.dcie'"),
        (["schedule.warmup=80000"], "warmup 80000"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_trained(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan_of(tmp_path, settings)


def test_the_project_file_may_hold_the_figures(tmp_path: Path) -> None:
    project = {"ladder": {"phase2_below": 0.5, "phase3_below": 0.6}, "seed": 4}
    plan = plan_of(tmp_path, ["ladder.phase3_below=0.55"], project=project)
    assert plan.config == LadderConfig(phase2_below=0.5, phase3_below=0.55)
    assert plan.changes["phase1"] == {"seed": 4}


def test_a_plan_is_read_back_and_found_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "patches", ["selftraining.thresholds=[0.5, 0.5, 0.5, 0.5, 0.5, 0.5]"], go_on=True)
    folder = open_ladder(plan, None, tmp_path / "runs", quiet)
    assert read_plan(folder).to_dict() == plan.to_dict()
    assert open_ladder(plan, None, tmp_path / "runs", quiet) == folder  # the same command again
    other = plan_of(tmp_path / "patches", go_on=True)
    assert open_ladder(other, None, tmp_path / "runs", quiet) != folder
    with pytest.raises(TrainingError, match=r"asked for otherwise \(changes\).*--resume"):
        open_ladder(other, folder, tmp_path / "runs", quiet)
    write_run(folder / "phase1", [0.9], ending=FINISHED)
    assert open_ladder(plan, None, tmp_path / "runs", quiet) != folder  # that one is done
    (folder / FILE).write_text("{")
    with pytest.raises(TrainingError, match=r"ladder\.json is damaged"):
        read_plan(folder)


# ---- what a run starts from


def test_a_run_starts_from_the_moving_average_of_another(tiny_run: Path, tmp_path: Path) -> None:
    best = tiny_run / "checkpoints" / "best.pt"
    checkpoint = load_checkpoint(best)
    changes = {"network": checkpoint.network.model_dump(), "data": {"workers": 0, "crop": 32, "gap": 0}}
    request = Request("phase1", [changes], Path(checkpoint.data_root), tmp_path, device="cpu", init=best)
    trainer = start_run(request, quiet, quiet)
    for model in (trainer.network, trainer.ema.model):
        state = model.state_dict()
        assert state.keys() == checkpoint.ema.keys()
        assert all(torch.equal(state[name], value) for name, value in checkpoint.ema.items())
    assert (trainer.iteration, trainer.ema.updates, trainer.validation.history) == (0, 0, [])
    assert not trainer.optimizer.state_dict()["state"]


def test_weights_of_another_network_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    best = tiny_run / "checkpoints" / "best.pt"
    checkpoint = load_checkpoint(best)
    common = ["train", "--data-root", checkpoint.data_root, "--device", "cpu", "--checkpoint-dir", tmp_path / "run"]
    done = command(*common, *TINY, "--set", "network.head_dropout=[0.1, 0.1]", "--init", best, status=1)
    assert "another network: network.head_dropout is 3 heads, here 2 heads" in " ".join(done.stderr.split())
    done = command(*common, *TINY, "--init", tmp_path / "gone.pt", status=1)
    assert "gone.pt does not exist" in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_classes_are_found_by_their_names(tiny_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_run / "checkpoints" / "best.pt")
    names = [record["name"] for record in checkpoint.classes]
    renamed = {names[1]: names[2], names[2]: names[1], names[3]: "something else"}
    checkpoint.classes = [{**one, "name": renamed.get(one["name"], one["name"])} for one in checkpoint.classes]
    save_checkpoint(checkpoint, tmp_path / "other.pt")
    changes = {"network": checkpoint.network.model_dump(), "data": {"workers": 0, "crop": 32, "gap": 0}}
    said: list[str] = []
    request = Request(
        "phase1", [changes], Path(checkpoint.data_root), tmp_path, device="cpu", init=tmp_path / "other.pt"
    )
    trainer = start_run(request, said.append, quiet)
    keys = trainer.network.classifier_keys()
    assert len(keys) == 2 * len(checkpoint.network.head_dropout)
    for key, value in trainer.network.state_dict().items():
        theirs = checkpoint.ema[key]
        if key in keys:
            assert torch.equal(value[[1, 2]], theirs[[2, 1]])
            assert torch.equal(value[4:], theirs[4:])
            assert not torch.equal(value[3], theirs[3])
        else:
            assert torch.equal(value, theirs)
    assert any(f"does not know {names[3]};" in line for line in said)


# ---- the whole way

LIMITS = ["--set", "ladder.phase2_below=1.0", "--set", "ladder.phase3_below=0.0"]  # two rungs, whatever they reach


def words(data: Path, *more: object) -> list[object]:
    return [
        "train", "--phase", "auto", "--continue", "--data-root", data, "--num-steps", 6, "--device", "cpu", *TINY,
        "--set", "health.sample=0", *LIMITS, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plantation(tmp_path_factory.mktemp("ladder") / "patches")


@pytest.fixture(scope="module")
def unbroken(data: Path) -> tuple[Path, Any]:
    folder = data.parent / "unbroken"
    return folder, command(*words(data, "--checkpoint-dir", folder))


def test_two_rungs_and_a_table(unbroken: tuple[Path, Any]) -> None:
    folder, done = unbroken
    assert sorted(path.name for path in folder.iterdir()) == [FILE, "phase1", "phase2"]
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("phase") and "finished" in line]
    assert [row[0] for row in rows] == ["phase1", "phase2"]
    for row in rows:
        log = (folder / row[0] / "metrics.jsonl").read_text().splitlines()
        scores = [r["miou_without_background"] for r in map(json.loads, log) if r["kind"] == "val"]
        assert row[1:4] == ["6", "of", "6"]
        assert row[4] == f"{max(scores):.4f}"
    assert f"phase1: {rows[0][4]} is below 1.0000: on to phase2" in lines
    assert f"phase2: {rows[1][4]} is not below 0.0000: no further phase" in lines
    said = " ".join(done.stderr.split())
    assert "set on a split that leaks" in said
    assert f"weights: the moving average of {folder}/phase1/checkpoints/best.pt" in said
    assert "next: salakseg report" in said


def test_the_same_command_again_repeats_nothing(unbroken: tuple[Path, Any], data: Path) -> None:
    folder, done = unbroken
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = command(*words(data, "--checkpoint-dir", folder))
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def stop_in(phase: str, step: int) -> Callable[[str, str], Any]:
    """Progress bars that press Ctrl-C."""

    @contextmanager
    def bar(what: str, _unit: str) -> Iterator[Callable[[int, int], None]]:
        def progress(done: int, _total: int) -> None:
            if what == f"training {phase}" and done == step:
                raise KeyboardInterrupt

        yield progress

    return bar


def test_an_interrupted_ladder_goes_on(unbroken: tuple[Path, Any], data: Path) -> None:
    """Stopped in the second rung, then gone on with in three ways; weights and first rung are those of the unbroken."""
    whole, _ = unbroken
    home = data.parent / "home"
    home.mkdir()
    (home / "salakseg.toml").write_text("")
    runs = load_project(home).runs_folder
    plan = read_plan(whole)
    folder = open_ladder(plan, None, runs, quiet)
    with pytest.raises(KeyboardInterrupt):
        climb(folder, plan, "cpu", quiet, stop_in("phase2", 3))
    assert load_checkpoint(RunFolder(folder / "phase2").last).iteration == 3
    first = (folder / "phase1" / "metrics.jsonl").stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        climb(folder, read_plan(folder), "cpu", quiet, stop_in("phase2", 4))
    done = command(*words(data), cwd=home)  # finds it by what was asked
    assert f"going on with the ladder {folder}" in " ".join(done.stderr.split())
    assert list(runs.iterdir()) == [folder]
    assert (folder / "phase1" / "metrics.jsonl").stat().st_mtime_ns == first
    ours, theirs = (load_checkpoint(RunFolder(path / "phase2").last) for path in (folder, whole))
    assert ours.iteration == theirs.iteration == 6
    assert all(torch.equal(ours.student[name], value) for name, value in theirs.student.items())
    assert all(torch.equal(ours.ema[name], value) for name, value in theirs.ema.items())
    resumed = command("train", "--resume", folder)
    assert [line.split()[:4] for line in resumed.stdout.splitlines()[2:4]] == [
        ["phase1", "6", "of", "6"],
        ["phase2", "6", "of", "6"],
    ]
    assert load_project(home).newest_best() == RunFolder(folder / "phase2").best


def test_a_bare_resume_finds_the_ladder(unbroken: tuple[Path, Any], data: Path, tmp_path: Path) -> None:
    plan = replace(read_plan(unbroken[0]), config=LadderConfig(phase2_below=0.0))
    folder = open_ladder(plan, None, tmp_path / "runs", quiet)
    with pytest.raises(KeyboardInterrupt):
        climb(folder, plan, "cpu", quiet, stop_in("phase1", 2))
    done = command("train", "--resume", cwd=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [FILE, "phase1"]
    assert "is not below 0.0000: no further phase" in done.stdout


def test_a_bare_resume_finds_a_ladder_that_stopped_between_two_rungs(
    unbroken: tuple[Path, Any], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "ladder"
    shutil.copytree(unbroken[0], folder)
    shutil.rmtree(folder / "phase2")
    said: list[str] = []
    assert newest_unfinished(tmp_path / "runs", said.append) == folder
    assert said == [f"the newest unfinished run is the ladder {folder}"]
    done = command("train", "--resume", "--early-stop-patience", 5, cwd=tmp_path, status=1)
    assert "--early-stop-patience was fixed when the ladder began" in " ".join(done.stderr.split())
    (folder / "phase2").mkdir()
    with RunFolder(folder / "phase2").held(), pytest.raises(TrainingError, match="no unfinished run"):
        newest_unfinished(tmp_path / "runs", quiet)  # another process has just begun it
    done = command("train", "--resume", cwd=tmp_path)
    assert "phase2: " in done.stdout
    assert load_checkpoint(RunFolder(folder / "phase2").last).iteration == 6
    with pytest.raises(TrainingError, match="no unfinished run"):
        newest_unfinished(tmp_path / "runs", quiet)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--phase", "1", "--continue"], "--continue is for --phase auto"),
        (["--phase", "1", "--set", "ladder.phase2_below=0.5"], "no effect without --phase auto"),
        (["--phase", "auto", "--recipe", "v3"], "give one of them"),
        (["--phase", "auto", "--set", "loss.dcie=1"], "no setting 'loss.dcie'"),
    ],
)
def test_what_cannot_work_is_one_sentence(data: Path, more: list[str], message: str, tmp_path: Path) -> None:
    done = command("train", "--data-root", data, *more, cwd=tmp_path, status=1)
    assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_sent_to_single_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="A ladder trains in one process"):
        climb(tmp_path, plan_of(tmp_path), "cpu", quiet, stop_in("", 0))
