"""``salakseg report`` as users type it: comparisons, what is stored in a checkpoint, targets, and refusals."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import command
from PIL import Image

from salakseg.cli.reporting import base_recipe
from salakseg.evaluate.ensemble import evaluate
from salakseg.evaluate.subjects import Subject
from salakseg.evaluate.targets import load_target
from salakseg.network.checkpoint import load_checkpoint, save_checkpoint
from salakseg.network.model import Segmenter
from salakseg.network.variant import Variant
from salakseg.train.recipe import load_recipe


@pytest.fixture
def copies(tiny_run: Path, tmp_path: Path) -> list[Path]:
    """Best and last checkpoint of the tiny run, to be written to."""
    return [Path(shutil.copy(tiny_run / "checkpoints" / name, tmp_path / name)) for name in ("best.pt", "last.pt")]


@pytest.fixture
def too_sure(copies: list[Path], plantation: Path) -> Path:
    """A checkpoint that says the same everywhere: how often each class occurs, to the third power.

    What a few steps have taught the tiny run is left to chance; this one is surely too sure.
    """
    checkpoint = load_checkpoint(copies[0])
    masks = [np.asarray(Image.open(mask)) for mask in plantation.glob("*/masks/*.png")]
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=256)[: len(checkpoint.classes)]
    prior = torch.from_numpy(counts / counts.sum()).clamp(min=1e-3)
    for weights in (checkpoint.ema, checkpoint.student):
        for key in Segmenter(checkpoint.network, len(prior), load_weights=False).classifier_keys():
            weights[key] = (3 * prior.log()).float() if key.endswith("bias") else torch.zeros_like(weights[key])
    save_checkpoint(checkpoint, copies[0])
    return copies[0]


def record_of(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return record


def test_a_report_of_a_run(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = command("report", tiny_run, "--out", out, "--note", "Stand-in data.", "--history")
    text = " ".join(done.stdout.split())
    assert f"{tiny_run.name}/best.pt test split" in text
    for heading in ("Variants, by mIoU", "Pseudo-labels by the student", "Most confused classes", "Training"):
        assert heading in text
    assert "Stand-in data." in text and "leaking split, recorded, not re-run" in text and "V3.1" in text
    record = record_of(out)
    findings = record["findings"]
    assert len(findings["variants"]) == 14 and findings["runs"] == []
    assert sum(variant["is_best"] for variant in findings["variants"]) == 1
    assert record["variant"]["text"] == "EMA, mean of the logits"
    assert record["notes"] == ["Stand-in data."]
    interval = findings["resampling"]["intervals"]["miou_without_background"]
    assert interval == {"low": None, "high": None}  # of three photos there is none, and it says so
    assert "There are no intervals: 3 photos are too few to resample" in text
    assert {run["name"] for run in record["recorded"]["runs"]} >= {"V1", "V2", "V3", "V3.1"}
    assert "iterations" in record["training"]["paragraph"]
    with (out / "per_photo.csv").open(encoding="utf-8", newline="") as file:
        photos = list(csv.DictReader(file))
    assert len(photos) == findings["photos"] == len(findings["photo_figures"])
    with (out / "variants.csv").open(encoding="utf-8", newline="") as file:
        assert [row["heads"] for row in csv.DictReader(file)][:4] == ["mean", "prob", "vote", "diversenet"]
    assert not (out / "thresholds.toml").exists() and "spoils the test" in text  # the test part chooses nothing
    command("report", tiny_run, "--out", out, "--split", "val", "--precision", "0.1")
    assert load_recipe(str(out / "thresholds.toml")).evaluation == load_recipe("phase2").evaluation
    found = [base_recipe(name) for name in ("v3", "phase4", "supervised", None)]
    assert found == ["v3", "phase4", "phase2", "phase2"]


def test_the_report_goes_into_the_run(plantation: Path, tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    shutil.copytree(tiny_run, run)
    command("report", run, "--data-root", plantation)
    assert (run / "report" / "report.html").is_file()
    assert record_of(run / "report")["data"] == plantation.name
    was = (run / "report" / "report.json").read_bytes()
    command("report", run, "--data-root", plantation, "--split", "val", "--precision", "0.1")
    assert record_of(run / "report-val")["split"] == "val" and (run / "report-val" / "thresholds.toml").is_file()
    assert (run / "report" / "report.json").read_bytes() == was


def test_without_a_name_it_is_the_run_that_was_trained_last(tiny_run: Path, tmp_path: Path) -> None:
    for name, seconds in (("old", 1_000_000), ("new", 2_000_000)):
        run = tmp_path / "runs" / name
        shutil.copytree(tiny_run, run)
        os.utime(run / "metrics.jsonl", (seconds, seconds))
    # writing a checkpoint anew does not make an old run a new one
    done = command("report", tmp_path / "runs" / "old", "--write-default", cwd=tmp_path)
    done = command("report", cwd=tmp_path)
    assert "newest run" in done.stderr and str(Path("new", "checkpoints", "best.pt")) in done.stderr.replace("\n", "")
    assert (tmp_path / "runs" / "new" / "report" / "report.html").is_file()


def test_several_checkpoints_and_their_mean(copies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = command("report", *copies, "--ensemble", "--out", out, "--unit", "photo")
    assert "Runs side by side" in done.stdout
    runs = record_of(out)["findings"]["runs"]
    assert [run["name"] for run in runs] == ["best.pt", "last.pt", "mean of the 2"]
    assert runs[0]["difference"] == 0 and runs[0]["is_subject"]
    first, second = (run["metrics"]["miou_without_background"]["value"] for run in runs[:2])
    assert runs[1]["difference"] == pytest.approx(second - first)
    alone = command("report", copies[0], "--ensemble", "--out", out, status=1)
    assert "--ensemble averages several checkpoints" in alone.output


def test_flips_and_turns_double_the_table(copies: list[Path], tmp_path: Path) -> None:
    command("report", copies[0], "--tta", "--out", tmp_path / "report")
    variants = record_of(tmp_path / "report")["findings"]["variants"]
    assert len(variants) == 28
    assert sum(variant["variant"]["tta"] for variant in variants) == 14


def test_the_best_variant_on_validation_becomes_the_default(copies: list[Path], tmp_path: Path) -> None:
    path = copies[0]
    command("report", path, "--split", "val", "--out", tmp_path / "before")
    variants = record_of(tmp_path / "before")["findings"]["variants"]
    best = next(variant for variant in variants if variant["is_best"])
    done = command("report", path, "--write-default", "--out", tmp_path / "after")
    stored = load_checkpoint(path).variant
    assert (stored.weights, stored.heads) == (best["variant"]["weights"], best["variant"]["heads"])
    assert not best["variant"]["tta"]
    record = record_of(tmp_path / "after")
    assert record["variant"]["heads"] == stored.heads and record["split"] == "test"
    assert "val patches" in " ".join(done.stdout.split())
    again = command("report", path, "--write-default", "--out", tmp_path / "after")
    assert "nothing beats what the checkpoint prefers already" in " ".join(again.stdout.split())


def test_a_temperature_is_stored_and_calibrates(too_sure: Path, tmp_path: Path) -> None:
    path = too_sure
    command("report", path, "--split", "val", "--out", tmp_path / "before")
    command("report", path, "--split", "val", "--write-temperature", "--out", tmp_path / "after")
    stored = load_checkpoint(path).variant
    assert 2 < stored.temperature < 15 and stored.heads == "mean"
    before, after = (record_of(tmp_path / name) for name in ("before", "after"))
    assert after["variant"]["temperature"] == stored.temperature
    assert after["findings"]["calibration"]["ece"] < before["findings"]["calibration"]["ece"]
    assert after["confusion"] == before["confusion"]  # the same class is the most probable
    refused = command("report", path, "--write-temperature", "--heads", "vote", "--out", tmp_path / "x", status=1)
    assert "majority vote has no temperature" in refused.output and not (tmp_path / "x").exists()


def test_a_fitted_temperature_outlives_the_choice_of_a_default(too_sure: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(too_sure)
    for weights in (checkpoint.ema, checkpoint.student):
        key = next(key for key in weights if key.startswith("heads.0.") and len(weights[key]) == 7 and "bias" in key)
        weights[key] = -weights[key]  # the first head takes everything for the rarest class
    checkpoint.variant = Variant("ema", "mean", 3.0)
    save_checkpoint(checkpoint, too_sure)
    done = command("report", too_sure, "--write-default", "--heads", "1", "--out", tmp_path / "report")
    assert load_checkpoint(too_sure).variant == Variant("ema", "mean", 3.0)  # which beats the first head
    assert f"prefers already: {Variant('ema', 'mean', 3.0).text}." in " ".join(done.stdout.split())


def test_a_default_that_votes_is_stored_without_a_temperature(
    too_sure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vote(subject: Subject, *_: object) -> str:
        subject.variant = subject.checkpoint.choose("ema", "vote")
        return "Stored: a vote."

    monkeypatch.setattr("salakseg.evaluate.judge.choose_variant", vote)
    flags = ["--write-default", "--write-temperature"]
    done = command("report", too_sure, *flags, "--out", tmp_path / "report")
    assert "Stored: a vote. No temperature was fitted:" in " ".join(done.stdout.replace("- ", "").split())
    assert record_of(tmp_path / "report")["variant"]["heads"] == "vote"


def test_without_a_val_part_nothing_is_chosen(copies: list[Path], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(copies[0])
    checkpoint.split = [[folder, photo, "gap" if role == "val" else role] for folder, photo, role in checkpoint.split]
    save_checkpoint(checkpoint, copies[0])
    before = copies[0].read_bytes()
    done = command("report", copies[0], "--write-default", "--out", tmp_path / "report", status=1)
    assert "no labelled patch in the val part" in done.output and "--split test" in done.output
    assert copies[0].read_bytes() == before


def test_the_weights_and_heads_that_are_asked_for_are_reported(copies: list[Path], tmp_path: Path) -> None:
    command("report", copies[0], "--weights", "student", "--heads", "2", "--out", tmp_path / "report")
    record = record_of(tmp_path / "report")
    assert record["variant"]["text"] == "student, head 2"
    assert record["findings"]["variants"][0]["is_subject"]
    assert load_checkpoint(copies[0]).variant == Variant()


@pytest.mark.parametrize(("precision", "status"), [("0.5", 0), ("1.1", 2)])
def test_the_wanted_precision(copies: list[Path], tmp_path: Path, precision: str, status: int) -> None:
    command("report", copies[0], "--precision", precision, "--out", tmp_path / "report", status=status)
    if status == 0:
        assert record_of(tmp_path / "report")["findings"]["thresholds"]["wanted_precision"] == 0.5


TARGET = """
name = "Ours"
headline_miou = 0.5
headline_with_background = true
estimates = false
source = "a test"
[[classes]]
name = "{name}"
iou = 0.6
"""


def test_a_target_of_ones_own(copies: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(TARGET.format(name="jalan"), encoding="utf-8")
    command("report", copies[0], "--target", tmp_path / "mine.toml", "--out", tmp_path / "report")
    target = record_of(tmp_path / "report")["target"]
    assert target["expected"][3] == 0.6 and target["headline_measured"]["classes"] == 7
    (tmp_path / "other.toml").write_text(TARGET.format(name="Moon"), encoding="utf-8")
    before = record_of(tmp_path / "report")
    refused = command("report", copies[0], "--target", tmp_path / "other.toml", "--out", tmp_path / "report", status=1)
    assert "names none of the classes of" in refused.output and "Jalan" in refused.output
    assert record_of(tmp_path / "report") == before
    assert load_target("diversenet").matches(load_checkpoint(copies[0]).class_map)


def test_a_checkpoint_that_was_written_meanwhile_is_left_alone(
    too_sure: Path, copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that goes on saves a new best one while the report is still measuring the old."""
    path, newer = too_sure, copies[1].read_bytes()

    def and_meanwhile(*arguments: Any, **options: Any) -> Any:
        path.write_bytes(newer)
        return evaluate(*arguments, **options)

    monkeypatch.setattr("salakseg.evaluate.choose.evaluate", and_meanwhile)
    done = command("report", path, "--write-temperature", "--out", tmp_path / "report", status=1)
    assert "was written anew while it was evaluated" in done.output
    assert path.read_bytes() == newer


