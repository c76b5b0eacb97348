"""The benchmark of self-training methods: protocol, bookkeeping and statistics, on tiny synthetic scenes."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import selftraining  # noqa: E402
from contest import protocol  # noqa: E402
from contest.bars import bar_lines  # noqa: E402
from contest.figures import (  # noqa: E402
    Result,
    best_minus_end,
    difference,
    gap_closed,
    rarest_class,
    stop_of,
    times_gone_back,
)
from contest.groups import Group  # noqa: E402
from contest.methods import ABLATIONS, METHODS, TUNING, runs_of_set  # noqa: E402
from contest.plan import Planned, Planner, best_tuning, parse_runs, parse_tries  # noqa: E402
from contest.records import RunKey, Store, digest_of, read_json, write_json  # noqa: E402
from contest.schedule import Terms, run_all  # noqa: E402
from contest.settings import BUDGETS, resolve  # noqa: E402
from contest.watch import ContestTrainer, Watch, pseudo_figures  # noqa: E402
from contest.windows import windows  # noqa: E402
from contest.worker import SPENT, Job, _trainer, work  # noqa: E402

from salakseg.data.splits import Role  # noqa: E402
from salakseg.errors import DataError, RecipeError  # noqa: E402
from salakseg.evaluate.bootstrap import draw_units, interval_of  # noqa: E402
from salakseg.evaluate.confusion import ConfusionMatrix  # noqa: E402
from salakseg.train.recipe import Recipe  # noqa: E402

CPU = BUDGETS["cpu"]
ABSENT = ("rasterio", "geopandas", "onnxruntime", "onnx", "shapely", "pyproj", "jinja2", "scipy")
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
    data = protocol.load_data(copy, all_labelled=False, window=32)
    training = data.training
    assert {patch.photo for patch in training.part(Role.LABELLED)} == {"image_part_001"}
    unlabelled = training.part(Role.UNLABELLED)
    assert {patch.photo for patch in unlabelled} == {f"image_part_{part:03d}" for part in (2, 3, 4)}
    assert all(patch.mask is None for patch in unlabelled)
    assert not training.part(Role.TEST)
    with pytest.raises(DataError):
        protocol.load_data(copy, all_labelled=True, window=32)


def test_all_labels_are_those_of_parts_1_to_4(prepared: Path) -> None:
    data = protocol.load_data(prepared, all_labelled=True, window=32).training
    assert {patch.photo for patch in data.part(Role.LABELLED)} == {f"image_part_{part:03d}" for part in (1, 2, 3, 4)}
    assert not data.part(Role.UNLABELLED)
    assert data.class_pixels.sum() == 2 * 4 * 48 * 56


def test_a_source_folder_is_refused_for_training(source: Path) -> None:
    with pytest.raises(DataError, match="--prepare"):
        protocol.load_data(source, all_labelled=False, window=32)


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


# ---- bookkeeping


def record_of(key: RunKey, curve: list[float], recipe: Recipe | None = None) -> dict[str, Any]:
    points = [{"iteration": 10 * (n + 1), "miou_without_background": score} for n, score in enumerate(curve)]
    return {
        "key": {"method": key.method, "seed": key.seed, "budget": key.budget, "iterations": key.iterations},
        "all_labelled": False,
        "recipe": (recipe or resolve(METHODS["v3"], key.method, CPU, 100, 0)).model_dump(mode="json"),
        "environment": {"device": "cpu", "jobs": 2},
        "seconds": 50.0,
        "curve": points,
    }


FAKE_WORKER = """
import json, signal, sys, time
from pathlib import Path
job = json.loads(Path(sys.argv[2]).read_text())
out, key = Path(job["out"]), job["key"]
def stop(*_):
    (out / "stopped").write_text(key["method"])
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
with (out / "order").open("a") as file:
    file.write(key["method"] + "\\n")
