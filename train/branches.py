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

_LABELLED, _UNLABELLED, _STRONG, _HEADS, _SIDES = range(5)  # streams of random numbers, kept apart


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
            target = Target(*map(some, target))
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
            # The same side in every process, or one might run what another does not, and wait for it for ever
            view = resize_view(view, augment, np.random.default_rng([self.recipe.seed, 2, _SIDES, iteration]))
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
        images, targets = [], []
        for _ in range(config.strong_views):
            image = strong_view(weak, self.recipe.strong, generator).image_BCHW
            image, own = self._mixed(image, target, generator)
            image, own = self._pasted(image, own, labelled, generator)
            images.append(image)
            targets.append(own)
        together = Target(*map(torch.cat, zip(*targets, strict=True)))
        return Branch("strong", torch.cat(images), together.label_BHW, together, config.strong_views)

    def _mixed(self, image_BCHW: Tensor, target: Target, generator: np.random.Generator) -> tuple[Tensor, Target]:
        """Pieces of other views of the batch."""
        config = self.recipe.selftraining
        if config.mix == "none":
            return image_BCHW, target
        partner_B = draw_partners(len(image_BCHW), generator, image_BCHW.device)
        source, theirs = image_BCHW[partner_B], Target(*(tensor[partner_B] for tensor in target))
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
        donor = View(labelled.image_BCHW[donor_B], labelled.label_BHW[donor_B])
        source, theirs = strong_view(donor, self.recipe.strong, generator).image_BCHW, _certain(donor.label_BHW)
        mask_BHW = class_mask(theirs.label_BHW, self.rare_K) & chosen.view(-1, 1, 1)
        return mix(image_BCHW, source, mask_BHW), _mix_targets(target, theirs, mask_BHW)

    def _some_strong(self, view: View, generator: np.random.Generator) -> View:
        chosen = torch.from_numpy(generator.random(len(view.image_BCHW)) < self.recipe.augment.strong)
        chosen_B111 = _to(chosen, view.image_BCHW.device).view(-1, 1, 1, 1)
        changed = strong_view(view, self.recipe.strong, generator)
        return View(torch.where(chosen_B111, changed.image_BCHW, view.image_BCHW), view.label_BHW)

    def _generator(self, stream: int, iteration: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, 2, stream, iteration, self.rank])


def _certain(label_BHW: Tensor) -> Target:
    """True labels as a target at full weight."""
    valid_BHW = label_BHW != IGNORE_INDEX
    return Target(label_BHW, valid_BHW.float(), valid_BHW)


def _mix_targets(target: Target, source: Target, mask_BHW: Tensor) -> Target:
    return Target(*(mix(own, theirs, mask_BHW) for own, theirs in zip(target, source, strict=True)))


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
