"""Losses, the moving average and pseudo-labels."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from salakseg.network.heads import Logits
from salakseg.train.losses import balanced_weights, dice_loss, segmentation_loss
from salakseg.train.pseudo import Labeller, Target
from salakseg.train.settings import LossConfig
from salakseg.train.settings_selftraining import SelfTrainingConfig
from salakseg.train.teacher import Ema

CONFIG = LossConfig()


def example(seed: int, ignored: float = 0.3, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=generator)
    label = torch.randint(0, classes, (2, 5, 6), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = 255
    return logits, label


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_cross_entropy_is_torchs(seed: int, weighted: bool) -> None:
    logits, label = example(seed)
    weights = torch.rand(7) + 0.1 if weighted else None
    expected = functional.cross_entropy(logits, label, weight=weights, ignore_index=255)
    torch.testing.assert_close(segmentation_loss(logits, label, CONFIG, weights).ce, expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_focal_and_dice_by_hand(seed: int) -> None:
    logits, label = example(seed)
    prob, truth = logits.softmax(1).numpy(), label.numpy()
    focal, dice = [], []
    for b in range(2):
        valid = truth[b] != 255
        for k in range(7):
            p, t = prob[b, k][valid], truth[b][valid] == k
            dice.append(1 - (2 * p[t].sum() + 1) / (p.sum() + t.sum() + 1))
            focal.extend(0.25 * (1 - p[t]) ** 2 * -np.log(p[t]))
    parts = segmentation_loss(logits, label, CONFIG, None)
    assert parts.ce is not None and parts.dice is not None and parts.focal is not None
    assert float(parts.dice) == pytest.approx(np.mean(dice), rel=1e-4)
    assert float(parts.focal) == pytest.approx(np.mean(focal), rel=1e-4)
    assert float(parts.total) == pytest.approx(
        0.4 * float(parts.ce) + 0.4 * np.mean(dice) + 0.2 * np.mean(focal), rel=1e-4
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_pixels_that_are_quite_sure_spoil_no_gradient(gamma: float) -> None:
    logits = torch.tensor([[40.0, -40.0], [0.3, -0.2]]).T[None, :, None].requires_grad_()  # the first: loss exactly 0
    label = torch.tensor([[[0, 1]]])
    config = LossConfig(ce=0.0, dice=0.0, focal=1.0, focal_gamma=gamma)
    loss = segmentation_loss(logits, label, config, None).focal
    assert loss is not None
    loss.backward()
    nll = -torch.tensor([0.3, -0.2]).log_softmax(0)[1]
    assert float(loss.detach()) == pytest.approx(float(0.25 * (1 - torch.exp(-nll)) ** gamma * nll) / 2)
    assert logits.grad is not None and bool(logits.grad.isfinite().all()) and float(logits.grad.abs().sum()) > 0


def test_a_term_without_weight_is_not_there() -> None:
    logits, label = example(0)
    for term in ("ce", "dice", "focal"):
        weights = {name: float(name == term) for name in ("ce", "dice", "focal")}
        alone = segmentation_loss(logits, label, LossConfig(**weights), None)  # type: ignore[arg-type]
        assert {name for name in weights if getattr(alone, name) is not None} == {term}
        assert torch.equal(alone.total, getattr(segmentation_loss(logits, label, CONFIG, None), term))


def test_ignored_pixels_have_no_gradient() -> None:
    logits, label = example(0)
    logits.requires_grad_()
    segmentation_loss(logits, label, CONFIG, torch.rand(7)).total.backward()
    assert logits.grad is not None
    per_pixel = logits.grad.abs().sum(dim=1)
    assert (per_pixel[label == 255] == 0).all()
    assert (per_pixel[label != 255] > 0).all()


def test_a_batch_without_a_valid_pixel_teaches_nothing() -> None:
    logits, label = example(0)
    logits.requires_grad_()
    parts = segmentation_loss(logits, torch.full_like(label, 255), CONFIG, torch.rand(7))
    parts.total.backward()
    assert float(parts.total.detach()) == 0.0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_a_perfect_prediction_costs_nothing() -> None:
    _, label = example(0, ignored=0.0)
    logits = 50.0 * functional.one_hot(label, 7).permute(0, 3, 1, 2).float()
    parts = segmentation_loss(logits, label, CONFIG, None)
    assert parts.ce is not None
    assert float(parts.ce) < 1e-6
    assert float(dice_loss(logits, label)) < 1e-6


def test_balanced_weights_are_those_of_the_field_data() -> None:
    shares = torch.tensor([29.45, 0.22, 13.83, 2.87, 4.69, 40.54, 8.40])
    weights = balanced_weights((shares * 10_000).long())
    assert float(weights[1]) == pytest.approx(65, rel=0.02)
    assert float(weights[5]) == pytest.approx(0.35, rel=0.02)
    assert float(weights[1] / weights[5]) == pytest.approx(187, rel=0.03)
    assert balanced_weights(torch.tensor([10, 0, 10])).tolist() == pytest.approx([2 / 3, 1.0, 2 / 3])


def test_the_moving_average_takes_parameters_and_buffers() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ema = Ema(student, decay=0.9)
    seen = []
    for _ in range(30):
        student(torch.randn(2, 3, 8, 8) * 3 + 5)
        with torch.no_grad():
            weight = cast(Tensor, student[0].weight)
            weight.add_(torch.randn_like(weight))
        ema.update(student)
        seen.append({name: value.clone() for name, value in student.state_dict().items()})
    own = ema.model.state_dict()
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        average = seen[0][name]
        for n, state in enumerate(seen[1:], start=1):
            decay = min(0.9, 1 - 1 / (n + 1))
            average = decay * average + (1 - decay) * state[name]
        torch.testing.assert_close(own[name], average)
        assert not torch.equal(own[name], seen[-1][name])
    assert int(own["1.num_batches_tracked"]) == 30


def test_the_moving_average_forgets_the_initial_weights() -> None:
    student = nn.Linear(1, 1)
    ema = Ema(student, decay=0.9995)
    with torch.no_grad():
        student.weight.fill_(1000.0)
    ema.update(student)
    assert float(ema.model.weight) == 1000.0  # type: ignore[arg-type]
    with torch.no_grad():
        student.weight.fill_(0.0)
    ema.update(student)
    assert float(ema.model.weight) == pytest.approx(500.0)  # type: ignore[arg-type]


def pseudo_labels(logits: Logits, thresholds_K: Tensor, valid_BHW: Tensor) -> tuple[Target, dict[str, Tensor]]:
    """By fixed thresholds, the mean of the heads' probabilities."""
    background, *others = thresholds_K.tolist()
    config = SelfTrainingConfig(background_threshold=background, thresholds=tuple(others))
    return Labeller(config, len(thresholds_K), torch.device("cpu")).label(logits, valid_BHW)


