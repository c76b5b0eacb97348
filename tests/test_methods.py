"""Each method by hand: which pixels count, which label, which loss, which gradients reach which head.

The student here is a table of logits that can be differentiated; the numbers of the test are worked out with numpy from
the published formulas.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_plantation
from numpy.typing import NDArray
from torch import Tensor
from training import quiet

from salakseg.network.heads import Logits, disagreement
from salakseg.network.perturb import ChannelDropout
from salakseg.train.branches import Branch
from salakseg.train.loop import Trainer
from salakseg.train.objective import Objective
from salakseg.train.pseudo import Labeller, Target
from salakseg.train.recipe import Recipe, load_recipe
from salakseg.train.start import Request, start_run
from salakseg.train.thresholds import AdaptiveThresholds

B, N, K, H, W = 2, 3, 3, 4, 5
CPU = torch.device("cpu")
Array = NDArray[np.float64]


class Table:
    """A student that answers each pass with the next of its logits [B, N, K, H, W], whatever the images show."""

    def __init__(self, *answers: Tensor) -> None:
        self.answers = list(answers)
        self.dropouts: list[ChannelDropout | None] = []

    def __call__(self, image_BCHW: Tensor, dropout: ChannelDropout | None) -> Logits:
        self.dropouts.append(dropout)
        heads = self.answers[len(self.dropouts) - 1]
        assert len(heads) == len(image_BCHW)
        return Logits(heads, heads.mean(dim=1))


def logits(seed: int, batch: int = B, heads: int = N) -> Tensor:
    values = 2 * torch.randn(batch, heads, K, H, W, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_()


def labels(seed: int, batch: int = B) -> Tensor:
    label = torch.randint(0, K, (batch, H, W), generator=torch.Generator().manual_seed(seed))
    label[:, 0, 0] = 255
    return label


def softmax(values: Array, axis: int) -> Array:
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    result: Array = powers / powers.sum(axis=axis, keepdims=True)
    return result


def nll(logits_BKHW: Array, label_BHW: Array) -> Array:
    """Minus the log of the probability of each pixel's label; 0 where it is 255."""
    prob = softmax(logits_BKHW, 1)
    index = np.where(label_BHW == 255, 0, label_BHW).astype(int)
    picked = np.take_along_axis(prob, index[:, None], axis=1)[:, 0]
    result: Array = np.where(label_BHW == 255, 0.0, -np.log(picked))
    return result


def recipe_of(name: str, **selftraining: Any) -> Recipe:
    changes: dict[str, Any] = {"selftraining": {"thresholds": 0.6, **selftraining}}
    return load_recipe(name, [changes])


def objective_of(recipe: Recipe, class_weights_K: Tensor | None = None) -> Objective:
    return Objective(recipe, Labeller(recipe.selftraining, K, CPU), class_weights_K)


def image(batch: int = B) -> Tensor:
    return torch.zeros(batch, 3, H, W)


def labelled(label_BHW: Tensor) -> Branch:
    return Branch("labelled", image(), label_BHW)


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def test_supervised_learns_the_mean_of_the_logits_on_labels_alone() -> None:
    heads, label = logits(0), labels(1)
    loss, record = objective_of(load_recipe("supervised"))(Table(heads), [labelled(label)], 1.0, 0)
    expected = nll(array(heads).mean(axis=1), array(label)).sum() / (label != 255).sum()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert "loss_unsup" not in record
    loss.backward()
    assert heads.grad is not None
    assert (heads.grad[:, :, :, 0, 0] == 0).all()  # ignored
    torch.testing.assert_close(heads.grad[:, 0], heads.grad[:, 1])  # through the mean all heads learn the same


