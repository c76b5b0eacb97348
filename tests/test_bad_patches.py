"""Patches that cannot be read: skipped, counted, listed, and too many of them an error."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import command, write_patch
from PIL import Image
from training import quiet, tiny_request

from salakseg.classes import SALAK
from salakseg.data.pack import Pack
from salakseg.data.packing import pack_patches
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.data.splits import Role
from salakseg.errors import DataError
from salakseg.network.checkpoint import load_checkpoint
from salakseg.train.data import PatchStream
from salakseg.train.loop import Trainer
from salakseg.train.start import Request, resume_run, start_run

SIDE = 32
PARTS = {"a": "labelled", "b": "val", "c": "unlabelled"}


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 tiny patches: 400 labelled, 100 for validation, 500 unlabelled; not to be changed."""
    root = tmp_path_factory.mktemp("thousand") / "patches"
    generator = np.random.default_rng(0)
    rows = [["folder", "photo", "role"]]
    for folder, count in (("a", 400), ("b", 100), ("c", 500)):
        for number in range(count):
            label_HW = generator.integers(0, 7, (4, 4)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1).astype(np.uint8)
            write_patch(root, folder, f"DJI_{number:04d}_patch_000_000.png", label_HW, folder != "c")
            rows.append([folder, f"DJI_{number:04d}", PARTS[folder]])
    with (root / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def damage(root: Path, folder: str, number: int, kind: str = "images") -> str:
    """Cuts a file off behind its header."""
    path = root / folder / kind / f"DJI_{number:04d}_patch_000_000.png"
    path.write_bytes(path.read_bytes()[: 60 + number % 40])
    return f"{folder}/{path.name}"


def request(data: Path, run: Path, steps: int = 8, **settings: Any) -> Request:
    own = {"data__crop": SIDE, "data__workers": 1, "data__batch_size": 64, "health__sample": 8}
    return tiny_request(data, run, steps, start=0, every=4, **own | settings)


def listed(run: Path) -> list[dict[str, str]]:
    with (run / "skipped.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_five_of_a_thousand_are_skipped_counted_and_listed(thousand: Path, tmp_path: Path) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    bad = [damage(data, "a", 3), damage(data, "a", 17), damage(data, "a", 200, "masks")]
    bad += [damage(data, "b", 5), damage(data, "c", 77)]
    said: list[str] = []
    trainer = start_run(request(data, tmp_path / "run"), said.append, quiet)
    assert any("skipped a/DJI_0200" in line and "no readable picture" in line for line in said)  # the survey's
    trainer.run(quiet)
    rows = listed(tmp_path / "run")
    assert sorted(f"{row['folder']}/{row['image']}" for row in rows) == sorted(bad)
    assert {row["folder"]: row["part"] for row in rows} == PARTS
    assert all("no readable picture" in row["reason"] and str(data) not in row["reason"] for row in rows)
    assert any(line.startswith("attention: 5 patches could not be read and were skipped") for line in said)
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last.evaluation["patches"] == 99
    assert np.sum(last.evaluation["matrix"]) == 99 * SIDE * SIDE


@pytest.mark.parametrize("workers", [0, 1])
def test_fifteen_of_a_thousand_stop_the_run_with_the_list(thousand: Path, tmp_path: Path, workers: int) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    bad = {damage(data, "a", number) for number in range(0, 300, 30)} | {damage(data, "c", n) for n in range(5)}
    trainer = start_run(request(data, tmp_path / "run", steps=60, data__workers=workers), quiet, quiet)

    def no_learning(*batch: Any) -> Any:
        trainer.iteration += 1
        return {"loss": torch.zeros(())}

    trainer.step = no_learning  # type: ignore[method-assign,assignment]
    trainer._evaluate = quiet  # type: ignore[method-assign,assignment]
    with pytest.raises(DataError, match=r"more than 1% of the 1,000 patches: .*skipped\.csv; copy them anew") as error:
        trainer.run(quiet)
    assert "\n" not in str(error.value)
    found = {f"{row['folder']}/{row['image']}" for row in listed(tmp_path / "run")}
    assert len(found) >= 11 and found <= bad
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").iteration == trainer.iteration


def test_many_damaged_masks_stop_before_anything_is_written(thousand: Path, tmp_path: Path) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    for number in range(11):
        damage(data, "a", number, "masks")
    said: list[str] = []
    with pytest.raises(DataError, match="11 patches cannot be read, more than 1% of the 1,000 patches"):
        start_run(request(data, tmp_path / "run"), said.append, quiet)
    assert sum("skipped a/DJI_" in line for line in said) == 11
    assert not (tmp_path / "run").exists()


def test_a_part_that_melts_away_stops_the_run(thousand: Path, tmp_path: Path) -> None:
    """Ten unreadable patches are not 1 % of 1,000, but too many for a part of 80."""
    data = shutil.copytree(thousand, tmp_path / "patches")
    rows = (data / "splits.csv").read_text().splitlines()
    kept = [row for row in rows if not row.startswith("b,")] + [
        f"b,DJI_{number:04d},{'val' if number < 80 else 'unlabelled'}" for number in range(100)
    ]
    (data / "splits.csv").write_text("\n".join(kept) + "\n")
    for number in range(9):
        damage(data, "b", number)
    trainer = start_run(request(data, tmp_path / "run"), quiet, quiet)
    with pytest.raises(DataError, match="more than 10% of the 80 val ones"):
        trainer.run(quiet)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.full((SIDE, SIDE), 99, np.uint8), "holds the index 99"),
        (np.zeros((SIDE // 2, SIDE), np.uint8), "make both the same size"),
    ],
)
def test_wrong_content_stays_an_error(thousand: Path, tmp_path: Path, wrong: Any, words: str) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    Image.fromarray(wrong).save(data / "a" / "masks" / "DJI_0007_patch_000_000.png")
    with pytest.raises(DataError, match=words):
        start_run(request(data, tmp_path / "run"), quiet, quiet)


def stream_of(index: PatchIndex) -> PatchStream:
    return PatchStream(index, [patch for patch in index.patches if patch.folder == "a"], SALAK, 16, seed=5, part="a")


def test_other_positions_see_what_they_would_have_seen(thousand: Path, tmp_path: Path) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    bad = {damage(data, "a", number) for number in (1, 2, 250)}
    whole, broken = stream_of(index_patches(thousand)), stream_of(index_patches(data))
    replaced = []
    for position in range(800):  # two rounds
        patch = whole.patches[whole.order.draw(position, 0)]
        one, other = whole[position], broken[position]
        assert isinstance(one, tuple) and isinstance(other, tuple)
        if patch.name in bad:
            replaced.append(position)
        else:
            assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    assert len(replaced) == 6
    again = stream_of(index_patches(data))
    for position in reversed(replaced):  # whatever was drawn before
        first, second = broken[position], again[position]
        assert isinstance(first, tuple) and isinstance(second, tuple)
        assert np.array_equal(first[0], second[0])


def test_a_resumed_run_skips_the_same(thousand: Path, tmp_path: Path) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    for number in (0, 40, 80):
        damage(data, "a", number)
    damage(data, "b", 9)

    def finished(trainer: Trainer, stop_after: int | None = None) -> Any:
        def stop(done: int, _total: int) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        try:
            trainer.run(stop)
        except KeyboardInterrupt:
            return None
        return load_checkpoint(trainer.run_folder.last)

    wanted = {"data__batch_size": 50, "data__workers": 0, "evaluation__every": 4}  # the labelled part once
    unbroken = finished(start_run(request(data, tmp_path / "one", **wanted), quiet, quiet))
    finished(start_run(request(data, tmp_path / "two", **wanted), quiet, quiet), stop_after=5)
    said: list[str] = []
    resumed = finished(resume_run(tmp_path / "two", None, None, "cpu", said.append, quiet))
    assert all(torch.equal(unbroken.student[name], value) for name, value in resumed.student.items())
    assert resumed.history == unbroken.history and resumed.evaluation == unbroken.evaluation
    key = [sorted(row.items()) for row in listed(tmp_path / "one")]
    assert sorted(key) == sorted(sorted(row.items()) for row in listed(tmp_path / "two"))
    assert len(key) == 4


def test_a_pack_keeps_the_place_of_what_cannot_be_read(thousand: Path, tmp_path: Path) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    bad = {damage(data, "a", 3), damage(data, "c", 4)}
    told = command("pack", data).output
    assert "2 could not be read and are left out, such as a/DJI_0003" in " ".join(told.split())
    pack = Pack(data / "pack")
    assert {patch.name for patch in pack.damaged} == bad
    trainer = start_run(request(data, tmp_path / "run", data__workers=0), quiet, quiet)
    assert trainer.data.index.pack is not None
    assert [len(batch.image_BCHW) for batches in trainer.batches() for batch in batches if batch] == [64] * 16
    assert {f"{row['folder']}/{row['image']}" for row in listed(tmp_path / "run")} == bad
    for number in range(10):
        damage(data, "a", number)
    with pytest.raises(DataError, match="More than 1% of the 1,000 patches"):
        pack_patches(index_patches(data), tmp_path / "other", SALAK)


def test_nothing_readable_at_all_is_one_sentence(thousand: Path, tmp_path: Path) -> None:
    data = shutil.copytree(thousand, tmp_path / "patches")
    for number in range(500):
        damage(data, "c", number)
    trainer = start_run(request(data, tmp_path / "run", data__workers=0), quiet, quiet)
    with pytest.raises(DataError, match="cannot be read"):
        trainer.run(quiet)
    index = index_patches(data)
    patches = trainer.data.part(Role.UNLABELLED)
    error = PatchStream(index, patches, None, 16, seed=0, part="unlabelled")[0]
    assert isinstance(error, DataError) and "so are 99 others in a row" in str(error)
