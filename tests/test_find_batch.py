"""The largest batch that fits; memory that does not suffice is simulated, since a test needs no GPU."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, command, write_plantation
from hypothesis import given
from hypothesis import strategies as st

from salakseg.errors import TrainingError
from salakseg.train.find_batch import LEAST, MOST, fits, largest_batch, search
from salakseg.train.loop import Trainer
from salakseg.train.start import Request, start_run


@given(st.integers(0, 2 * MOST))
def test_the_search_finds_the_limit(limit: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    assert search(fits) == (0 if limit < LEAST else min(limit, MOST))
    assert len(tried) == len(set(tried)) < 20


def trainer_of(folder: Path) -> Trainer:
    changes: dict[str, Any] = {
        "network": {"encoder": "timm-tf_efficientnet_lite0", "encoder_weights": "none"},
        "data": {"crop": 32, "workers": 0, "gap": 0, "batch_size": 2},
        "augment": {"multi_scale": False},
        "schedule": {"iterations": 12, "warmup": 2},
        "selftraining": {"start": 4},
    }
    data = write_plantation(folder / "patches")
    request = Request("v3", [changes], data, folder, run_folder=folder / "run", device="cpu", dry_run=True)
    return start_run(request, lambda _: None, lambda *_: None)


def test_real_steps_tell_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tmp_path)
    learn_part, seen = Trainer.learn_part, []

    def limited(self: Trainer, branches: Any, number: int, parts: int) -> Any:
        seen.append(len(branches[0].image_BCHW))
        assert len(branches) == 2  # unlabelled patches take part
        if seen[-1] > 3:
            raise torch.OutOfMemoryError("no memory")
        return learn_part(self, branches, number, parts)

    monkeypatch.setattr(Trainer, "learn_part", limited)
    assert fits(trainer, 3)
    assert not fits(trainer, 4)
    assert seen == [3, 3, 3, 4]
    assert trainer.recipe.data.batch_size == 2
    assert not trainer.run_folder.path.exists()


def test_a_cpu_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="add --device cuda"):
        largest_batch(trainer_of(tmp_path), lambda *_: None)
    data = write_plantation(tmp_path / "more")
    done = command("train", "--recipe", "v3", "--find-batch", "--data-root", data, "--device", "cpu", *TINY, status=1)
    assert "--find-batch tries how much fits into a GPU" in " ".join(done.stderr.split())
    assert not (data / "splits.csv").exists()


def test_a_trial_is_gone_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each is measured with the weights of the one before on the device."""
    trainer = trainer_of(tmp_path)
    trials: list[weakref.ref[Trainer]] = []
    init = Trainer.__init__

    def remembered(self: Trainer, *arguments: Any, **named: Any) -> None:
        trials.append(weakref.ref(self))
        init(self, *arguments, **named)

    monkeypatch.setattr(Trainer, "__init__", remembered)
    gc.disable()
    try:
        assert fits(trainer, 2)
        assert trials[0]() is None
    finally:
        gc.enable()
