"""What a run that is gone on with must not forget, and must not be talked out of."""

import shutil
import signal
import threading
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_patch, write_plantation
from training import quiet, records, tiny_request
from typer.testing import CliRunner

from salakseg.cli.main import app
from salakseg.data.blocks import BLOCKS, write_blocks
from salakseg.data.patches import Photo, index_patches
from salakseg.data.splits import Role, Split, write_split
from salakseg.errors import CheckpointError, DataError, TrainingError
from salakseg.network.checkpoint import Checkpoint, load_checkpoint
from salakseg.network.config import NetworkConfig
from salakseg.network.model import Segmenter
from salakseg.train.loop import Trainer
from salakseg.train.run import RunFolder
from salakseg.train.runs import State, read_run
from salakseg.train.schedule import make_optimizer
from salakseg.train.settings import OptimizerConfig
from salakseg.train.signals import Interrupted
from salakseg.train.skipping import step_if_finite
from salakseg.train.start import Request, resume_run, start_run
from salakseg.train.state import load_optimizer, restore
from salakseg.train.unfinished import newest_unfinished


def request(data: Path, run: Path, **settings: Any) -> Request:
    return tiny_request(data, run, iterations=2, start=1, every=1, **{"health__sample": 1} | settings)


def resumed(run: Path, say: Any = quiet) -> Trainer:
    return resume_run(run, None, None, "cpu", say, quiet)


def interrupted_at_1(done: int, _total: int) -> None:
    if done == 1:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_plantation(tmp_path_factory.mktemp("gone_on") / "patches")


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    start_run(request(data, run), quiet, quiet).run(quiet)
    return load_checkpoint(RunFolder(run).last)


def test_evaluations_that_break_off_are_made_up_for(data: Path, unbroken: Checkpoint, tmp_path: Path) -> None:
    """By a second Ctrl-C, or a bad patch; without its last evaluation a run would have no result."""

    def breaking(trainer: Trainer, owner: Any, name: str, when: int) -> None:
        whole = getattr(owner, name)

        def broken(*arguments: Any) -> Any:
            if trainer.iteration == when:
                raise KeyboardInterrupt
            return whole(*arguments)

        setattr(owner, name, broken)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(quiet)

    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    breaking(trainer, trainer.observer, "evaluated", 1)
    trainer = resumed(tmp_path / "run")
    breaking(trainer, trainer.validation, "confusion", 2)
    trainer = resumed(tmp_path / "run")
    trainer.run(quiet)
    last = load_checkpoint(trainer.run_folder.last)
    assert last.history == unbroken.history
    assert last.training["best_score"] == unbroken.training["best_score"]
    assert all(torch.equal(last.student[name], value) for name, value in unbroken.student.items())


def test_too_many_unreadable_patches_stop_a_run_until_they_are_mended(data: Path, tmp_path: Path) -> None:
    own = shutil.copytree(data, tmp_path / "patches")
    trainer = start_run(request(own, tmp_path / "run", selftraining__start=0), quiet, quiet)
    masks = {path.name for path in (own / "salak-1-2" / "masks").iterdir()}
    pictures = [path for path in (own / "salak-1-2" / "images").iterdir() if path.name not in masks]
    before = {path: path.read_bytes() for path in pictures}
    for path, content in before.items():
        path.write_bytes(content[:150])
    with pytest.raises(DataError, match="go on with --resume"):
        trainer.run(quiet)
    with pytest.raises(DataError, match="cannot be read"):
        resumed(tmp_path / "run").run(quiet)
    for path, content in before.items():
        path.write_bytes(content)
    said: list[str] = []
    again = resumed(tmp_path / "run", said.append)
    again.run(quiet)
    assert again.iteration == 2
    assert not any("could not be read" in line for line in said), "they can be read again"
    assert read_run(tmp_path / "run").state is State.FINISHED


