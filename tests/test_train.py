"""Training runs by the real command."""

import csv
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, command, write_plantation
from PIL import Image
from training import quiet, records, tiny_request

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.splits import Role, Split, read_split, write_split
from salakseg.errors import DataError, TrainingError
from salakseg.evaluate.subjects import held_out_patches, open_subjects
from salakseg.network.checkpoint import load_checkpoint
from salakseg.prepare.manifest import Manifest
from salakseg.train.recipe import load_recipe
from salakseg.train.start import Request, resume_run, start_run
from salakseg.train.state import is_same_data


def test_a_run_leaves_everything_behind(tiny_run: Path) -> None:
    names = {path.relative_to(tiny_run).as_posix() for path in tiny_run.rglob("*") if path.is_file()}
    assert {
        "recipe.toml",
        "splits.csv",
        "environment.json",
        "metrics.jsonl",
        "checkpoints/best.pt",
        "checkpoints/last.pt",
    } <= names
    assert any(name.startswith("tensorboard/") for name in names)
    recipe = tomllib.loads((tiny_run / "recipe.toml").read_text())
    assert (recipe["name"], recipe["schedule"]["iterations"], recipe["data"]["batch_size"]) == ("phase2", 8, 2)
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert environment["device"] == "cpu"
    evaluations, steps = records(tiny_run, "val"), records(tiny_run, "train")
    assert [e["iteration"] for e in evaluations] == [4, 8]
    assert {"miou_without_background", "miou_with_background", "iou"} <= set(evaluations[0])
    assert {"loss_sup", "loss_unsup", "kept_share", "kept_share_foreground", "learning_rate"} <= set(steps[-1])


def test_the_split_of_a_run_is_that_of_its_data(tiny_run: Path) -> None:
    data = Path(load_checkpoint(tiny_run / "checkpoints" / "last.pt").data_root)
    assert (data / "splits.csv").read_bytes() == (tiny_run / "splits.csv").read_bytes()
    split = read_split(data / "splits.csv", index_patches(data))
    assert {Role.LABELLED, Role.VAL, Role.TEST} <= set(split.roles.values())


def test_best_is_the_best_validation_of_the_moving_average(tiny_run: Path) -> None:
    scores = {e["iteration"]: e["miou_without_background"] for e in records(tiny_run, "val")}
    best = load_checkpoint(tiny_run / "checkpoints" / "best.pt")
    assert scores[best.iteration] == max(scores.values())
    assert best.training["best_score"] == max(scores.values())


def run_for(data: Path, run: Path, steps: int, *more: object) -> Path:
    command("train", "--recipe", "v3", "--data-root", data, "--checkpoint-dir", run, "--num-steps", steps, *TINY, *more)
    return run / "checkpoints" / "last.pt"


def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    """Stopped by a real Ctrl-C somewhere, then continued: weights, averages, optimizer and log are the same."""
    data = write_plantation(tmp_path / "patches")
    unbroken = load_checkpoint(run_for(data, tmp_path / "unbroken", 14))
    run = tmp_path / "broken"
    words = [sys.executable, "-m", "salakseg", "train", "--recipe", "v3", "--data-root", data]
    words += ["--checkpoint-dir", run, "--num-steps", "14", *TINY]
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (run / "metrics.jsonl").is_file() or not records(run, "val"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said
    assert f"salakseg train --resume {run}" in " ".join(said.split())
    stopped = load_checkpoint(run / "checkpoints" / "last.pt").iteration
    assert 4 <= stopped < 14
    command("train", "--resume", run)
    resumed = load_checkpoint(run / "checkpoints" / "last.pt")
    assert resumed.iteration == unbroken.iteration == 14
    assert resumed.history == unbroken.history
    for own, other in ((resumed.student, unbroken.student), (resumed.ema, unbroken.ema)):
        assert all(torch.equal(own[name], value) for name, value in other.items())
    for mine, theirs in zip(
        resumed.training["optimizer"]["state"].values(), unbroken.training["optimizer"]["state"].values(), strict=True
    ):
        assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])
    assert torch.equal(resumed.training["random"]["cpu"], unbroken.training["random"]["cpu"])
    assert records(run, "val") == records(tmp_path / "unbroken", "val")


