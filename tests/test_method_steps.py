"""The parts of the methods in a real trainer: who labels, what is mixed, dropped and frozen, batches in parts."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_plantation
from training import quiet

from salakseg.network.perturb import ChannelDropout
from salakseg.train.loop import Trainer
from salakseg.train.recipe import load_recipe, recipe_names
from salakseg.train.start import Request, start_run


def trainer_of(folder: Path, name: str, precision: str = "32-true", **selftraining: Any) -> Trainer:
    data = write_plantation(folder / "patches")
    changes: dict[str, Any] = {
        "precision": precision,
        "network": {"encoder": "timm-tf_efficientnet_lite0", "encoder_weights": "none"},
        "data": {"crop": 32, "workers": 0, "gap": 0, "batch_size": 4},
        "augment": {"multi_scale": False, "zoom_min": 1.0, "zoom_max": 1.0},
        "schedule": {"iterations": 12, "warmup": 2},
        "loss": {"heads_frozen_from": 0},
        "selftraining": {"start": 0, "ramp": 0, "thresholds": 0.2, "background_threshold": 0.2, **selftraining},
    }
    return start_run(Request(name, [changes], data, folder, run_folder=folder / "run", device="cpu"), quiet, quiet)


def test_phase4_trains_on_any_number_of_classes(tmp_path: Path) -> None:
    data = write_plantation(tmp_path / "patches")
    mapping = data / "class_mapping.csv"
    mapping.write_text("class_name,class_color\n" + "".join(f"Class {n},{n} {2 * n} 9\n" for n in range(9)))
    changes = {
        "network": {"encoder": "timm-tf_efficientnet_lite0", "encoder_weights": "none"},
        "data": {"crop": 32, "workers": 0, "gap": 0, "batch_size": 2},
        "schedule": {"iterations": 2, "warmup": 1},
        "selftraining": {"start": 1, "ramp": 0},
    }
    wanted = Request("phase4", [changes], data, tmp_path, run_folder=tmp_path / "run", device="cpu")
    trainer = start_run(wanted, quiet, quiet)
    trainer.run(quiet)
    answer = trainer.answer(torch.zeros(1, 3, 32, 32))
    assert answer.mean_BKHW.shape == (1, 9, 32, 32)
    assert trainer.labeller.thresholds.values_K().shape == (9,)


def spoil(trainer: Trainer) -> None:
    """Makes the moving average say something else than the student."""
    with torch.no_grad():
        for parameter in trainer.ema.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)


@pytest.mark.parametrize("name", ["unimatch", "unimatch2", "phase4"])
def test_who_labels_the_weak_view(name: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, name, mix="none", paste=0.0, keep="fixed", disagreement=0.0)
    spoil(trainer)
    batch, unlabelled = next(trainer.labelled_batches()), next(trainer.unlabelled_batches())
    assert unlabelled is not None
    branches, record = trainer.branches(batch, unlabelled)
    weak = trainer.views.weak(unlabelled, 0)
    answers = {}
    for who, network in (("student", trainer.network), ("teacher", trainer.ema.model)):
        with torch.no_grad():
            answers[who] = network.eval()(weak.image_BCHW).heads_BNKHW.softmax(2).mean(1)
    expected = answers["student" if name == "unimatch" else "teacher"]
    strong = next(branch for branch in branches if branch.kind == "strong")
    assert strong.target is not None
    confidence, label = expected.max(dim=1)
    kept = (confidence >= 0.2) & (weak.label_BHW != 255)
    assert torch.equal(strong.target.label_BHW[:4], label.where(kept, 255))
    assert torch.equal(strong.target.label_BHW[4:], strong.target.label_BHW[:4])
    assert not torch.equal(strong.image_BCHW[:4], strong.image_BCHW[4:])
    assert float(record["kept_share"]) == pytest.approx(float(kept.sum() / (weak.label_BHW != 255).sum()))
    assert not torch.equal(answers["student"].argmax(1), answers["teacher"].argmax(1))


def test_mixed_views_take_pixels_labels_and_weights_from_the_same_place(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "phase4", keep="fixed", disagreement=3.0)
    batch, unlabelled = next(trainer.labelled_batches()), next(trainer.unlabelled_batches())
    assert unlabelled is not None
    trainer.views.recipe = load_recipe(
        "phase4",
        [
            {
                "strong": {"jitter_probability": 0.0, "grey": 0.0, "blur": 0.0, "cutmix_probability": 1.0},
                "selftraining": {"paste": 1.0, "strong_views": 1},
                "data": {"crop": 32},
            }
        ],
    )
    trainer.views.rare_K[:] = torch.tensor([False, True, False, False, True, False, False])
    labelled_branch = trainer.views.labelled(batch, 0)
    weak = trainer.views.weak(unlabelled, 0)
    target, _ = trainer._label(weak)
    strong = trainer.views.unlabelled(weak, target, labelled_branch, 0)[-1]
    assert strong.target is not None
    sources = [
        (weak.image_BCHW, target.label_BHW, target.weight_BHW),
        (labelled_branch.image_BCHW, labelled_branch.label_BHW, (labelled_branch.label_BHW != 255).float()),
    ]
    seen = [0, 0, 0]
    for b, h, w in np.ndindex(*strong.label_BHW.shape):
        pixel = strong.image_BCHW[b, :, h, w]
        found = [
            (kind, int(label[i, h, w]), float(weight[i, h, w]))
            for kind, (images, label, weight) in enumerate(sources)
            for i in range(len(images))
            if torch.allclose(images[i, :, h, w], pixel, atol=1e-4)
        ]
        own = (int(strong.target.label_BHW[b, h, w]), pytest.approx(float(strong.target.weight_BHW[b, h, w]), abs=1e-5))
        assert any(label == own[0] and weight == own[1] for _, label, weight in found)
        if len(found) == 1:
            seen[found[0][0]] += 1
            if found[0][0] == 1:
                assert own[0] in (1, 4)
    assert seen[0] > 100
    assert seen[1] > 100


def test_some_labelled_views_are_strong_and_the_others_stay(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "supervised", enabled=False)
    batch = next(trainer.labelled_batches())
    plain = trainer.views.labelled(batch, 0)
    augment = trainer.recipe.augment.model_copy(update={"strong": 0.5})
    always = trainer.recipe.strong.model_copy(update={"jitter_probability": 1.0})
    trainer.views.recipe = trainer.recipe.model_copy(update={"augment": augment, "strong": always})
    changed = [
        torch.equal(trainer.views.labelled(batch, 0).image_BCHW[b], plain.image_BCHW[b])
        for b in range(len(plain.image_BCHW))
    ]
    assert torch.equal(trainer.views.labelled(batch, 0).label_BHW, plain.label_BHW)
    assert sorted(set(changed)) == [False, True]


def test_frozen_heads_do_not_learn_but_the_trunk_does(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "diversenet-df")
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.iteration = 1
    trainer.step(next(trainer.labelled_batches()), next(trainer.unlabelled_batches()))
    frozen = trainer.views.frozen_heads(10, 1)
    assert len(frozen) == 5
    moved = {name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}
    for head in range(10):
        assert any(name.startswith(f"heads.{head}.") for name in moved) == (head not in frozen)
    assert any(name.startswith("encoder.") for name in moved)
    assert trainer.views.frozen_heads(10, 2) != frozen


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).selftraining.enabled])
def test_every_recipe_steps_in_mixed_precision(name: str, tmp_path: Path) -> None:
    """As on every GPU: what a network is given passes through a conversion that float32 leaves out."""
    trainer = trainer_of(tmp_path, name, "bf16-mixed")
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    labelled, unlabelled = next(trainer.batches())
    assert labelled is not None
    record = trainer.step(labelled, unlabelled)
    assert bool(record["loss"].isfinite())
    assert float(record["skipped_share"]) == 0
    assert "loss_unsup" in record
    assert not all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_channels_are_dropped_by_halves() -> None:
    torch.manual_seed(0)
    features = torch.ones(8, 64, 2, 2)
    one = ChannelDropout(2, 3).apply(features)
    assert (one[[0, 1, 5, 6, 7]] == 1).all()
    assert sorted(one[2:5].unique().tolist()) == [0.0, 2.0]
    pairs = ChannelDropout(0, 8, complementary=True).apply(features)
    first, second = pairs[:4], pairs[4:]
    torch.testing.assert_close(first + second, torch.full_like(first, 2.0))
    dropped = [bool((view == 0).any()) for view in first]
    assert 0 < sum(dropped) < 4


@pytest.mark.parametrize("name", ["supervised", "unimatch2", "phase4", "diversenet"])
def test_a_batch_in_parts_gives_the_same_gradient(name: str, tmp_path: Path) -> None:
    """With running statistics and without dropout; whole views, so that every part has as many pixels that count."""
    gradients = []
    for parts in (1, 2):
        trainer = trainer_of(tmp_path / str(parts), name, paste=0.0, complementary_dropout=False, enabled=True)
        trainer.accumulation.parts = parts
        network = trainer.network
        network.train = lambda _mode=True, n=network: torch.nn.Module.train(n, False)  # type: ignore[method-assign,misc]
        unlabelled = None if name == "supervised" else next(trainer.unlabelled_batches())
        branches, _ = trainer.branches(next(trainer.labelled_batches()), unlabelled)
        assert all(bool((b.label_BHW != 255).all() if b.target is None else b.target.valid_BHW.all()) for b in branches)
        record = trainer.accumulation.run(partial(trainer.learn_part, branches), trainer.optimizer)
        assert bool(record["loss"].isfinite())
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 100
    for whole, of_parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, of_parts, rtol=1e-3, atol=1e-5 * float(whole.abs().max()) + 1e-7)
