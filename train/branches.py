"""What the student looks at in one step, and what it shall say there: one branch for each kind of view.

The views of the unlabelled patches are named as in FixMatch and UniMatch: the labeller sees the *weak* view, the
student learns from it, from *strong* views of it, or from it with channels dropped (*feature*).

Axes: B image, C channel, K class, H row, W column.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.train.augment import View, resize_view, weak_view
from salakseg.train.data import Batch
from salakseg.train.mixing import class_mask, classmix_mask, cutmix_mask, draw_partners, mix
from salakseg.train.pseudo import Target
from salakseg.train.recipe import Recipe
from salakseg.train.strong import strong_view

MULTI_SCALE_EVERY = 10
"""Every how manieth labelled batch is resized in a multi-scale recipe."""

Kind = Literal["labelled", "weak", "strong", "feature"]

_LABELLED, _UNLABELLED, _STRONG, _HEADS = range(4)  # streams of random numbers, kept apart


@dataclass(frozen=True, slots=True)
class Branch:
    """Images for the student with their targets.

    Attributes:
        kind: Which branch it is.
        image_BCHW: Normalised, float32; with two strong views all first ones stand before all second ones.
        label_BHW: Labels of the labelled branch, int64, 255 where ignored; without labels 255 where no pixel exists; of
            strong views the same as their target's.
        target: What to learn; None where it is made from the student's own answer to this very pass.
        views: Views of each sample, 1 or 2.
    """

    kind: Kind
    image_BCHW: Tensor
    label_BHW: Tensor
    target: Target | None = None
    views: int = 1

    @property
    def samples(self) -> int:
        """Patches that it shows."""
        return len(self.image_BCHW) // self.views

    def part(self, number: int, parts: int) -> "Branch":
        """Every ``parts``-th sample, from ``number`` on, with all of its views."""
        if parts == 1:
            return self

        def some(tensor: Tensor) -> Tensor:
            by_view: Tensor = tensor.unflatten(0, (self.views, self.samples))
            return by_view[:, number::parts].flatten(0, 1)

        target = self.target
        if target is not None:
            prob = None if target.prob_BKHW is None else some(target.prob_BKHW)
            target = Target(some(target.label_BHW), some(target.weight_BHW), some(target.valid_BHW), prob)
        return Branch(self.kind, some(self.image_BCHW), some(self.label_BHW), target, self.views)


class Views:
    """Draws the views of a step; the same again for the same step, so that a resumed run sees what it would have.

    Args:
        recipe: How views are made.
        rare_K: Which classes are rare enough to be pasted, bool on the device.
        rank: Number of this process among those that train together; each draws its own views.
    """

    def __init__(self, recipe: Recipe, rare_K: Tensor, rank: int = 0) -> None:
        self.recipe = recipe
        self.rare_K = rare_K
        self.rank = rank

    def labelled(self, batch: Batch, iteration: int) -> Branch:
        """The labelled branch, in a multi-scale recipe now and then at another size."""
        generator = self._generator(_LABELLED, iteration)
        augment = self.recipe.augment
        view = weak_view(batch, augment, self.recipe.data.crop, generator)
        if augment.strong > 0:
            view = self._some_strong(view, generator)
        if augment.multi_scale and iteration % MULTI_SCALE_EVERY == MULTI_SCALE_EVERY - 1:
            view = resize_view(view, augment, generator)
        return Branch("labelled", view.image_BCHW, view.label_BHW)

    def weak(self, batch: Batch, iteration: int) -> View:
        """The weak view of unlabelled patches; its label is 255 where it shows what lies outside the picture."""
        generator = self._generator(_UNLABELLED, iteration)
        return weak_view(batch, self.recipe.augment, self.recipe.data.crop, generator)

    def unlabelled(self, weak: View, target: Target | None, labelled: Branch, iteration: int) -> list[Branch]:
        """The branches of a weak view.

        Args:
            weak: The view.
            target: What the labeller says of it; None if the student labels its own pass.
            labelled: The labelled branch, whose pieces may be pasted.
            iteration: Steps done before this one.
        """
        config = self.recipe.selftraining
        branches = []
        if config.weak > 0:
            branches.append(Branch("weak", weak.image_BCHW, weak.label_BHW, target))
        if config.feature > 0:
            branches.append(Branch("feature", weak.image_BCHW, weak.label_BHW, target))
        if config.strong > 0:
            assert target is not None  # `labels_inline` is false with strong views
            branches.append(self._strong(weak, target, labelled, iteration))
        return branches

    def frozen_heads(self, heads: int, iteration: int) -> list[int]:
        """The heads that do not learn in this step; the same in every process."""
        count = self.recipe.loss.heads_frozen if iteration >= self.recipe.loss.heads_frozen_from else 0
        order = np.random.default_rng([self.recipe.seed, 2, _HEADS, iteration]).permutation(heads)
        return sorted(int(head) for head in order[:count])

    def random_head(self, heads: int, iteration: int) -> int:
        """The head that learns pseudo-labels in this step; the same in every process."""
        return int(np.random.default_rng([self.recipe.seed, 3, _HEADS, iteration]).integers(heads))

    def _strong(self, weak: View, target: Target, labelled: Branch, iteration: int) -> Branch:
        config = self.recipe.selftraining
        generator = self._generator(_STRONG, iteration)
        images, labels, targets = [], [], []
        for number in range(config.strong_views):
            image = strong_view(weak, self.recipe.strong, generator).image_BCHW
            from_labelled = config.mix_with == "labelled" or (config.mix_with == "both" and number == 1)
            image, own = self._mixed(image, target, labelled if from_labelled else None, generator)
            image, own = self._pasted(image, own, labelled, generator)
            images.append(image)
            labels.append(own.label_BHW)
            targets.append(own)
        return Branch("strong", torch.cat(images), torch.cat(labels), _cat(targets), config.strong_views)

    def _mixed(
        self, image_BCHW: Tensor, target: Target, labelled: Branch | None, generator: np.random.Generator
    ) -> tuple[Tensor, Target]:
        """Pieces of other views of the batch, or of labelled views with their labels."""
        config = self.recipe.selftraining
        if config.mix == "none":
            return image_BCHW, target
        if labelled is not None and labelled.image_BCHW.shape[-2:] == image_BCHW.shape[-2:]:
            donors = torch.from_numpy(generator.integers(0, len(labelled.image_BCHW), len(image_BCHW)))
            donor_B = _to(donors, image_BCHW.device)
            source, theirs = self._labelled_source(labelled, donor_B, target, generator)
        else:
            partner_B = draw_partners(len(image_BCHW), generator, image_BCHW.device)
            source, theirs = image_BCHW[partner_B], _take(target, partner_B)
        if config.mix == "cutmix":
            height, width = image_BCHW.shape[-2:]
            mask_BHW = cutmix_mask((height, width), len(image_BCHW), self.recipe.strong, generator, image_BCHW.device)
        else:
            mask_BHW = classmix_mask(theirs.label_BHW, len(self.rare_K), generator)
        return mix(image_BCHW, source, mask_BHW), _mix_targets(target, theirs, mask_BHW)

    def _pasted(
        self, image_BCHW: Tensor, target: Target, labelled: Branch, generator: np.random.Generator
    ) -> tuple[Tensor, Target]:
        """Labelled pieces of rare classes in front of some of the views, with their labels at full weight."""
        share = self.recipe.selftraining.paste
        if share == 0 or labelled.image_BCHW.shape[-2:] != image_BCHW.shape[-2:]:
            return image_BCHW, target
        chosen = torch.from_numpy(generator.random(len(image_BCHW)) < share)
        donor_B = torch.from_numpy(generator.integers(0, len(labelled.image_BCHW), len(image_BCHW)))
        chosen, donor_B = (_to(t, image_BCHW.device) for t in (chosen, donor_B))
        source, theirs = self._labelled_source(labelled, donor_B, target, generator)
        mask_BHW = class_mask(theirs.label_BHW, self.rare_K) & chosen.view(-1, 1, 1)
        return mix(image_BCHW, source, mask_BHW), _mix_targets(target, theirs, mask_BHW)

    def _labelled_source(
        self, labelled: Branch, donor_B: Tensor, like: Target, generator: np.random.Generator
    ) -> tuple[Tensor, Target]:
        """Strong views of some labelled ones, with their labels at full weight."""
        view = View(labelled.image_BCHW[donor_B], labelled.label_BHW[donor_B])
        return strong_view(view, self.recipe.strong, generator).image_BCHW, _certain(view.label_BHW, like)

    def _some_strong(self, view: View, generator: np.random.Generator) -> View:
        chosen = torch.from_numpy(generator.random(len(view.image_BCHW)) < self.recipe.augment.strong)
        chosen_B111 = _to(chosen, view.image_BCHW.device).view(-1, 1, 1, 1)
        changed = strong_view(view, self.recipe.strong, generator)
        return View(torch.where(chosen_B111, changed.image_BCHW, view.image_BCHW), view.label_BHW)

    def _generator(self, stream: int, iteration: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, 2, stream, iteration, self.rank])


def _certain(label_BHW: Tensor, like: Target) -> Target:
    """True labels as a target at full weight."""
    valid_BHW = label_BHW != IGNORE_INDEX
    prob_BKHW = None
    if like.prob_BKHW is not None:
        class_K11 = torch.arange(like.prob_BKHW.shape[1], device=label_BHW.device).view(-1, 1, 1)
        prob_BKHW = (label_BHW.unsqueeze(1) == class_K11).to(like.prob_BKHW.dtype)
    return Target(label_BHW, valid_BHW.float(), valid_BHW, prob_BKHW)


def _mix_targets(target: Target, source: Target, mask_BHW: Tensor) -> Target:
    prob = None
    if target.prob_BKHW is not None and source.prob_BKHW is not None:
        prob = mix(target.prob_BKHW, source.prob_BKHW, mask_BHW)
    label_BHW, weight_BHW, valid_BHW = (mix(a, b, mask_BHW) for a, b in zip(target[:3], source[:3], strict=True))
    return Target(label_BHW, weight_BHW, valid_BHW, prob)


def _take(target: Target, index_B: Tensor) -> Target:
    prob = None if target.prob_BKHW is None else target.prob_BKHW[index_B]
    return Target(target.label_BHW[index_B], target.weight_BHW[index_B], target.valid_BHW[index_B], prob)


def _cat(targets: list[Target]) -> Target:
    probs = [target.prob_BKHW for target in targets if target.prob_BKHW is not None]
    label, weight, valid = (torch.cat([target[i] for target in targets]) for i in range(3))  # type: ignore[misc]
    return Target(label, weight, valid, torch.cat(probs) if probs else None)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