@pytest.mark.parametrize(("heads_learn", "divisor"), [("each", N), ("sum", 1)])
def test_heads_may_learn_each_on_its_own(heads_learn: str, divisor: int) -> None:
    recipe = load_recipe("supervised", [{"loss": {"heads": heads_learn}}])
    heads, label = logits(0), labels(1)
    loss, _ = objective_of(recipe)(Table(heads), [labelled(label)], 1.0, 0)
    each = [nll(array(heads)[:, n], array(label)).sum() / (label != 255).sum() for n in range(N)]
    assert float(loss.detach()) == pytest.approx(float(sum(each)) / divisor, rel=1e-5)
    loss.backward()
    assert heads.grad is not None
    assert not torch.allclose(heads.grad[:, 0], heads.grad[:, 1])


def test_v3_labels_its_own_pass_and_repeats_the_whole_loss_with_class_weights() -> None:
    recipe = recipe_of("v3", thresholds=(0.6, 0.8))
    weights = torch.tensor([1.0, 5.0, 0.5])
    answers, own, label, valid = logits(0), logits(2), labels(1), torch.zeros(B, H, W, dtype=torch.int64)
    valid[:, 3, 4] = 255
    branches = [labelled(label), Branch("weak", image(), valid)]
    loss, record = objective_of(recipe, weights)(Table(answers, own), branches, 1.5, 0)
    prob = softmax(array(own), 2).mean(axis=1)
    confidence, pseudo = prob.max(axis=1), prob.argmax(axis=1)
    threshold = np.array([0.0, 0.6, 0.8])[pseudo]  # the background's threshold of 0 keeps all of it
    kept = (confidence >= threshold) & (array(valid) != 255)
    pseudo = np.where(kept, pseudo, 255).astype(float)
    mean = array(own).mean(axis=1)
    losses = nll(mean, pseudo)
    weight = np.where(kept, array(weights)[np.where(kept, pseudo, 0).astype(int)], 0)
    ce = (losses * weight).sum() / weight.sum()
    focal = (0.25 * (1 - np.exp(-losses)) ** 2 * losses)[kept].mean()
    p, dice = softmax(mean, 1), []
    for b in range(B):
        for k in range(K):
            mine, truth = p[b, k][kept[b]], pseudo[b][kept[b]] == k
            dice.append(1 - (2 * mine[truth].sum() + 1) / (mine.sum() + truth.sum() + 1))
    expected = 0.4 * ce + 0.4 * np.mean(dice) + 0.2 * focal
    assert float(record["loss_unsup"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float(record["loss_sup"]) + 1.5 * float(expected), rel=1e-5)
    assert record["kept_pixels"].tolist() == [int((pseudo == k).sum()) for k in range(K)]
    assert float(record["kept_share"]) == pytest.approx(kept.sum() / (array(valid) != 255).sum())
    loss.backward()
    assert own.grad is not None
    assert (own.grad.abs().sum(dim=(1, 2)) > 0).numpy().tolist() == kept.tolist()


def vote(heads_BNKHW: Array) -> Array:
    """DiverseNet: a vote of each head, and half as many again as there are heads for the class with the largest sum."""
    ballots = np.zeros((B, K, H, W))
    for b, h, w in np.ndindex(B, H, W):
        for n in range(heads_BNKHW.shape[1]):
            ballots[b, heads_BNKHW[b, n, :, h, w].argmax(), h, w] += 1
        ballots[b, heads_BNKHW[b, :, :, h, w].sum(axis=0).argmax(), h, w] += heads_BNKHW.shape[1] / 2
    result: Array = ballots.argmax(axis=1).astype(float)
    return result


def test_diversenet_votes_and_one_head_learns_the_vote_on_both_views() -> None:
    ten = 10
    answers, own, label = logits(0, heads=ten), logits(2, heads=ten), labels(1)
    exists = torch.zeros(B, H, W, dtype=torch.int64)
    recipe = load_recipe("diversenet")
    loss, record = objective_of(recipe)(Table(answers, own), [labelled(label), Branch("weak", image(), exists)], 7.5, 4)
    pixels = int((label != 255).sum())
    sup = sum(nll(array(answers)[:, n], array(label)).sum() / pixels for n in range(ten))
    on_labelled = np.where(array(label) == 255, 255, vote(array(answers)))
    unsup = nll(array(answers)[:, 4], on_labelled).sum() / pixels + nll(array(own)[:, 4], vote(array(own))).mean()
    assert float(record["loss_sup"]) == pytest.approx(float(sup), rel=1e-5)
    assert float(record["loss_unsup"]) == pytest.approx(float(unsup), rel=1e-4)
    assert float(loss.detach()) == pytest.approx(float(sup + 7.5 * unsup), rel=1e-4)
    assert float(record["kept_share"]) == 1.0  # no threshold
    loss.backward()
    assert own.grad is not None
    assert [bool((own.grad[:, n] != 0).any()) for n in range(ten)] == [n == 4 for n in range(ten)]


def fixed_target(heads: Tensor, threshold: float) -> tuple[Array, Array]:
    prob = softmax(array(heads), 2).mean(axis=1)
    kept = prob.max(axis=1) >= threshold
    return np.where(kept, prob.argmax(axis=1), 255).astype(float), kept


@pytest.mark.parametrize(("name", "strong", "feature"), [("unimatch", 0.25, 0.5), ("unimatch2", 0.5, 0.0)])
def test_unimatch_divides_by_all_valid_pixels(name: str, strong: float, feature: float) -> None:
    """Two strong views, in the first version also the weak view with channels dropped, learn the labeller's labels."""
    recipe = load_recipe(name, [{"selftraining": {"thresholds": 0.7, "background_threshold": 0.7}}])
    objective = objective_of(recipe)
    said, valid = logits(9), torch.ones(B, H, W, dtype=torch.bool)
    valid[0, 2] = False
    target, _ = objective.labeller.label(Logits(said, said.mean(dim=1)), valid)
    pseudo, kept = fixed_target(said, 0.7)
    kept = kept & valid.numpy()
    pseudo = np.where(kept, pseudo, 255)
    assert array(target.label_BHW).tolist() == pseudo.tolist()
    answers, first, own, label = logits(0), logits(3), logits(4, batch=2 * B), labels(1)
    both = Target(*(torch.cat([part, part]) for part in target[:3]))
    branches = [labelled(label)]
    branches += [Branch("feature", image(), label, target)] if feature else []
    branches += [Branch("strong", image(2 * B), torch.cat([label, label]), both, views=2)]
    student = Table(*([answers, first, own] if feature else [answers, own]))
    loss, record = objective(student, branches, 1.0, 0)
    mean = array(own).mean(axis=1)
    views = [nll(mean[half], pseudo).sum() / valid.sum() for half in (slice(0, B), slice(B, 2 * B))]
    unsup = strong * float(sum(views))
    if feature:
        unsup += feature * float(nll(array(first).mean(axis=1), pseudo).sum() / valid.sum())
        assert student.dropouts == [None, ChannelDropout(0, B), None]
    else:
        assert student.dropouts == [None, ChannelDropout(0, 2 * B, complementary=True)]
    assert float(record["loss_unsup"]) == pytest.approx(unsup, rel=1e-5)
    loss.backward()
    assert own.grad is not None
    taught = own.grad[:B].abs().sum(dim=(1, 2)) > 0
    assert taught.numpy().tolist() == kept.tolist()


def test_pixels_by_weight_and_heads_each() -> None:
    """What phase 4 is made of: weights by disagreement, every head on its own."""
    recipe = recipe_of("phase4", disagreement=2.0, keep="fixed", thresholds=0.5, background_threshold=0.5)
    objective = objective_of(recipe)
    said, own, answers, label = logits(9), logits(4), logits(0), labels(1)
    target, _ = objective.labeller.label(Logits(said, said.mean(dim=1)), torch.ones(B, H, W, dtype=torch.bool))
    prob = softmax(array(said), 2)
    mean = prob.mean(axis=1)
    entropy_of_mean = -(mean * np.log(mean)).sum(axis=1)
    divergence = entropy_of_mean + (prob * np.log(prob)).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(array(disagreement(said)), divergence, atol=1e-5)
    weight = np.exp(-2 * divergence) * (mean.max(axis=1) >= 0.5)
    np.testing.assert_allclose(array(target.weight_BHW), weight, rtol=1e-4)
    views = recipe.selftraining.strong_views
    branch = Branch("strong", image(), label, target, views=1)
    _, record = objective(Table(answers, own), [labelled(label), branch], 1.0, 0)
    each = [(nll(array(own)[:, n], mean.argmax(axis=1)) * weight).mean() for n in range(N)]
    assert views == 2
    assert float(record["loss_strong"]) == pytest.approx(float(np.mean(each)), rel=1e-4)


def confident(values_K: list[list[float]]) -> Logits:
    """One head; a row of pixels, one for each list of class probabilities."""
    prob = torch.tensor(values_K).T.reshape(1, 1, len(values_K[0]), 1, -1)
    return Logits(prob.log(), prob.log()[:, 0])


def test_adaptive_thresholds_follow_each_class_between_floor_and_ceiling() -> None:
    config = recipe_of("phase4", keep="adaptive", adaptive_momentum=0.5, adaptive_floor=0.6, adaptive_ceiling=0.9)
    labeller = Labeller(config.selftraining.model_copy(update={"disagreement": 0.0}), 3, CPU)
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
    config = recipe_of("phase4", keep="share", kept_share=0.5, adaptive_momentum=0.5, disagreement=0.0).selftraining
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
    config = recipe_of("phase4", keep="share", kept_share=0.5, disagreement=0.0).selftraining
    labeller = Labeller(config, 3, CPU)
    doubts = [10 ** -(2.5 + 0.25 * n) for n in range(12)]  # from 0.003 to 0.000006
    pixels = confident([[1 - doubt, doubt / 2, doubt / 2] for doubt in doubts])
    target, _ = labeller.label(pixels, torch.ones(1, 1, 12, dtype=torch.bool))
    assert target.label_BHW.tolist() == [[[255] * 6 + [0] * 6]]


@pytest.mark.parametrize("keep", ["adaptive", "share"])
def test_a_broken_answer_teaches_the_thresholds_nothing(keep: str) -> None:
    config = recipe_of("phase4", keep=keep, kept_share=0.5, disagreement=0.0).selftraining
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


def test_what_the_student_says_of_labelled_views_moves_no_threshold() -> None:
    recipe = recipe_of("phase4", on_labelled=True, keep="share", strong=0.0, weak=1.0, labeller="student")
    objective = objective_of(recipe)
    said = labels(1)
    objective(Table(logits(0), logits(1)), [labelled(said), Branch("weak", image(), said)], 1.0, 0)
    own = Labeller(recipe.selftraining, K, CPU)
    own.label(Logits(logits(1), logits(1).mean(dim=1)), said != 255)
    assert torch.equal(objective.labeller.thresholds.values_K(), own.thresholds.values_K())


def test_a_share_of_one_keeps_all_and_a_new_class_waits_until_it_is_seen() -> None:
    config = recipe_of("phase4", keep="share", kept_share=1.0, disagreement=0.0).selftraining
    labeller = Labeller(config, 3, CPU)
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    answer = confident([[0.9, 0.05, 0.05], [0.3, 0.3, 0.4]])
    looked_at, _ = labeller.label(answer, valid, learn=False)
    assert looked_at.label_BHW.tolist() == [[[255, 255]]]
    learned, _ = labeller.label(answer, valid)
    assert learned.label_BHW.tolist() == [[[0, 2]]]


def trainer_of(folder: Path, name: str, **selftraining: Any) -> Trainer:
    data = write_plantation(folder / "patches")
    changes: dict[str, dict[str, Any]] = {
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
