"""Each method by hand: which pixels count, which label, which loss, which gradients reach which head.

The student here is a table of logits that can be differentiated; the numbers of the test are worked out with numpy from
the published formulas.
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from salakseg.network.heads import Logits, disagreement
from salakseg.network.perturb import ChannelDropout
from salakseg.train.branches import Branch
from salakseg.train.objective import Objective
from salakseg.train.pseudo import Labeller, Target
from salakseg.train.recipe import Recipe, load_recipe

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


def test_what_the_student_says_of_labelled_views_moves_no_threshold() -> None:
    recipe = recipe_of("phase4", on_labelled=True, keep="share", strong=0.0, weak=1.0, labeller="student")
    objective = objective_of(recipe)
    said = labels(1)
    objective(Table(logits(0), logits(1)), [labelled(said), Branch("weak", image(), said)], 1.0, 0)
    own = Labeller(recipe.selftraining, K, CPU)
    own.label(Logits(logits(1), logits(1).mean(dim=1)), said != 255)
    assert torch.equal(objective.labeller.thresholds.values_K(), own.thresholds.values_K())
