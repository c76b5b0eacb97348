"""A dry run: what it counts, which steps it takes, and that it leaves nothing behind."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY, command, write_plantation
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training import quiet

from salakseg.data.splits import Role
from salakseg.errors import DataError
from salakseg.train.branches import MULTI_SCALE_EVERY, Branch
from salakseg.train.estimate import STEPS, Estimate, count_data, estimate
from salakseg.train.loop import Trainer
from salakseg.train.start import Request, start_run


def dry_trainer(data: Path, **changes: dict[str, Any]) -> Trainer:
    table: dict[str, Any] = {
        "network": {"encoder": "timm-tf_efficientnet_lite0", "encoder_weights": "none"},
        "data": {"crop": 32, "workers": 0, "gap": 0, "batch_size": 2},
        "augment": {"scale_min": 32, "scale_max": 64},
        "schedule": {"iterations": 100, "warmup": 2},
        "selftraining": {"start": 33},
    }
    for section, values in changes.items():
        table[section] = {**table.get(section, {}), **values}
    return start_run(Request("v3", [table], data, data.parent / "runs", device="cpu", dry_run=True), quiet, quiet)


def taken_by(trainer: Trainer) -> tuple[list[int], list[list[Branch]], Estimate]:
    """The steps that an estimate takes, what the student saw in each, and the estimate."""
    steps: list[int] = []
    seen: list[list[Branch]] = []
    learn = trainer.learn

    def spy(branches: list[Branch]) -> Any:
        steps.append(trainer.iteration)
        seen.append(branches)
        return learn(branches)

    trainer.learn = spy  # type: ignore[method-assign]
    return steps, seen, estimate(trainer, quiet)


def test_three_real_steps_with_everything_in_them(plantation: Path) -> None:
    steps, seen, found = taken_by(dry_trainer(plantation))
    assert len(steps) == STEPS and steps[0] >= 33
    assert steps[-1] % MULTI_SCALE_EVERY == MULTI_SCALE_EVERY - 1
    assert all({branch.kind for branch in branches} == {"labelled", "weak"} for branches in seen)
    assert [branches[0].image_BCHW.shape[-1] for branches in seen] == [32, 32, 64]  # the largest there can be
    assert (found.iterations, found.evaluations, found.large_share) == (100, 1, 0.1)
    assert min(found.step_seconds, found.large_step_seconds, found.evaluation_seconds) > 0
    assert found.memory_bytes is not None and found.memory_bytes >= 0 and "process" in found.memory_of


@pytest.mark.parametrize(
    ("changes", "first", "unlabelled"),
    [
        ({"augment": {"multi_scale": False}}, 33, True),
        ({"selftraining": {"enabled": False}, "augment": {"multi_scale": False}}, 0, False),
        ({"schedule": {"iterations": 2, "warmup": 1}}, 0, False),  # shorter than three steps
        ({"schedule": {"iterations": 35, "warmup": 1}}, 32, True),  # only the last steps are of self-training
    ],
)
def test_other_recipes_are_measured_where_they_can(
    plantation: Path, changes: dict[str, Any], first: int, unlabelled: bool
) -> None:
    steps, seen, found = taken_by(dry_trainer(plantation, **changes))
    assert steps == list(range(first, min(first + STEPS, found.iterations)))
    assert (len(seen[-1]) > 1) == unlabelled


def test_damaged_patches_leave_no_list_behind(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    trainer = dry_trainer(data, augment={"multi_scale": False})
    for patch in trainer.data.part(Role.UNLABELLED):
        trainer.data.index.image_path(patch).write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="cannot be read"):
        estimate(trainer, quiet)
    assert sorted(tmp_path.rglob("*")) == before


def test_counts_are_those_of_the_masks(plantation: Path) -> None:
    trainer = dry_trainer(plantation)
    counts = count_data(trainer.data, quiet)
    assert [count.role for count in counts] == list(Role)
    for count in counts:
        patches = trainer.data.part(count.role)
        assert count.patches == len(patches)
        if count.role is Role.UNLABELLED or not patches:
            assert count.pixels_K is None
            continue
        masks = [np.asarray(Image.open(trainer.data.index.mask_path(patch))) for patch in patches]
        expected = sum(np.bincount(mask.ravel(), minlength=7) for mask in masks)
        np.testing.assert_array_equal(count.pixels_K, expected)


@given(
    st.integers(1, 10**6), st.integers(0, 1000), st.floats(1e-4, 10), st.floats(1e-4, 10), st.floats(0, 1),
    st.floats(0, 100),
)  # fmt: skip
def test_time_adds_up(iterations: int, evaluations: int, step: float, large: float, share: float, one: float) -> None:
    found = Estimate("cpu", iterations, evaluations, step, large, share, one, None, "")
    low, high = sorted((step, large))
    assert iterations * low * (1 - 1e-9) <= found.training_seconds <= iterations * high * (1 + 1e-9)
    assert found.total_seconds == pytest.approx(found.training_seconds + evaluations * one)
    assert replace(found, large_share=0.0).training_seconds == pytest.approx(iterations * step)


def test_the_command_shows_it_all_and_writes_nothing(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    before = sorted(tmp_path.rglob("*"))
    words = ["--data-root", data, "--checkpoint-dir", tmp_path / "run", "--num-steps", 40, "--device", "cpu", *TINY]
    done = command("train", "--phase", 2, "--dry-run", *words)
    assert sorted(tmp_path.rglob("*")) == before
    assert tomllib.loads(done.stdout)["schedule"] == {"iterations": 40, "warmup": 2}
    assert "# phase2" in done.stdout and "# given here" in done.stdout
    lines = done.stderr.splitlines()
    (heading,) = (line for line in lines if line.split()[:2] == ["labelled", "unlabelled"])
    patches = lines[lines.index(heading) + 1].split()
    assert patches[0] == "patches" and sum(map(int, patches[1:])) == 24
    assert any(line.startswith("Snake Fruit") and "%" in line for line in lines)
    assert any(line.startswith("time: about") and "for all 40 steps" in line for line in lines)
    assert any(line.startswith("memory: ") and "growth of the process's peak" in line for line in lines)
