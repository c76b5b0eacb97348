"""What a run keeps on disk: two generations, whole whatever happens, and one process that writes."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from disks import no_file_beyond
from helpers import TINY, command
from training import quiet, tiny_request

import salakseg.network.checkpoint as network_checkpoint
import salakseg.train.keeping as keeping
from salakseg.errors import CheckpointError, TrainingError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.train.keeping import Keeper, clear_leftovers, load_newest
from salakseg.train.line_file import LineFile
from salakseg.train.run import RunFolder, RunLog
from salakseg.train.signals import stop_on_signal
from salakseg.train.start import Request, resume_run, start_run
from salakseg.train.unfinished import newest_unfinished


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.last.parent.mkdir(parents=True)
    return folder


def at(checkpoint: Checkpoint, iteration: int) -> Checkpoint:
    return replace(checkpoint, iteration=iteration)


def names(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.last.parent.iterdir())


def test_two_generations_are_kept(checkpoint: Checkpoint, run: RunFolder) -> None:
    keeper = Keeper(run, 10, quiet)
    for iteration in (10, 20, 30):
        keeper.save(at(checkpoint, iteration))
    assert names(run) == ["last.pt", "previous.pt"]
    assert [load_checkpoint(path).iteration for path in (run.last, run.previous)] == [30, 20]
    assert load_newest(run, quiet).iteration == keeper.saved == 30


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_last_one_falls_back_to_the_one_before(checkpoint: Checkpoint, run: RunFolder, damage: str) -> None:
    keeper = Keeper(run, 10, quiet)
    for iteration in (10, 20):
        keeper.save(at(checkpoint, iteration))
    content = bytearray(run.last.read_bytes())
    content[len(content) // 2] ^= 1  # in the weights, where torch does not look
    changed = {"cut": bytes(content[: len(content) // 2]), "flipped": bytes(content), "empty": b""}
    run.last.unlink() if damage == "gone" else run.last.write_bytes(changed[damage])
    said: list[str] = []
    assert load_newest(run, said.append).iteration == 10
    assert len(said) == 1 and "last.pt" in said[0] and "Going on from previous.pt, step 10" in said[0]
    # The next one must not push the good one out
    Keeper(run, 10, quiet).save(at(checkpoint, 12))
    assert [load_checkpoint(path).iteration for path in (run.last, run.previous)] == [12, 10]
    assert (run.last.with_name("last.damaged.pt").exists()) == (damage != "gone")


def test_both_damaged_is_one_sentence(checkpoint: Checkpoint, run: RunFolder) -> None:
    for path in (run.last, run.previous):
        path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"previous\.pt is"):
        load_newest(run, quiet)


@pytest.mark.parametrize("renames_before", [0, 1])
def test_killed_between_two_renames(
    checkpoint: Checkpoint, run: RunFolder, monkeypatch: pytest.MonkeyPatch, renames_before: int
) -> None:
    Keeper(run, 10, quiet).save(at(checkpoint, 10))
    count = 0

    def killed(old: Path, new: Path) -> None:
        nonlocal count
        if count == renames_before:
            raise KeyboardInterrupt
        count += 1
        os.replace(old, new)

    monkeypatch.setattr(network_checkpoint, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        Keeper(run, 10, quiet).save(at(checkpoint, 20))
    monkeypatch.undo()
    assert load_newest(run, quiet).iteration == 10
    clear_leftovers(run)
    assert len(names(run)) == 1


def test_a_full_disk_leaves_both_generations_whole(checkpoint: Checkpoint, run: RunFolder) -> None:
    said: list[str] = []
    keeper = Keeper(run, 10, said.append)
    for iteration in (10, 20):
        keeper.save(at(checkpoint, iteration))
    size = run.last.stat().st_size
    for most in (0, 1000, size // 2, size - 10):
        with no_file_beyond(most), pytest.raises(CheckpointError, match="is the disk full"):
            keeper.save(at(checkpoint, 30))
        assert names(run) == ["last.pt", "previous.pt"]
        assert [load_newest(run, quiet).iteration, load_checkpoint(run.previous).iteration] == [20, 10]
    with no_file_beyond(size // 2):
        keeper.try_to_save(at(checkpoint, 30))
        keeper.try_to_save(at(checkpoint, 40))
    assert len(said) == 1 and "the state of step 20 is kept" in said[0]
    keeper.try_to_save(at(checkpoint, 50))
    assert "step 50: the run is saved again" in said[1]
    assert load_newest(run, quiet).iteration == 50


def test_checkpoints_take_a_twentieth_of_the_time_at_most(checkpoint: Checkpoint, run: RunFolder) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0005
        return now

    keeper = Keeper(run, 10, quiet, clock=clock)
    assert [n for n in range(1, 40) if keeper.is_due(n)] == [10, 20, 30]
    keeper.save(at(checkpoint, 40))
    assert not keeper.is_due(40), "it is on disk"
    asked = next(n for n in range(1, 100) if keeper.is_due(50))
    assert 15 <= asked <= 25  # the clock went one tick while it was saved, and goes one whenever it is asked


def test_lines_wait_for_room_and_none_is_torn(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "log.jsonl"
    file = LineFile(path, said.append)
    file.add("first")
    with no_file_beyond(9):
        file.add("second")
        file.add("third")
        assert path.read_text() == "first\n"
    file.add("fourth")
    assert path.read_text() == "first\nsecond\nthird\nfourth\n"
    assert len(said) == 2 and "cannot be written" in said[0] and "written again" in said[1]
    with no_file_beyond(9):
        file.add("fifth")
        file.close()
    assert "1 lines of" in said[-1] and "are lost" in said[-1]


def test_a_full_disk_does_not_end_a_log(run: RunFolder) -> None:
    said: list[str] = []
    log = RunLog(run, 0, say=said.append)
    log.write("train", 1, {"loss": 1.0})
    with no_file_beyond(run.metrics.stat().st_size + 3):
        log.write("train", 2, {"loss": 1.0})
        with suppress(OSError):
            if log._board is not None:  # its own thread may have met the full disk already
                log._board.flush()
        log.write("train", 3, {"loss": 1.0})
    log.write("train", 4, {"loss": 1.0})
    log.close()
    assert [json.loads(line)["iteration"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3, 4]


def request(data: Path, run: Path, steps: int = 12, **settings: Any) -> Request:
    return tiny_request(data, run, steps, start=4, every=4, **{"evaluation__save_every": 1} | settings)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints may take all of the time: steps of so small a network are quicker than writing it."""
    monkeypatch.setattr(keeping, "SHARE", 1.0)