def test_a_run_that_the_watch_has_stopped_is_not_the_newest_unfinished_one(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "stopped"
    trainer = start_run(request(data, run), quiet, quiet)

    def evaluated(log: Any) -> None:
        trainer.observer.stop_reason = "the score falls"
        log.write("event", trainer.iteration, {"event": "stopped by the watch", "reason": "the score falls"})

    trainer.observer.evaluated = evaluated  # type: ignore[method-assign]
    trainer.run(quiet)
    assert trainer.iteration == 1
    assert read_run(run).state is State.STOPPED
    with pytest.raises(TrainingError, match="no unfinished run"):
        newest_unfinished(run.parent, quiet)
    assert resumed(run).iteration == 1  # whoever names it means it


def test_a_larger_patience_holds_whatever_ends_the_run(data: Path, tmp_path: Path) -> None:
    """A ladder asks the folder whether a rung is over."""
    run = tmp_path / "runs" / "one"
    wanted = request(data, run, schedule__iterations=6, evaluation__patience=1)
    trainer = start_run(wanted, quiet, quiet)
    trainer.validation.stop_reason = lambda: "the score stands still"  # type: ignore[method-assign]
    trainer.run(quiet)
    assert (trainer.iteration, read_run(run).state) == (1, State.STOPPED)
    trainer = resume_run(run, None, 5, "cpu", quiet, quiet)
    assert tomllib.loads((run / "recipe.toml").read_text())["evaluation"]["patience"] == 5

    def kill(log: Any) -> None:
        raise KeyboardInterrupt

    trainer._evaluate = kill  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run(quiet)
    assert load_checkpoint(RunFolder(run).last).recipe["evaluation"]["patience"] == 5  # saved before the first step
    assert [record["event"] for record in records(run, "event")][-2:] == ["stopped early", "resumed"]
    assert read_run(run).state is State.INTERRUPTED
    assert newest_unfinished(run.parent, quiet) == run


def test_photos_that_came_later_do_not_keep_a_run_from_going_on(data: Path, tmp_path: Path) -> None:
    patches = shutil.copytree(data, tmp_path / "patches")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(patches, tmp_path / "run"), quiet, quiet).run(interrupted_at_1)
    write_patch(patches, "salak-1-2", "late_0_0.png", np.zeros((48, 48), np.uint8), labelled=True)
    said: list[str] = []
    again = resumed(tmp_path / "run", said.append)
    assert any("holds 1 photos that came after the run began, such as" in line for line in said)
    assert not any("have changed" in line for line in said)
    drawn = {patch.photo_key.name for role in Role if role is not Role.GAP for patch in again.data.part(role)}
    assert drawn and not any(name.startswith("late") for name in drawn)


