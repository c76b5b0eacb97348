"""Which runs of the self-training benchmark are started, in which order, and what is done with those that are there."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from contest.groups import groups_of
from contest.methods import METHODS, TUNING
from contest.plan import Planner, best_tuning
from contest.records import RunKey, Store, digest_of, write_json
from contest.schedule import Terms, run_all
from contest.settings import resolve
from contest_records import CPU, record_of

from salakseg.errors import DataError

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


def test_random_weights_are_another_recipe_and_a_file_of_weights_is_none() -> None:
    by_name, from_a_file, random = (
        digest_of(resolve(METHODS["v3"], "v3", CPU, 100, 0, weights), False)
        for weights in ("imagenet", "weights/lite0.pth", "none")
    )
    assert by_name == from_a_file != random


def test_a_report_of_two_recipes_under_one_name_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed, method in enumerate(("phase2", "phase2", "phase3")):
        key = RunKey("v3", seed, "cpu", 100)
        write_json(store.record(key.id), record_of(key, [0.5], resolve(METHODS[method], "v3", CPU, 100, seed)))
        if seed == 1:
            (group,) = groups_of(store, test=False)
            assert len(group.of("v3")) == 2
    with pytest.raises(DataError, match="v3-s2-cpu-100 and v3-s0-cpu-100 are runs of different recipes"):
        groups_of(store, test=False)


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