def test_another_seed_is_another_run(plantation: Path, tmp_path: Path) -> None:
    data = tmp_path / "patches"
    shutil.copytree(plantation, data)
    a = load_checkpoint(run_for(data, tmp_path / "a", 4))
    b = load_checkpoint(run_for(data, tmp_path / "b", 4, "--set", "seed=1"))
    assert not torch.equal(a.student["heads.0.1.weight"], b.student["heads.0.1.weight"])


def test_the_commands_of_the_teams_notes(plantation: Path, tmp_path: Path) -> None:
    """Every old flag, off switches too, and what each sets."""
    data = tmp_path / "patches"
    shutil.copytree(plantation, data)
    mapping = tmp_path / "class_mapping.csv"
    rows = "".join(f"{c.name},{' '.join(map(str, c.color))}\n" for c in SALAK.classes)
    mapping.write_text("class_name,class_color\n" + rows)
    run = tmp_path / "checkpoints" / "phase3"
    flags = ["--num-classes", 7, "--num-steps", 3, "--batch-size", 2, "--learning-rate", "5e-4", "--warmup-iters", 1]
    flags += ["--early-stop-patience", 50, "--st-loss-weight", 2.0, "--scale-min", 32, "--scale-max", 64]
    common = TINY[: TINY.index("--batch-size")]
    command(
        "train", "--phase", 3, "--data-root", data, "--class-mapping", mapping, "--checkpoint-dir", run,
        *flags, "--multi-scale", *common,
    )  # fmt: skip
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    assert recipe["schedule"] == {"iterations": 3, "warmup": 1}
    assert recipe["optimizer"]["learning_rate"] == 5e-4
    assert recipe["evaluation"]["patience"] == 50
    assert recipe["selftraining"]["weight"] == 2.0
    augment = recipe["augment"]
    assert (augment["multi_scale"], augment["scale_min"], augment["scale_max"]) == (True, 32, 64)
    off = tmp_path / "off"
    command(
        "train", "--data-root", data, "--checkpoint-dir", off, *flags[:-6], "--no-multi-scale", *common,
        "--set", "selftraining.enabled=false",
    )  # fmt: skip
    recipe = tomllib.loads((off / "recipe.toml").read_text())
    assert (recipe["name"], recipe["augment"]["multi_scale"]) == ("v3", False)
    assert "loss_unsup" not in records(off, "train")[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-classes", "6"], "--num-classes is 6, but the built-in salak class map has 7"),
        (["--recipe", "v4"], "no recipe 'v4'"),
        (["--recipe", "v3", "--phase", "1"], "give one of them"),
        (["--set", "loss.dcie=1"], "no setting 'loss.dcie'"),
        (["--data-root", "nowhere"], "no folder"),
        (["--class-mapping", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--splits", "nowhere/splits.csv"], "splits.csv cannot be written"),
        (["--set", "network.encoder_weights=nowhere.pth"], "nowhere.pth"),
        (["--resume", "nowhere"], "does not exist"),
        (["--resume", "nowhere", "--num-steps", "5"], "--resume keeps the run's recipe"),
        (["--resume", "nowhere", "--class-mapping", "classes.csv"], "--resume keeps the run's recipe"),
        (["--recipe", "supervised", "--set", "loss.ce=0"], "nothing would be learned from labels"),
        (["--set", "network.encoder=resnet18", "--set", "network.architecture=nonet"], "nonet"),
    ],
)
def test_what_cannot_work_is_one_sentence(plantation: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    data = tmp_path / "patches"
    shutil.copytree(plantation, data)
    run = tmp_path / "run"
    words = ["train", "--data-root", data, "--checkpoint-dir", run, "--num-steps", 5, *TINY, *arguments]
    if "--resume" in arguments:
        words = ["train", *arguments]
    done = command(*words, status=1)
    last = done.stderr.strip().replace("\n", " ")
    assert message in " ".join(last.split())
    assert "Traceback" not in done.stderr
    assert not run.exists()


def test_a_value_out_of_range_names_its_option(plantation: Path, tmp_path: Path) -> None:
    words = ["train", "--data-root", plantation, "--checkpoint-dir", tmp_path / "run", "--batch-size", 1]
    done = command(*words, status=2)
    assert re.search(r"'--batch-size'.*greater than or equal to 2", " ".join(done.stderr.split()))
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_and_a_finished_one_not_resumed(tiny_run: Path) -> None:
    data = load_checkpoint(tiny_run / "checkpoints" / "last.pt").data_root
    done = command("train", "--data-root", data, "--checkpoint-dir", tiny_run, "--num-steps", 5, *TINY, status=1)
    assert "holds a run already" in " ".join(done.stderr.split())
    done = command("train", "--resume", tiny_run, status=1)
    assert "is finished" in done.stderr


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    before = sorted(tmp_path.rglob("*"))
    run = tmp_path / "run"
    words = ["--data-root", data, "--checkpoint-dir", run, "--num-steps", 5, *TINY]
    done = command("train", "--phase", 2, "--dry-run", *words)
    assert tomllib.loads(done.stdout)["selftraining"]["weight"] == 1.5
    assert sorted(tmp_path.rglob("*")) == before


def request(data: Path, run: Path, **settings: Any) -> Request:
    return tiny_request(data, run, iterations=12, start=4, every=2, **settings)


def test_patience_ends_a_run(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    said: list[str] = []
    wanted = request(data, tmp_path / "run", evaluation__patience=2, optimizer__learning_rate=1e-12)
    trainer = start_run(wanted, said.append, quiet)
    scores = iter([0.3, 0.4, 0.35, 0.3, 0.9])
    evaluate = trainer.validation.confusion

    def scripted(*arguments: Any) -> Any:
        matrix = evaluate(*arguments)
        matrix._counts[:] = 0
        right = round(1000 * next(scores))
        matrix._counts[range(7), range(7)] = right
        matrix._counts[range(7), [1, 2, 3, 4, 5, 6, 0]] = (1000 - right) // 2
        return matrix

    trainer.validation.confusion = scripted  # type: ignore[method-assign,assignment]
    trainer.run(quiet)
    assert trainer.iteration == 8
    assert any("stopped early" in line for line in said)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt").iteration == 4


def test_a_run_that_diverges_ends_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)

    def spoil_after(done: int, _total: int) -> None:
        if done == 5:
            trainer.optimizer.param_groups[1]["peak"] = 1e30

    with pytest.raises(TrainingError, match=r"last good state is .*last\.pt.*lower --learning-rate"):
        trainer.run(spoil_after)
    for name in ("last.pt", "best.pt"):
        checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / name)
        assert checkpoint.iteration in (2, 4, 6)
        assert all(v.isfinite().all() for v in (*checkpoint.student.values(), *checkpoint.ema.values()))


def test_a_step_that_breaks_off_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    backward = trainer.fabric.backward

    def no_memory(loss: torch.Tensor) -> None:
        if trainer.iteration >= 7:
            raise torch.OutOfMemoryError("no memory")
        backward(loss)

    monkeypatch.setattr(trainer.fabric, "backward", no_memory)
    with pytest.raises(TrainingError, match="too little memory"):
        trainer.run(quiet)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").iteration == 6  # the evaluation before


def test_a_damaged_patch_is_one_sentence_with_workers_too(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    for image in (data / "salak-1-2" / "images").iterdir():
        if not (data / "salak-1-2" / "masks" / image.name).exists():
            image.write_bytes(image.read_bytes()[:150])
    trainer = start_run(request(data, tmp_path / "run", data__workers=1), quiet, quiet)
    with pytest.raises(DataError, match=r"DJI_\d+_patch_000_000\.png is no readable picture") as error:
        trainer.run(quiet)
    assert "\n" not in str(error.value)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").iteration == 4  # before self-training


def test_what_changed_since_is_told_on_resume(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    said: list[str] = []
    resumed = resume_run(tmp_path / "run", None, None, "cpu", said.append, quiet)
    assert (resumed.iteration, resumed.validation.best_score) == (trainer.iteration, trainer.validation.best_score)
    assert resumed.validation.history == trainer.validation.history
    assert not any("have changed" in line for line in said)
    assert is_same_data(trainer.data_digest, {"patches": trainer.data_digest["patches"]})  # of one that knew less
    labelled = trainer.data.part(Role.LABELLED)[0]
    trainer.data.index.mask_path(labelled).unlink()
    resume_run(tmp_path / "run", None, None, "cpu", said.append, quiet)
    assert any("have changed" in line for line in said)
    shutil.copy(tmp_path / "run" / "checkpoints" / "last.pt", tmp_path / "elsewhere.pt")
    with pytest.raises(TrainingError, match="lies in no run folder"):
        resume_run(tmp_path / "elsewhere.pt", None, None, "cpu", quiet, quiet)


def test_a_step_does_what_the_paper_says(tmp_path: Path) -> None:
    """One step by hand: loss_sup + weight x loss_unsup, thresholds, class weights, rates, moving average."""
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run", selftraining__weight=1.5), quiet, quiet)
    trainer.iteration = 5
    labelled = next(iter(trainer.labelled_batches()))
    unlabelled = next(iter(trainer.unlabelled_batches()))
    assert unlabelled is not None
    record = trainer.step(labelled, unlabelled)
    assert float(record["loss"]) == pytest.approx(float(record["loss_sup"] + 1.5 * record["loss_unsup"]), rel=1e-5)
    factor = 0.5 * (1 + math.cos(math.pi * (5 - 2) / 10))
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx(
        [2.5e-4 * factor, 2.5e-3 * factor]
    )
    assert trainer.ema.updates == 1
    own, live = trainer.ema.model.state_dict(), trainer.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in live.items())  # the first update copies
    assert trainer.labeller.thresholds.values_K().tolist() == pytest.approx([0.0, 0.60, 0.65, 0.70, 0.65, 0.55, 0.60])
    assert 0 <= float(record["kept_share_foreground"]) <= float(record["kept_share"]) <= 1


def test_class_weights_on_pseudo_labels_are_a_setting(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    losses = {}
    for weighted in (True, False):
        wanted = request(data, tmp_path / str(weighted), selftraining__class_weighted=weighted, loss__dice=0.0)
        trainer = start_run(wanted, quiet, quiet)
        trainer.labeller.thresholds.values_K().zero_()
        weights_K = torch.arange(1.0, 8.0) ** 3  # the small data's own weights are nearly even
        trainer.objective = replace(trainer.objective, class_weights_K=weights_K)
        trainer.iteration = 5
        record = trainer.step(next(trainer.labelled_batches()), next(trainer.unlabelled_batches()))
        losses[weighted] = float(record["loss_unsup"])
    assert losses[True] != pytest.approx(losses[False], rel=1e-3)


def test_the_teacher_may_label(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    wanted = request(data, tmp_path / "run", selftraining__labeller="teacher", selftraining__class_weighted=False)
    trainer = start_run(wanted, quiet, quiet)
    trainer.run(quiet)
    assert trainer.iteration == 12
    assert trainer.ema.model.training is False


def test_colours_in_no_class_are_reported_with_the_file(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    mask = data / "salak-1-1" / "masks" / "DJI_0460_patch_000_000.png"
    rgb = SALAK.colors[np.asarray(Image.open(mask))]
    rgb[:4, :4] = (1, 2, 3)
    Image.fromarray(rgb).save(mask)
    said: list[str] = []
    start_run(request(data, tmp_path / "run"), said.append, quiet)
    told = next(line for line in said if "no class" in line and "ignored, not background" in line)
    assert "16 pixels" in told
    assert "DJI_0460_patch_000_000.png" in told


def test_a_mapping_that_fits_no_mask_is_told_before_a_split_is_written(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    for mask in data.rglob("masks/*.png"):
        Image.fromarray(SALAK.colors[np.asarray(Image.open(mask))][..., ::-1].copy() // 2 + 1).save(mask)
    with pytest.raises(DataError, match=r"masks do not fit the built-in salak class map; they hold the colours \("):
        start_run(request(data, tmp_path / "run"), quiet, quiet)
    assert not (data / "splits.csv").exists()


def test_masks_of_unlabelled_photos_stay_closed(tmp_path: Path) -> None:
    """With a given split, only masks of the labelled and validation parts are opened: the others may be damaged."""
    data = write_plantation(tmp_path / "patches")
    rows = [["folder", "photo", "role"]]
    for photo in index_patches(data).photos():
        number = int(photo.name[4:])
        role = (
            ["labelled", "labelled", "val", "unlabelled", "test"][number % 5] if photo.folder == "salak-1-1" else "gap"
        )
        rows.append([photo.folder, photo.name, role])
        if role in ("unlabelled", "test"):
            (data / photo.folder / "masks" / f"{photo.name}_patch_000_000.png").write_text("closed")
    with (data / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    trainer.run(quiet)
    assert trainer.iteration == 12


def test_the_default_recipe_and_settings_reach_the_trainer(tmp_path: Path) -> None:
    assert load_recipe("v3").schedule.iterations == 50_000
    data = write_plantation(tmp_path / "patches")
    trainer = start_run(request(data, tmp_path / "run", loss__class_weights="none"), quiet, quiet)
    assert trainer.objective.class_weights_K is None


def test_the_gsd_is_that_at_which_the_patches_were_cut(tmp_path: Path) -> None:
    """Without it a map is made at whatever resolution an orthomosaic has."""
    root = write_plantation(tmp_path / "patches")
    told: list[str] = []

    def gsd(name: str, given: float | None = None) -> float | None:
        request = replace(tiny_request(root, tmp_path / name, 4, 2, 2), gsd_m=given)
        return start_run(request, told.append, quiet).data.gsd_m

    assert gsd("unknown") is None
    assert any("nobody says how many metres a pixel the patches have (--gsd)" in line for line in told)
    Manifest(root, {"gsd_m": 0.03}).write()
    assert gsd("cut") == 0.03
    assert "0.03 m a pixel, as the patches were cut" in told
    assert gsd("given", 0.05) == 0.05


@pytest.mark.parametrize(
    ("steps", "start", "ramp", "words"),
    [
        (4, 4, 0, "begins after step 4 and the run ends at 4, so it learns from labels alone"),
        (4, 2, 7, "ends before self-training has its full weight, at 25% of it"),
        (4, 2, 1, None),
    ],
)
def test_a_run_too_short_for_its_self_training_says_so(
    plantation: Path, tmp_path: Path, steps: int, start: int, ramp: int, words: str | None
) -> None:
    told: list[str] = []
    start_run(tiny_request(plantation, tmp_path / "run", steps, start, 2, selftraining__ramp=ramp), told.append, quiet)
    cautions = [line for line in told if "self-training" in line]
    assert len(cautions) == (words is not None)
    assert words is None or words in cautions[0]


def test_a_run_is_not_judged_by_what_its_first_weights_had_learned_from(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    start_run(tiny_request(data, tmp_path / "old", 2, 1, 2), quiet, quiet).run(quiet)
    index = index_patches(data)
    split = read_split(data / "splits.csv", index)
    told: list[str] = []
    again = replace(tiny_request(data, tmp_path / "same", 2, 1, 2), init=tmp_path / "old" / "checkpoints" / "last.pt")
    start_run(again, told.append, quiet)
    assert not any("has learned from" in line for line in told)

    swap = {Role.LABELLED: Role.TEST, Role.TEST: Role.LABELLED, Role.UNLABELLED: Role.TEST}
    write_split(Split({photo: swap.get(role, role) for photo, role in split.roles.items()}), tmp_path / "other.csv")
    wanted = replace(again, splits=tmp_path / "other.csv", run_folder=tmp_path / "new")
    changes = [*wanted.changes, {"selftraining": {"enabled": False, "start": 0}}]
    trainer = start_run(replace(wanted, recipe="supervised", changes=changes), told.append, quiet)
    (line,) = (line for line in told if "has learned from" in line)
    assert "of the parts that judge this run, such as DJI" in line and "with --splits" in line
    trainer.run(quiet)
    subjects = open_subjects([tmp_path / "new" / "checkpoints" / "last.pt"], torch.device("cpu"))
    with pytest.raises(DataError, match="had learned from every test patch"):
        held_out_patches(subjects, index, "test")
    assert len(held_out_patches(subjects, index, "val")[1]) == len(split.patches(index, Role.VAL))
