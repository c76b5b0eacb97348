"""Thresholds that follow what the labeller is sure of, by hand."""

import math
from typing import Any

import pytest
import torch

from salakseg.network.heads import Logits
from salakseg.train.pseudo import Labeller
from salakseg.train.recipe import load_recipe
from salakseg.train.settings_selftraining import SelfTrainingConfig
from salakseg.train.thresholds import AdaptiveThresholds

CPU = torch.device("cpu")


def config_of(**changes: Any) -> SelfTrainingConfig:
    """Phase 4's section, in which the heads' disagreement weighs nothing."""
    return load_recipe("phase4", [{"selftraining": {**changes, "disagreement": 0.0}}]).selftraining


def confident(values_K: list[list[float]]) -> Logits:
    """One head; a row of pixels, one for each list of class probabilities."""
    prob = torch.tensor(values_K).T.reshape(1, 1, len(values_K[0]), 1, -1)
    return Logits(prob.log(), prob.log()[:, 0])


def test_adaptive_thresholds_follow_each_class_between_floor_and_ceiling() -> None:
    labeller = Labeller(
        config_of(keep="adaptive", adaptive_momentum=0.5, adaptive_floor=0.6, adaptive_ceiling=0.9), 3, CPU
    )
    thresholds = labeller.thresholds
    assert isinstance(thresholds, AdaptiveThresholds)
    valid = torch.ones(1, 1, 4, dtype=torch.bool)
    first = confident([[0.98, 0.01, 0.01], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.48, 0.26, 0.26]])
    target, _ = labeller.label(first, valid)
    # class 0: mean (0.98 + 0.48) / 2 = 0.73; class 1: mean 0.75; a first batch counts in full (bias correction)
    assert target.label_BHW.tolist() == [[[0, 255, 1, 255]]]
    second = confident([[0.995, 0.003, 0.002]] * 3 + [[0.3, 0.4, 0.3]])
    target, _ = labeller.label(second, valid)
    mean_0 = (0.25 * 0.73 + 0.5 * 0.995) / 0.75
    assert float(thresholds.mean_K[0] / thresholds.seen_K[0]) == pytest.approx(mean_0, rel=1e-5)
    mean_1 = (0.25 * 0.75 + 0.5 * 0.4) / 0.75  # 0.517, below the floor
    assert float(thresholds.mean_K[1] / thresholds.seen_K[1]) == pytest.approx(mean_1, rel=1e-5)
    assert target.label_BHW.tolist() == [[[0, 0, 0, 255]]]
    third, _ = labeller.label(
        confident([[0.2, 0.59, 0.21], [0.19, 0.61, 0.2], [0.91, 0.05, 0.04], [0.1, 0.1, 0.8]]), valid
    )
    assert third.label_BHW.tolist()[0][0][:2] == [255, 1]
    other = Labeller(labeller.config, 3, CPU)
    other.load_state(labeller.state())
    assert torch.equal(other.thresholds.values_K(), thresholds.values_K())


def test_of_every_class_the_same_share_is_kept() -> None:
    config = config_of(keep="share", kept_share=0.5, adaptive_momentum=0.5)
    labeller = Labeller(config, 3, CPU)
    sure = [[0.992, 0.004, 0.004], [0.972, 0.018, 0.01], [0.952, 0.028, 0.02], [0.932, 0.038, 0.03]]
    unsure = [[0.1, 0.602, 0.298], [0.15, 0.552, 0.298], [0.2, 0.502, 0.298], [0.26, 0.452, 0.288]]
    outside = [0.1, 0.1, 0.8]
    valid = torch.tensor([[[True] * 8 + [False]]])
    target, counts = labeller.label(confident([*sure, *unsure, outside]), valid)
    # half of each class, although the surest pixel of class 1 is less sure than any of class 0
    assert target.label_BHW.tolist() == [[[0, 0, 255, 255, 1, 1, 255, 255, 255]]]
    assert counts["kept_pixels"].tolist() == [2, 2, 0]
    # Lower edges of the bins of 0.972 and 0.552, whose doubts are e^-3.57 and e^-0.803, in bins of a twentieth
    edges = [1 - math.exp(-3.55), 1 - math.exp(-0.8), 1.0]
    assert labeller.thresholds.values_K().tolist() == pytest.approx(edges, abs=1e-6)
    assert float(labeller.thresholds.values_K().max()) < 1
    # An answer less sure of class 0: the four pixels before count a quarter each now, these four a half, together 3.
    # The four before and the first of these are the surest half
    less = [[0.792, 0.108, 0.1], [0.772, 0.128, 0.1], [0.752, 0.148, 0.1], [0.732, 0.168, 0.1]]
    target, _ = labeller.label(confident([*less, *unsure, outside]), valid)
    assert target.label_BHW.tolist()[0][0][:4] == [0, 255, 255, 255]
    other = Labeller(config, 3, CPU)
    other.load_state(labeller.state())
    assert torch.equal(other.thresholds.values_K(), labeller.thresholds.values_K())


def test_half_is_half_of_a_class_that_is_all_but_certain() -> None:
    config = config_of(keep="share", kept_share=0.5)
    labeller = Labeller(config, 3, CPU)
    doubts = [10 ** -(2.5 + 0.25 * n) for n in range(12)]  # from 0.003 to 0.000006
    pixels = confident([[1 - doubt, doubt / 2, doubt / 2] for doubt in doubts])
    target, _ = labeller.label(pixels, torch.ones(1, 1, 12, dtype=torch.bool))
    assert target.label_BHW.tolist() == [[[255] * 6 + [0] * 6]]


@pytest.mark.parametrize("keep", ["adaptive", "share"])
def test_a_broken_answer_teaches_the_thresholds_nothing(keep: str) -> None:
    config = config_of(keep=keep, kept_share=0.5)
    labeller, other = Labeller(config, 3, CPU), Labeller(config, 3, CPU)
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    good = [[0.9, 0.05, 0.05], [0.7, 0.2, 0.1]]
    broken = confident([*good, [math.nan] * 3])
    kept, _ = labeller.label(broken, valid)
    whole, _ = other.label(confident([*good, [0.1, 0.1, 0.8]]), valid)
    assert kept.label_BHW[..., :2].tolist() == whole.label_BHW[..., :2].tolist()
    assert kept.label_BHW[..., 2] == 255
    assert labeller.thresholds.values_K()[0] == other.thresholds.values_K()[0]
    assert labeller.thresholds.values_K().isfinite().all()


def test_a_share_of_one_keeps_all_and_a_new_class_waits_until_it_is_seen() -> None:
    config = config_of(keep="share", kept_share=1.0)
    labeller = Labeller(config, 3, CPU)
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    answer = confident([[0.9, 0.05, 0.05], [0.3, 0.3, 0.4]])
    looked_at, _ = labeller.label(answer, valid, learn=False)
    assert looked_at.label_BHW.tolist() == [[[255, 255]]]
    learned, _ = labeller.label(answer, valid)
    assert learned.label_BHW.tolist() == [[[0, 2]]]