def logits_of(prob_K: list[list[float]]) -> Logits:
    """One head, a row of pixels, one for each list of class probabilities."""
    prob = torch.tensor(prob_K).T.reshape(1, 1, len(prob_K[0]), 1, -1)
    return Logits(prob.log(), prob.log()[:, 0])


def test_a_pixel_is_kept_by_the_threshold_of_its_class() -> None:
    logits = logits_of([[0.5, 0.3, 0.2], [0.2, 0.62, 0.18], [0.2, 0.58, 0.22], [0.1, 0.2, 0.7], [0.05, 0.05, 0.9]])
    thresholds = torch.tensor([0.0, 0.6, 0.8])
    target, record = pseudo_labels(logits, thresholds, torch.ones(1, 1, 5, dtype=torch.bool))
    assert target.label_BHW.tolist() == [[[0, 1, 255, 255, 2]]]
    assert target.weight_BHW.tolist() == [[[1, 1, 0, 0, 1]]]
    assert float(record["kept_share"]) == pytest.approx(3 / 5)
    assert float(record["kept_share_foreground"]) == pytest.approx(2 / 5)
    assert record["pseudo_pixels"].tolist() == [1, 2, 2]
    assert record["kept_pixels"].tolist() == [1, 1, 1]


def test_pixels_from_outside_are_never_labelled() -> None:
    logits = logits_of([[1.0, 1e-9], [1.0, 1e-9]])
    target, record = pseudo_labels(logits, torch.zeros(2), torch.tensor([[[True, False]]]))
    assert target.label_BHW.tolist() == [[[0, 255]]]
    assert float(record["kept_share"]) == 1.0


def test_the_mean_of_the_heads_probabilities_decides() -> None:
    """Where one head is very sure and two are moderately against it, means of logits and of probabilities disagree."""
    prob = torch.tensor([[0.999, 0.001], [0.3, 0.7], [0.3, 0.7]]).log()
    logits = Logits(prob.reshape(1, 3, 2, 1, 1), prob.mean(dim=0).reshape(1, 2, 1, 1))
    confidence = (0.999 + 0.3 + 0.3) / 3
    kept, _ = pseudo_labels(logits, torch.tensor([confidence - 1e-3, 0.0]), torch.ones(1, 1, 1, dtype=torch.bool))
    dropped, _ = pseudo_labels(logits, torch.tensor([confidence + 1e-3, 0.0]), torch.ones(1, 1, 1, dtype=torch.bool))
    assert kept.label_BHW.item() == 0
    assert dropped.label_BHW.item() == 255
    assert not math.isclose(confidence, float(logits.mean_BKHW.softmax(1)[0, 0]), abs_tol=0.05)


def test_a_threshold_of_one_keeps_nothing_however_sure() -> None:
    """In float32 the confidence of a sure network is exactly 1."""
    values = torch.full((1, 1, 3, 2, 2), -40.0)
    values[:, :, 1] = 40.0
    logits = Logits(values, values.mean(dim=1))
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    assert float(logits.heads_BNKHW.softmax(dim=2).max()) == 1.0
    assert bool((pseudo_labels(logits, torch.tensor([0.0, 1.0, 0.0]), valid)[0].label_BHW == 255).all())
    assert bool((pseudo_labels(logits, torch.tensor([0.0, 0.99, 0.0]), valid)[0].label_BHW == 1).all())
