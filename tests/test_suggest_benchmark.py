"""The benchmark of suggestions: only revealed masks are learned from, and the curve shows every round."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import suggest
from contest.protocol import CLASSES, prepare
from contest.records import read_json, write_json
from labelling.rounds import Setting, do_run
from labelling.squares import Pool, Square
from labelling.strategies import choose_squares
from PIL import Image

from salakseg.data.splits import Role


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A scene of five parts, 64 x 96, each of one class but for a square of another in part 3."""
    root = tmp_path_factory.mktemp("scenes")
    source = root / "source"
    for folder in ("images", "masks"):
        (source / "Tile 1" / folder).mkdir(parents=True)
    (source / CLASSES).write_text("class_name,class_color\nUnlabeled,155 155 155\nWater,226 169 41\nLand,132 41 246\n")
    for part in range(1, 6):
        label_HW = np.full((64, 96), 1, np.uint8)
        if part == 3:
            label_HW[32:, 64:] = 2
        colors = np.array([[155, 155, 155], [226, 169, 41], [132, 41, 246]], np.uint8)
        Image.fromarray(colors[label_HW]).save(source / "Tile 1" / "masks" / f"image_part_{part:03d}.png")
        Image.fromarray(colors[label_HW] // 2).save(source / "Tile 1" / "images" / f"image_part_{part:03d}.jpg")
    prepare(source, root / "data", 1)
    return Pool(root / "data", side=32, window=64)


def test_only_revealed_squares_are_labelled(pool: Pool) -> None:
    assert len(pool.squares) == 3 * 2 * 3
    start = pool.training([]).training
    assert start.class_pixels.tolist() == [0, 64 * 96, 0]
    one = pool.training([Square("Tile 1", "image_part_003", 1, 2)]).training
    assert one.class_pixels.tolist() == [0, 64 * 96, 32 * 32]
    (patch,) = (patch for patch in one.part(Role.LABELLED) if patch.photo == "image_part_003-1-2")
    assert one.index.pack is not None
    assert (one.index.pack.label(patch) == 2).all()
    assert not one.part(Role.UNLABELLED)


def test_no_strategy_takes_a_square_twice(pool: Pool, untrained_checkpoint: Path, tmp_path: Path) -> None:
    revealed = [square for square in pool.squares if square.image != "image_part_003"]
    for strategy in ("suggest", "entropy", "score", "diverse", "random"):
        chosen = choose_squares(strategy, pool, revealed, 4, untrained_checkpoint, 0, tmp_path / "cells", "cpu")
        assert len(set(chosen)) == 4
        assert {square.image for square in chosen} == {"image_part_003"}
    # of one strange square among plain ones that are known
    (first,) = choose_squares("diverse", pool, revealed, 1, untrained_checkpoint, 0, tmp_path / "cells", "cpu")
    assert (first.row, first.col) == (1, 2)


def test_finished_rounds_are_gone_on_from_without_their_weights(pool: Pool, tmp_path: Path) -> None:
    """The records are kept with the code, the weights are not."""
    tiny = {"network": {"encoder_weights": "none"}, "data": {"crop": 32, "batch_size": 2}}
    setting = Setting(iterations=2, side=32, count=1, rounds=1, changes=(tiny,))
    said: list[str] = []
    do_run("random", 0, pool, setting, tmp_path, "cpu", said.append)
    assert [line.split(":")[0] for line in said] == ["start-s0-r0", "random-s0-r1"]
    shutil.rmtree(tmp_path / "checkpoints")
    said.clear()
    do_run("random", 0, pool, setting, tmp_path, "cpu", said.append)
    assert said == []
    do_run("diverse", 0, pool, setting, tmp_path, "cpu", said.append)  # needs the first network, to choose by it
    assert [line.split(":")[0] for line in said] == ["start-s0-r0", "diverse-s0-r1"]
    assert set(read_json(tmp_path / "runs" / "start-s0-r0.json")["next"]) == {"random", "diverse"}


def test_the_curve_holds_every_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, squares, score in (("start-s0-r0", 0, 0.2), ("random-s0-r1", 1, 0.3), ("suggest-s0-r1", 1, 0.4)):
        record = {
            "setting": {"iterations": 300},
            "squares": [["a", "b", 0, 0]] * squares,
            "labelled_pixels": 100 + 10 * squares,
            "miou_without_background": score,
            "iou": [None, score],
            "classes": ["Unlabeled", "Water"],
        }
        write_json(tmp_path / "runs" / f"{name}.json", record)
    assert suggest.main(["--report", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "suggest  round 1:         110 px, mIoU 0.4000 (1 seed)" in told
    assert "suggest over random, mean of 1 rounds: +10.0 points by seed" in told
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert suggest.main(["--report", "--out", str(tmp_path / "empty")]) == 1
    write_json(tmp_path / "runs" / "random-s0-r2.json", record | {"setting": {"iterations": 600}})
    assert suggest.main(["--report", "--out", str(tmp_path)]) == 1
    assert "rounds of several settings" in capsys.readouterr().err