def test_a_run_goes_on_through_a_full_disk(plantation: Path, tmp_path: Path, busy: None) -> None:
    """No room from step 3 to step 9, an evaluation with a new best among them; then there is room again."""
    data = shutil.copytree(plantation, tmp_path / "patches")
    said: list[str] = []
    trainer = start_run(request(data, tmp_path / "run"), said.append, quiet)
    run = RunFolder(tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, _total: int) -> None:
        if done == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        if done == 9:
            assert load_newest(run, quiet).iteration == 3
            assert not run.best.exists()
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        trainer.run(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any("the state of step 3 is kept" in line for line in said)
    assert any("The best network so far stays that of before" in line for line in said)
    assert any("the run is saved again" in line for line in said)
    assert load_newest(run, quiet).iteration == 12
    best = load_checkpoint(run.best)
    kept = [record for record in best.history if record["iteration"] == 12]
    assert best.training["best_score"] == kept[-1]["miou_without_background"], "a best that was not kept is no bar"


def test_a_disk_that_stays_full_ends_a_run_with_one_sentence(plantation: Path, tmp_path: Path, busy: None) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run", steps=6), quiet, quiet)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, _total: int) -> None:
        if done == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(CheckpointError, match="is the disk full"):
            trainer.run(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resumed = resume_run(tmp_path / "run", None, None, "cpu", quiet, quiet)
    assert resumed.iteration == 2
    resumed.run(quiet)
    unbroken = start_run(request(data, tmp_path / "unbroken", steps=6), quiet, quiet)
    unbroken.run(quiet)
    own, other = resumed.network.state_dict(), unbroken.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in other.items())


def test_a_run_can_be_gone_on_with_from_its_first_step(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)

    def lost() -> None:
        raise KeyboardInterrupt

    trainer.batches = lost  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        trainer.run(quiet)
    assert resume_run(tmp_path / "run", None, None, "cpu", quiet, quiet).iteration == 0


def test_one_process_at_a_time(run: RunFolder, checkpoint: Checkpoint) -> None:
    Keeper(run, 10, quiet).save(at(checkpoint, 3))
    code = (
        "import sys, time; from pathlib import Path; from salakseg.train.run import RunFolder\n"
        f"with RunFolder(Path({str(run.path)!r})).held():\n    print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="being trained by another process"):
            resume_run(run.path, None, None, "cpu", quiet, quiet)
        with pytest.raises(TrainingError, match="no unfinished run"):
            newest_unfinished(run.path.parent, quiet)
        other.kill()
    with run.held():  # a kill gives it free
        pass


def test_the_newest_unfinished_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Of four runs: an old one, a newer one whose last checkpoint is damaged, one that is done, one that gave up."""
    recipe = {**checkpoint.recipe, "schedule": {"iterations": 100, "warmup": 2}}
    plain = replace(checkpoint, recipe=recipe, history=[])
    flat = [{"iteration": n, "miou_without_background": 0.3} for n in range(60)]
    runs = tmp_path / "runs"
    with pytest.raises(TrainingError, match="no unfinished run; name one"):
        newest_unfinished(runs, quiet)
    for number, (name, state) in enumerate(
        [
            ("old", at(plain, 50)),
            ("new", at(plain, 60)),
            ("done", at(plain, 100)),
            ("early", replace(plain, iteration=70, history=flat)),
        ]
    ):
        run = RunFolder(runs / name)
        run.last.parent.mkdir(parents=True)
        keeper = Keeper(run, 10, quiet)
        keeper.save(at(state, state.iteration - 5))
        keeper.save(state)
        for path in (run.last, run.previous):
            os.utime(path, (1e9 + number, 1e9 + number))
    said: list[str] = []
    assert newest_unfinished(runs, said.append).name == "new"
    assert said == [f"the newest unfinished run is {runs / 'new'}"]
    assert newest_unfinished(runs, quiet, patience=100).name == "early"  # which gave up with another
    RunFolder(runs / "new").last.write_bytes(b"damaged")
    assert newest_unfinished(runs, quiet).name == "new"  # by the one before
    RunFolder(runs / "new").previous.write_bytes(b"damaged")
    assert newest_unfinished(runs, said.append).name == "old"
    assert "passed over" in said[1] and "previous.pt is damaged" in said[1]


def test_resume_needs_no_other_flag(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    (tmp_path / "salakseg.toml").write_text('data_root = "patches"\n')
    trainer = start_run(request(data, tmp_path / "runs" / "mine", steps=6), quiet, quiet)

    def stop(done: int, _total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    told = " ".join(command("train", "--resume", cwd=tmp_path).output.split())
    assert f"the newest unfinished run is {tmp_path / 'runs' / 'mine'}" in told
    assert "going on after step 5 of 6" in told
    assert load_checkpoint(RunFolder(tmp_path / "runs" / "mine").last).iteration == 6
    assert "no unfinished run" in command("train", "--resume", cwd=tmp_path, status=1).output
    told = command("train", "runs/mine", *TINY, cwd=tmp_path, status=1).output
    assert "Write --resume runs/mine" in " ".join(told.split())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_ask_to_stop(name: str, request: pytest.FixtureRequest) -> None:
    number = getattr(signal, name)
    own = signal.getsignal(number)
    before = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    signal.signal(number, before)  # the tests themselves may run under nohup
    request.addfinalizer(lambda: signal.signal(number, own))
    with stop_on_signal() as asked:
        os.kill(os.getpid(), number)
        assert asked.is_set()
        if name == "SIGINT":
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        else:
            os.kill(os.getpid(), number)  # whoever ends a job sends several; the step still ends
    assert signal.getsignal(number) == before


def test_nohup_stays_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)
