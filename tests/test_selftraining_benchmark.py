"""The benchmark of self-training methods: protocol, settings and runs, on tiny synthetic scenes."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import selftraining
import torch
from contest import protocol
from contest.figures import times_gone_back
from contest.methods import ABLATIONS, METHODS, SETS, TUNING, runs_of_set
from contest.plan import Planned, Planner, parse_runs, parse_tries
from contest.records import Store, read_json, write_json
from contest.settings import BUDGETS, resolve
from contest.watch import ContestTrainer, Watch, pseudo_figures
from contest.windows import windows
from contest.worker import SPENT, Job, _trainer, work
from contest_records import CPU
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from salakseg.data.splits import Role
from salakseg.errors import DataError, RecipeError
from salakseg.evaluate.confusion import ConfusionMatrix

ABSENT = ("rasterio", "geopandas", "onnxruntime", "onnx", "shapely", "pyproj", "jinja2", "scipy")
WINDOW_32 = replace(CPU, crop=16)
SMALL = [{"data": {"crop": 32, "batch_size": 2}}]
COLORS = {
    "Unlabeled": "155 155 155",
    "Water": "226 169 41",
    "Building": "60 16 152",
    "Road": "110 193 228",
    "Vegetation": "254 221 58",
    "Land": "132 41 246",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of seven parts, 96 x 112, in four flat colours with noise."""
    root = tmp_path_factory.mktemp("source")
    rows = ["class_name,class_color", *(f"{name},{color}" for name, color in COLORS.items())]
    (root / protocol.CLASSES).write_text("\n".join(rows) + "\n")
    colors = np.array([[int(v) for v in color.split()] for color in COLORS.values()], np.uint8)
    generator = np.random.default_rng(5)
    for tile in (1, 2):
        for folder in ("images", "masks"):
            (root / f"Tile {tile}" / folder).mkdir(parents=True)
        for part in range(1, 8):
            label = generator.choice(6, p=[0.05, 0.15, 0.15, 0.15, 0.1, 0.4], size=(6, 7)).repeat(16, 0).repeat(16, 1)
            image = (colors[label] + generator.normal(0, 8, (*label.shape, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / f"Tile {tile}" / "images" / f"image_part_{part:03d}.jpg")
            Image.fromarray(colors[label]).save(root / f"Tile {tile}" / "masks" / f"image_part_{part:03d}.png")
    return root


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    (out.parent / "other" / "thing").mkdir(parents=True)
    with pytest.raises(DataError, match="holds something else"):
        protocol.prepare(source, out.parent / "other", reduce=2)
    protocol.prepare(source, out, reduce=2)
    return out


# ---- protocol


def test_no_test_image_reaches_the_prepared_folder(prepared: Path) -> None:
    names = [path.relative_to(prepared).as_posix() for path in prepared.rglob("*") if path.is_file()]
    parts = {int(Path(name).stem[-3:]) for name in names if "image_part" in name}
    assert parts == {1, 2, 3, 4, 5}
    assert {name for name in names if "/masks/" in name} == {
        f"Tile {tile}/masks/image_part_{part:03d}.png" for tile in (1, 2) for part in (1, 5)
    }


def test_runs_learn_without_the_masks_of_unlabelled_images(prepared: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(prepared, tmp_path / "data")
    for folder in copy.rglob(protocol.HIDDEN):
        shutil.rmtree(folder)
    data = protocol.load_data(copy, False, WINDOW_32)
    training = data.training
    assert {patch.photo for patch in training.part(Role.LABELLED)} == {"image_part_001"}
    unlabelled = training.part(Role.UNLABELLED)
    assert {patch.photo for patch in unlabelled} == {f"image_part_{part:03d}" for part in (2, 3, 4)}
    assert all(patch.mask is None for patch in unlabelled)
    assert not training.part(Role.TEST)
    with pytest.raises(DataError):
        protocol.load_data(copy, True, WINDOW_32)


def test_all_labels_are_those_of_parts_1_to_4(prepared: Path) -> None:
    data = protocol.load_data(prepared, True, WINDOW_32).training
    assert {patch.photo for patch in data.part(Role.LABELLED)} == {f"image_part_{part:03d}" for part in (1, 2, 3, 4)}
    assert not data.part(Role.UNLABELLED)
    assert data.class_pixels.sum() == 2 * 4 * 48 * 56


def test_a_source_folder_is_refused_for_training(source: Path) -> None:
    with pytest.raises(DataError, match="--prepare"):
        protocol.load_data(source, False, WINDOW_32)


def test_images_of_another_size_than_the_budgets_are_refused(prepared: Path) -> None:
    with pytest.raises(DataError, match="not prepared for --budget gpu"):
        protocol.load_data(prepared, False, BUDGETS["gpu"])


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([32, 64, 256]))
def test_windows_and_cells_cover_an_image(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), np.int64)
    sizes = set()
    for place in windows((height, width), side):
        seen[place] += 1
        sizes.add(seen[place].shape)
    assert seen.min() >= 1
    assert sizes == {(min(side, height), min(side, width))}
    pieces = np.zeros((height, width), np.int64)
    for place in protocol.cells((height, width), side):
        pieces[place] += 1
        assert pieces[place].shape[0] >= min(side, height)  # a window fits in
    assert pieces.min() >= 1


# ---- settings


def test_settings_in_iterations_follow_the_length() -> None:
    short, long = (resolve(METHODS["v3"], "v3", CPU, steps, 0) for steps in (1500, 7500))
    assert (short.selftraining.start, long.selftraining.start) == (15, 75)  # 500 of 50,000
    assert (short.schedule.warmup, long.schedule.warmup) == (75, 375)
    assert short.ema_decay**75 == pytest.approx(0.5)
    assert long.ema_decay**375 == pytest.approx(0.5)
    frozen = resolve(METHODS["diversenet-df"], "diversenet-df", CPU, 1500, 0)
    assert frozen.loss.heads_frozen_from == 350  # 3,500 of 15,000
    twice = resolve(METHODS["v3-strategy5"], "v3-strategy5", CPU, 1500, 0)
    assert (twice.schedule.iterations, twice.selftraining.start) == (3000, 15)


def test_methods_share_all_but_their_self_training() -> None:
    recipes = [resolve(method, name, CPU, 1500, 0) for name, method in METHODS.items() if not method.own_augmentation]
    first = recipes[0]
    for recipe in recipes:
        for section in ("data", "augment", "optimizer", "schedule", "evaluation", "ema_decay"):
            assert getattr(recipe, section) == getattr(first, section), (recipe.name, section)
        assert recipe.network.encoder == first.network.encoder
        recipe.selftraining.threshold_of_each(6)  # five classes beside class 0, the palm is not among them


@pytest.mark.parametrize("name", [*ABLATIONS, *TUNING])
def test_every_variant_differs_from_what_it_varies(name: str) -> None:
    base = "phase4" if name in ABLATIONS else "v3"
    own, plain = (resolve(METHODS[n], "same", CPU, 1500, 0) for n in (name, base))
    if name != "v3-tune-1.0-own-early":  # v3 itself, measured again at the length of the others
        assert own != plain


def test_names_on_the_command_line() -> None:
    assert parse_runs(["phase4:0,2", "v3"]) == [("phase4", 0), ("phase4", 2), ("v3", 0)]
    tries = parse_tries([["mine=phase4", "selftraining.weight=0.5", "selftraining.start=0"]])
    recipe = resolve(tries["mine"], "mine", CPU, 100, 0)
    assert (recipe.selftraining.weight, recipe.selftraining.start) == (0.5, 0)
    with pytest.raises(RecipeError, match="no method"):
        Planner(CPU, 100).key("v4", 0)
    assert ("supervised", 2) in runs_of_set("table")
    assert {CPU.length_of(name) for name in ("table", *SETS)} == {CPU.iterations, CPU.long, CPU.screening}
    assert CPU.length_of("long") > CPU.length_of("table") > CPU.length_of("screening")


# ---- a run


def job_of(planned: Planned, prepared: Path, out: Path) -> Job:
    plain = planned.recipe.model_dump(mode="json")
    return Job(planned.key, plain, planned.all_labelled, prepared, out, "cpu", 1, True)


def tiny(method: str) -> Planned:
    planner = Planner(CPU, 4, "none", SMALL)
    planned = planner.plan(planner.key(method, 0), Store(Path("nowhere")))
    assert planned is not None
    return planned


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with one finished run of phase4."""
    out = tmp_path_factory.mktemp("results")
    write_json(out / "job.json", replace(job_of(tiny("phase4"), prepared, out), resumable=False).to_json())
    assert work(out / "job.json") == 0
    return out


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    prepared: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tiny("phase4"), prepared, tmp_path)
    write_json(tmp_path / "job.json", job.to_json())
    run = ContestTrainer.run

    def stopped_at_2(trainer: ContestTrainer, _: Any) -> None:
        run(trainer, lambda done, _: os.kill(os.getpid(), signal.SIGTERM) if done == 2 else None)

    with monkeypatch.context() as patch:
        patch.setattr(ContestTrainer, "run", stopped_at_2)
        assert work(tmp_path / "job.json") == 130
    spent = Store(tmp_path).work(job.key.id) / SPENT
    states = spent.parent / "checkpoints"
    (states / "last.pt").replace(states / "previous.pt")  # as a kill between the two renames leaves them
    assert 0 < float(spent.read_text()) < 600
    spent.write_text("1000")
    with monkeypatch.context() as patch:  # as a full disk does, once the weights lie in their place
        patch.setattr("contest.worker.write_json", Mock(side_effect=OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            work(tmp_path / "job.json")
    assert work(tmp_path / "job.json") == 0
    broken, whole = (read_json(Store(out).record(job.key.id)) for out in (tmp_path, finished))
    assert broken["validation"] == whole["validation"]
    assert [point["iteration"] for point in broken["curve"]] == [1, 2, 3, 4]
    assert broken["weights"] == whole["weights"]
    assert 1000 < broken["seconds"] < 1600
    assert [event["event"] for event in broken["events"] if event["event"] != "alarm"] == [
        "interrupted", "resumed", "finished", "resumed", "finished",
    ]  # fmt: skip
    assert times_gone_back(broken) == 0
    assert not Store(tmp_path).work(job.key.id).exists()


def test_a_state_of_another_recipe_or_other_images_is_not_gone_on_with(
    source: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(tiny("supervised"), prepared, tmp_path)
    trainer = _trainer(job)
    trainer.run(lambda done, total: None)
    assert _trainer(job).iteration == 4
    rate = {"optimizer": job.recipe["optimizer"] | {"learning_rate": 1e-3}}
    fewer = tmp_path / "fewer"
    shutil.copytree(prepared, fewer)
    shutil.rmtree(fewer / "Tile 2")
    for other, what in (
        (replace(job, data=fewer), "set of images"),
        (replace(job, recipe=job.recipe | rate), "recipe"),
    ):
        copy = shutil.copytree(tmp_path / "unfinished", tmp_path / what / "unfinished").parent
        capsys.readouterr()
        assert _trainer(replace(other, out=copy)).iteration == 0
        assert f"4 steps of another {what} are dropped" in capsys.readouterr().out


def test_watching_pseudo_labels_leaves_the_labeller_as_it_was(prepared: Path, tmp_path: Path) -> None:
    trainer = _trainer(job_of(tiny("phase4"), prepared, tmp_path))
    for tensor in trainer.labeller.state().values():
        tensor.fill_(0.3)
    before = {name: tensor.clone() for name, tensor in trainer.labeller.state().items()}
    assert before
    assert isinstance(trainer.validation, Watch)
    figures = trainer.validation._pseudo_labels(torch.device("cpu"))
    assert sum(figures["kept_pixels"]) == round(figures["kept_share"] * 2 * 48 * 56)
    for name, tensor in trainer.labeller.state().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(("method", "kept"), [("phase4", True), ("unimatch2", False)])
def test_only_what_a_run_may_go_back_to_is_written(prepared: Path, tmp_path: Path, method: str, kept: bool) -> None:
    trainer = _trainer(job_of(tiny(method), prepared, tmp_path))
    trainer.run(lambda done, total: None)
    assert trainer.run_folder.best.is_file() == kept


def test_a_guarded_run_goes_back_to_its_best_network(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contest keeps no checkpoints of its own, but a run that falls must find one to go back to."""
    planner = Planner(CPU, 8, "none", [*SMALL, {"selftraining": {"start": 1}}])
    planned = planner.plan(planner.key("phase4", 0), Store(Path("nowhere")))
    assert planned is not None
    trainer = _trainer(replace(job_of(planned, prepared, tmp_path), resumable=False))
    scores = [0.5, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]

    def scripted(watch: Watch, *_: object) -> ConfusionMatrix:
        right, same = round(1000 * scores[len(watch.history)]), np.eye(6, dtype=np.int64)
        return ConfusionMatrix.from_counts(right * same + (1000 - right) // 5 * (1 - same))

    monkeypatch.setattr(Watch, "_confusion", scripted)
    weights: dict[int, list[torch.Tensor]] = {}

    def remember(done: int, _: int) -> None:
        weights[done] = [value.clone() for value in trainer.network.state_dict().values()]

    trainer.run(remember)
    events = [json.loads(line) for line in trainer.run_folder.metrics.read_text().splitlines()]
    (event,) = [event for event in events if event.get("event") == "rollback"]
    assert (event["iteration"], event["to"], event["weight_factor"]) == (5, 2, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(weights[5], weights[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[6], weights[5], strict=True))


def test_precision_of_pseudo_labels_by_hand() -> None:
    figures = pseudo_figures(np.array([[6, 2], [1, 3]]), valid=24)
    assert figures == {"kept_share": 0.5, "precision": 0.75, "kept_pixels": [7, 5], "right_pixels": [6, 3]}
    assert pseudo_figures(np.zeros((2, 2), np.int64), valid=0)["precision"] is None


def test_from_the_command_to_the_report(
    source: Path,
    prepared: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    # A worker of its own does the second run, in a Python that has nothing of maps and export
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def told(*arguments: object) -> str:
        capsys.readouterr()
        status = selftraining.main(["--out", str(out), *map(str, arguments)])
        text = capsys.readouterr().out
        assert status == 0, text
        return text

    small = ["--iterations", 4, "--encoder-weights", "none", "--change", "data.crop=32", "data.batch_size=2"]
    text = told("--data", prepared, "--device", "cpu", "--no-resumable", "--runs", "phase4", "v3", *small)
    assert "1 of 2 runs are done already" in text
    assert "2 of 2 runs are done\n" in text
    assert "0 of 2 runs are scored already" in told("--score-only", "--data", source, "--parts", 5)
    assert "2 of 2 runs are scored already" in told("--score-only", "--data", source, "--parts", 5)
    tuned = Store(out).records()[0]
    tuned["key"]["method"] = next(iter(TUNING))
    write_json(Store(out).record("tuned"), tuned)
    assert "2 of 2 runs are scored already" in told(
        "--score-only", "--data", source, "--parts", 5
    )  # it is not asked for
    missing = told("--score-only", "--data", source, "--parts", 5, "--runs", "phase4:7")
    assert "attention: phase4-s7-cpu-3000 is not finished and not scored" in missing
    Store(out).record("tuned").unlink()
    # The validation part scored from the stored weights: what the run saw, but for half floats
    scores = read_json(Store(out).scores([5]))["runs"]
    for record in Store(out).records():
        own = np.array(list(record["validation"]["end"]["images"].values()))
        stored = np.array(list(scores[f"{record['key']['method']}-s0-cpu-4"]["end"].values()))
        assert np.abs(own - stored).sum() <= 0.02 * own.sum()
    told("--report")
    assert "Test, " not in (out / "report" / "results.md").read_text()
    told("--report", "--test")
    text = (out / "report" / "results.md").read_text()
    assert "Test, parts 5, state with the best validation" in text
    assert "| phase4 | 1 |" in text
    assert (out / "report" / "curves-cpu-4.svg").is_file()