time.sleep(job["recipe"]["schedule"]["iterations"] if key["method"] == "phase1" else 0)
name = f"{key['method']}-s{key['seed']}-{key['budget']}-{key['iterations']}"
(out / "runs").mkdir(exist_ok=True)
(out / "runs" / f"{name}.json").write_text(json.dumps(RECORD))
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A worker that leaves a record and does nothing else."""
    record = json.dumps(record_of(RunKey("any", 0, "cpu", 100), [0.1]))
    script = tmp_path / "fake.py"
    script.write_text(FAKE_WORKER.replace("RECORD", f"json.loads({record!r})"))
    return script


def terms(fake: Path, stop_after: float | None = None, jobs: int = 1) -> Terms:
    return Terms(fake.parent, "cpu", jobs, stop_after, False, fake)


def test_finished_runs_are_skipped_and_the_longest_comes_first(tmp_path: Path, fake: Path) -> None:
    planner, store = Planner(CPU, 100), Store(tmp_path / "out")
    keys = [planner.key(method, 0) for method in ("supervised", "v3", "unimatch", "phase4")]
    done = planner.plan(keys[3], store)
    assert done is not None
    write_json(store.record(keys[3].id), record_of(keys[3], [0.5], done.recipe))
    assert run_all(keys, planner, store, terms(fake), time.monotonic(), lambda line: None)
    assert (store.out / "order").read_text().split() == ["unimatch", "v3", "supervised"]


def test_a_run_of_another_recipe_is_put_aside_and_done_anew(tmp_path: Path, fake: Path) -> None:
    planner, store = Planner(CPU, 100), Store(tmp_path / "out")
    key = planner.key("v3", 0)
    other = resolve(METHODS["phase2"], "v3", CPU, 100, 0)
    write_json(store.record(key.id), record_of(key, [0.5], other))
    run_all([key], planner, store, terms(fake), time.monotonic(), lambda line: None)
    assert (store.out / "order").read_text().split() == ["v3"]
    aside = [path.name for path in (store.out / "superseded").iterdir()]
    assert aside == [f"v3-s0-cpu-100-{digest_of(other, False)[:8]}.json"]


def test_nothing_is_started_that_does_not_fit(tmp_path: Path, fake: Path) -> None:
    planner, store = Planner(CPU, 100), Store(tmp_path / "out")
    store.out.mkdir()
    keys = [planner.key("v3", 0)]
    assert not run_all(keys, planner, store, terms(fake, stop_after=60), time.monotonic(), lambda line: None)
    assert not (store.out / "order").exists()


def test_what_runs_at_the_limit_is_asked_to_stop(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contest.schedule._GRACE", {False: 0.0})
    monkeypatch.setattr("contest.schedule.seconds_of", lambda *_: 0.0)
    planner, store = Planner(CPU, 100), Store(tmp_path / "out")
    keys = [planner.key("phase1", 0)]  # sleeps for 100 seconds
    assert not run_all(keys, planner, store, terms(fake, stop_after=3), time.monotonic(), lambda line: None)
    assert (store.out / "stopped").read_text() == "phase1"
    assert not list((store.out / "runs").glob("*"))


def test_v3_is_tuned_on_validation_once_all_its_variants_are_there(tmp_path: Path) -> None:
    planner, store = Planner(CPU, 100), Store(tmp_path)
    records: list[dict[str, Any]] = []
    for number, name in enumerate(TUNING):
        assert best_tuning(records, "cpu") is None
        records.append(record_of(RunKey(name, 0, "cpu", 60), [0.1, 0.3 + 0.1 * (number == 2), 0.2]))
    assert best_tuning(records, "cpu") == list(TUNING)[2]
    assert best_tuning(records, "gpu") is None
    assert planner.plan(planner.key("v3-tuned", 0), store) is None
    for record in records:
        write_json(store.record(record["key"]["method"]), record)
    planned = planner.plan(planner.key("v3-tuned", 0), store)
    assert planned is not None
    assert planned.recipe.selftraining == resolve(METHODS[list(TUNING)[2]], "x", CPU, 100, 0).selftraining


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
    assert 0 < float(spent.read_text()) < 600
    spent.write_text("1000")
    assert work(tmp_path / "job.json") == 0
    broken, whole = (read_json(Store(out).record(job.key.id)) for out in (tmp_path, finished))
    assert broken["validation"] == whole["validation"]
    assert [point["iteration"] for point in broken["curve"]] == [1, 2, 3, 4]
    assert broken["weights"] == whole["weights"]
    assert 1000 < broken["seconds"] < 1600
    assert [event["event"] for event in broken["events"] if event["event"] != "alarm"] == [
        "interrupted", "resumed", "finished",
    ]  # fmt: skip
    assert times_gone_back(broken) == 0
    assert not Store(tmp_path).work(job.key.id).exists()


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


def test_a_bar_is_open_until_there_are_three_seeds() -> None:
    good, bad = [[5, 0, 0], [0, 95, 0], [0, 0, 50]], [[5, 0, 0], [0, 60, 35], [0, 10, 40]]
    middle = [[5, 0, 0], [0, 88, 7], [0, 2, 48]]

    def verdicts(seeds: int) -> list[str]:
        records, entries = [], {}
        for method, matrix in {"supervised": bad, "supervised-all": good, "v3": bad, "phase4": middle}.items():
            for seed in range(seeds):
                record = record_of(RunKey(method, seed, "cpu", 100), [0.5])
                record |= {"weights": {"end": f"{method} {seed}"}, "classes": [{"name": name} for name in "abc"]}
                images = {f"Tile {n // 2}/{n}": matrix for n in range(8)}
                entries[f"{method}-s{seed}-cpu-100"] = {"weights": record["weights"], "best": images, "end": images}
                records.append(record)
        group = Group("cpu", 100, tuple(records), {"parts-6": entries}, {"v3": 1.0, "phase4": 2.0})
        rows = [line for line in bar_lines(group, "parts-6") if line.startswith("| ") and "---" not in line]
        return [row.split(" | ")[-1].removesuffix(" |") for row in rows[1 : len(rows) // 2]]

    assert verdicts(1) == ["open: too few seeds", "-", *["open: too few seeds"] * 2, "**no**"]
    assert verdicts(3) == ["yes", "-", "yes", "yes", "**no**"]


# ---- statistics


def results(counts: list[list[list[list[int]]]], method: str) -> list[Result]:
    """A run for each seed; images of two scenes in turn."""
    return [
        Result.of(method, seed, {f"Tile {n % 2}/{n}": matrix for n, matrix in enumerate(images)})
        for seed, images in enumerate(counts)
    ]


def test_paired_bootstrap_against_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.integers(1, 60, (2, 6, 3, 3)) for _ in range(2))
    a += 30 * np.eye(3, dtype=np.int64)
    gap = difference(results(a.tolist(), "a"), results(b.tolist(), "b"))

    def miou(counts: Any) -> float:
        ious = [counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in (1, 2)]
        return float(sum(ious) / 2)

    order = np.argsort([f"Tile {n % 2}/{n}" for n in range(6)])
    mean_a, mean_b = a.mean(axis=0)[order], b.mean(axis=0)[order]
    assert gap.value == pytest.approx(miou(mean_a.sum(axis=0)) - miou(mean_b.sum(axis=0)))
    gaps = [
        miou(sum(n * m for n, m in zip(draw, mean_a, strict=True)))
        - miou(sum(n * m for n, m in zip(draw, mean_b, strict=True)))
        for draw in draw_units(6)
    ]
    assert gap.by_image == pytest.approx(interval_of(np.array(gaps), 6).ends)
    assert np.isnan(gap.by_scene).all()  # two scenes are too few for an interval


def test_a_method_over_itself_is_nothing() -> None:
    own = results(np.random.default_rng(1).integers(1, 60, (1, 6, 3, 3)).tolist(), "a")
    assert difference(own, own).by_image == (0.0, 0.0)


def test_gap_closed_by_seed() -> None:
    def run(right: int) -> Result:
        return Result.of("m", 0, {"Tile 1/1": [[0, 0], [10 - right, right]]})

    assert gap_closed([run(6)], [run(4)], [run(8)]) == {0: pytest.approx(0.5)}
    assert rarest_class(Result.of("m", 0, {"Tile 1/1": [[1, 0, 0, 0], [0, 9, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]]})) == 2


def test_a_small_image_counts_as_much_as_a_large_one_where_all_are_alike() -> None:
    large, small = [[0, 0, 0], [0, 90, 10], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 1, 3]]
    run = Result.of("m", 0, {"Tile 1/1": large, "Tile 2/1": small})
    assert run.miou() == pytest.approx((90 / 101 + 3 / 14) / 2)
    assert run.miou_images_alike == pytest.approx((0.9 / 1.25 + 0.75 / 1.1) / 2)
    low, high = (
        Result.of("m", 0, {"Tile 1/1": large, "Tile 2/1": [[0, 0, 0], [0, 0, 0], [0, 4 - n, n]]}) for n in (2, 4)
    )
    share = gap_closed([run], [low], [high], lambda result: result.miou_images_alike)[0]
    ends = [result.miou_images_alike for result in (low, high)]
    assert share == pytest.approx((run.miou_images_alike - ends[0]) / (ends[1] - ends[0]))
    assert share != pytest.approx(gap_closed([run], [low], [high])[0], abs=0.01)


def test_fall_and_early_stop() -> None:
    record = record_of(RunKey("v3", 0, "cpu", 100), [0.1, 0.4, 0.3, 0.3, 0.3, 0.5, 0.45])
    assert best_minus_end(record) == pytest.approx(0.05)
    assert stop_of(record, patience=0.3) == (50, 0.4)  # 30 of 100 iterations after the best at 20
    assert stop_of(record, patience=0.5) == (100, 0.5)