def test_a_run_keeps_its_own_patches_whatever_the_environment_says_of_new_ones(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        start_run(request(data, run), quiet, quiet).run(interrupted_at_1)
    monkeypatch.setenv("SALAKSEG_DATA_ROOT", "from_environment")
    monkeypatch.setenv("SALAKSEG_CLASS_MAPPING", "from_environment.csv")
    refused = CliRunner().invoke(app, ["train", "--resume", str(run), "--data-root", "from_flag", "--device", "cpu"])
    assert "from_flag is no folder" in " ".join(refused.stderr.split())
    done = CliRunner().invoke(app, ["train", "--resume", str(run), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert read_run(run).state is State.FINISHED


def test_an_optimizer_is_gone_on_with_on_another_kind_of_device() -> None:
    """A GPU moves all parameters by one kernel, which a checkpoint of a CPU says nothing of."""
    network = Segmenter(NetworkConfig(encoder="timm-tf_efficientnet_lite0", encoder_weights="none"), 3)
    for kind in ("sgd", "adamw"):
        config = OptimizerConfig(kind=kind)
        before = make_optimizer(network, config, fused=False)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        before.step()
        now = make_optimizer(network, config, fused=True)
        load_optimizer(now, before.state_dict())
        assert all(group["fused"] for group in now.param_groups)
        was = [parameter.clone() for parameter in network.parameters()]
        wrapped: Any = type("Wrapped", (), {"optimizer": now, "step": lambda self: self.optimizer.step()})()
        step_if_finite(wrapped, torch.tensor(torch.nan))
        assert all(torch.equal(a, b) for a, b in zip(was, network.parameters(), strict=True))
        step_if_finite(wrapped, torch.tensor(1.0))
        assert not all(torch.equal(a, b) for a, b in zip(was, network.parameters(), strict=True))


def test_a_run_whose_last_state_is_not_saved_is_not_finished(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(data, tmp_path / "run", schedule__iterations=1, schedule__warmup=0, selftraining__start=0)
    trainer = start_run(wanted, quiet, quiet)
    save = trainer.keeper.save

    def full(checkpoint: Checkpoint) -> None:
        if checkpoint.iteration == 1:
            raise CheckpointError("the disk is full.")
        save(checkpoint)

    monkeypatch.setattr(trainer.keeper, "save", full)
    with pytest.raises(CheckpointError):
        trainer.run(quiet)
    assert read_run(tmp_path / "run").state is State.FAILED


def test_a_run_that_was_asked_to_stop_says_how_far_it_came(data: Path, tmp_path: Path) -> None:
    wanted = request(data, tmp_path / "run", schedule__iterations=9, evaluation__every=9)

    def ask(done: int, _total: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        start_run(wanted, quiet, quiet).run(ask)
    summary = read_run(tmp_path / "run")
    assert (summary.state, summary.iteration) == (
        State.INTERRUPTED,
        load_checkpoint(RunFolder(tmp_path / "run").last).iteration,
    )


def test_a_stop_that_comes_with_the_last_step_is_not_forgotten(data: Path, tmp_path: Path) -> None:
    """A ladder must not go on to its next rung."""

    def ask(done: int, total: int) -> None:
        if done == total:
            signal.raise_signal(signal.SIGTERM)

    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    trainer.run(ask)
    assert trainer.asked_to_stop
    assert read_run(tmp_path / "run").state is State.FINISHED


def test_an_older_checkpoint_that_is_gone_on_from_becomes_the_newest_at_once(data: Path, tmp_path: Path) -> None:
    """The log is cut to its step, so what was learned later must not stay the newest."""
    run = RunFolder(tmp_path / "run")
    start_run(request(data, run.path), quiet, quiet).run(quiet)
    before = load_checkpoint(run.previous)
    assert before.iteration == 1
    trainer = resumed(run.previous)

    def kill() -> Any:
        raise KeyboardInterrupt

    trainer._open_log = kill  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run(quiet)
    last = load_checkpoint(run.last)
    assert last.iteration == 1
    assert torch.equal(last.training["random"]["cpu"], before.training["random"]["cpu"])


def test_a_run_does_not_go_on_with_other_blocks_of_ground(data: Path, unbroken: Checkpoint, tmp_path: Path) -> None:
    """A split that was made anew keeps the blocks' names, and puts other patches into them."""
    root, split = shutil.copytree(data, tmp_path / "patches"), Split.from_rows(unbroken.split)
    rows = [(patch.folder, Path(patch.image).stem, f"{patch.photo}.000") for patch in index_patches(root).patches]
    roles = {Photo(photo.folder, f"{photo.name}.000"): role for photo, role in split.roles.items()}
    write_blocks(root / BLOCKS, rows)
    write_split(Split(roles), root / "splits.csv")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(root, tmp_path / "run"), quiet, quiet).run(interrupted_at_1)
    resumed(tmp_path / "run")
    (root / rows[0][0] / "images" / f"{rows[0][1]}.png").unlink()  # as a damaged one may be
    (root / rows[0][0] / "masks" / f"{rows[0][1]}.png").unlink(missing_ok=True)
    resumed(tmp_path / "run")
    judging = next(photo for photo, role in roles.items() if role is Role.VAL)
    learned = next(photo for photo, role in roles.items() if role is Role.LABELLED and photo.folder == judging.folder)
    other = {judging.name: learned.name, learned.name: judging.name}
    write_blocks(root / BLOCKS, [(folder, patch, other.get(block, block)) for folder, patch, block in rows])
    with pytest.raises(DataError, match=r"lie in other blocks of ground than when .* began"):
        resumed(tmp_path / "run")


def test_a_run_does_not_go_on_with_patches_of_another_place(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start_run(request(data, tmp_path / "run"), quiet, quiet).run(interrupted_at_1)
    elsewhere = write_plantation(tmp_path / "elsewhere")
    for folder in list(elsewhere.iterdir()):
        if folder.is_dir():
            folder.rename(elsewhere / f"other {folder.name}")
    with pytest.raises(DataError, match=r"holds none of the photos that .* was trained on; name them by --data-root"):
        resume_run(tmp_path / "run", elsewhere, None, "cpu", quiet, quiet)


def test_a_device_with_too_little_memory_for_an_evaluation_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    monkeypatch.setattr(trainer.validation, "evaluate", too_large)
    with pytest.raises(TrainingError, match=r"too little memory to validate whole pictures.*salakseg prepare"):
        trainer.run(quiet)


def test_what_breaks_in_one_process_alone_all_processes_know(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one would wait for the others for ever; the running statistics of the others are out of sight."""
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    monkeypatch.setattr("salakseg.train.loop.anybody", lambda flag, fabric: True)
    with pytest.raises(TrainingError, match="a weight is no longer finite"):
        trainer.run(quiet)


def test_of_two_runs_in_one_folder_the_first_one_has_it(data: Path, tmp_path: Path) -> None:
    """Two that begin at the same moment both find the folder free."""
    one = start_run(request(data, tmp_path / "run", schedule__iterations=6), quiet, quiet)
    two = start_run(request(data, tmp_path / "run", schedule__iterations=5), quiet, quiet)

    def lost() -> None:
        raise KeyboardInterrupt

    one.batches = lost  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        one.run(quiet)
    with pytest.raises(TrainingError, match="holds a run already"):
        two.run(quiet)
    assert "iterations = 6" in (tmp_path / "run" / "recipe.toml").read_text()


def test_each_process_goes_on_with_dropout_of_its_own(
    data: Path, unbroken: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    states = []
    for rank in range(3):
        monkeypatch.setattr(type(trainer.fabric), "global_rank", rank)
        monkeypatch.setattr(type(trainer.fabric), "world_size", 3)
        restore(trainer, unbroken)
        states.append(bytes(trainer.start_random["cpu"].numpy()))
    assert states[0] == bytes(unbroken.training["random"]["cpu"].numpy())
    assert len(set(states)) == 3
    restore(trainer, replace(unbroken, iteration=1))
    assert bytes(trainer.start_random["cpu"].numpy()) not in states


def test_processes_that_resume_together_do_not_shut_each_other_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them look at the run folder, each for a moment."""
    run = tmp_path / "runs" / "mine"
    trainer = start_run(request(data, run), quiet, quiet)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    monkeypatch.setenv("WORLD_SIZE", "2")
    looks, looked = threading.Event(), threading.Event()

    def other() -> None:
        with RunFolder(run).held():
            looks.set()
            looked.wait(0.3)

    for glance in (lambda: newest_unfinished(run.parent, quiet), lambda: RunFolder(run).glance()):
        looks.clear()
        thread = threading.Thread(target=other)
        thread.start()
        looks.wait()
        found = glance()
        if isinstance(found, Path):
            assert found == run
        else:
            with found:
                pass
        thread.join()