def test_a_default_that_was_asked_for_is_not_called_the_checkpoint_s(copies: list[Path], tmp_path: Path) -> None:
    path = copies[0]
    command("report", path, "--split", "val", "--out", tmp_path / "val")
    variants = record_of(tmp_path / "val")["findings"]["variants"]
    best = next(one["variant"] for one in variants if one["is_best"])
    flags = ["--weights", best["weights"], "--heads", best["heads"]]
    done = command("report", path, *flags, "--write-default", "--out", tmp_path / "report")
    stored = load_checkpoint(path).variant
    assert (stored.weights, stored.heads) == (best["weights"], best["heads"])
    said = "nothing beats what the checkpoint prefers" if stored == Variant() else "Stored as the checkpoint's default"
    assert said in " ".join(done.stdout.split())


def test_a_folder_that_cannot_be_written_is_told_before_the_work(copies: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = copies[0].read_bytes()
    done = command("report", copies[0], "--write-default", "--out", tmp_path / "file", status=1)
    assert "name another folder" in done.output and copies[0].read_bytes() == before


def test_what_a_killed_report_left_behind_is_swept_up(copies: list[Path], tmp_path: Path) -> None:
    (tmp_path / "report" / ".report-abcd").mkdir(parents=True)
    command("report", copies[0], "--out", tmp_path / "report")
    assert not list((tmp_path / "report").glob(".report-*"))


def test_masks_without_a_labelled_pixel_are_told(plantation: Path, copies: list[Path], tmp_path: Path) -> None:
    shutil.copytree(plantation, tmp_path / "patches")
    for mask in (tmp_path / "patches").glob("*/masks/*.png"):
        Image.fromarray(np.full((48, 48), 255, np.uint8)).save(mask)
    done = command("report", copies[0], "--data-root", tmp_path / "patches", "--out", tmp_path / "r", status=1)
    assert "no pixel in them is labelled" in done.output
    place = ["--data-root", tmp_path / "patches", "--out", tmp_path / "r"]
    done = command("report", copies[0], "--write-default", *place, status=1)
    assert "no labelled pixel in the val part, so no variant can be chosen" in " ".join(done.output.split())


def test_names_of_any_bytes_and_a_broken_log_cost_no_report(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(tiny_run, run)
    (run / "metrics.jsonl").write_text('{"kind": "val", "iteration": 4, "miou_without_background": 7}\n')
    command("report", run, "--out", tmp_path / "report", "--note", os.fsdecode(b"bad \xff"))
    record = record_of(tmp_path / "report")
    assert record["title"] == "caf?/best.pt" and record["notes"][0] == "bad ?"
    assert "How the training went is not known" in record["notes"][1] and record["training"] is None


@pytest.mark.parametrize(
    "damage",
    [
        {"recipe": None},
        {"recipe": {"data": 3}},
        {"split": [["a", "b"]]},
        {"history": ["x"]},
        {"evaluation": {"matrix": [[1]]}},
        {"iteration": "x"},
        {"mean": "abc"},
        {"variant": {"weights": "ema", "heads": "mean", "temperature": float("inf")}},
    ],
)
def test_a_malformed_checkpoint_is_one_sentence(copies: list[Path], tmp_path: Path, damage: dict[str, Any]) -> None:
    content = torch.load(copies[0], weights_only=True)
    torch.save(content | damage, copies[0])
    done = command("report", copies[0], "--out", tmp_path / "report", status=1)
    assert "is an incomplete checkpoint" in done.output


def test_without_its_patches_only_what_was_stored_can_be_told(
    copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(copies[0])
    checkpoint.data_root = str(tmp_path / "gone")
    save_checkpoint(checkpoint, copies[0])
    command("report", copies[0], "--out", tmp_path / "report", cwd=tmp_path)
    record = record_of(tmp_path / "report")
    assert record["stored"] and record["findings"] is None and record["training"] is not None
    monkeypatch.setenv("SALAKSEG_DATA_ROOT", str(tmp_path / "new"))  # is of new runs
    (tmp_path / "salakseg.toml").write_text('data_root = "gone"\n')  # neither where they were nor in the project
    command("report", copies[0], "--out", tmp_path / "report", cwd=tmp_path)
    assert record_of(tmp_path / "report") == record
    for flags in (["--tta"], ["--write-default"], ["--weights", "student"], ["--split", "test"]):
        refused = command("report", copies[0], *flags, "--out", tmp_path / "report", cwd=tmp_path, status=1)
        assert "name the patches with --data-root" in refused.output


def test_a_fall_after_the_best_checkpoint_is_seen_in_the_run_s_log(tiny_run: Path, tmp_path: Path) -> None:
    """The best checkpoint knows nothing of what came after it; the log of its run does."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    log = run / "metrics.jsonl"
    first = next(line for line in log.read_text().splitlines() if json.loads(line)["kind"] == "val")
    values = [(4, 0.30), (8, 0.55), (12, 0.40), (16, 0.35)]
    rows = [json.loads(first) | {"iteration": i, "miou_without_background": v} for i, v in values]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command("report", run, "--out", tmp_path / "report")
    training = record_of(tmp_path / "report")["training"]
    assert "peaked at 8" in training["paragraph"] and "fell 20.0 points" in training["paragraph"]
