"""The student's passes over the branches of a step, and their losses.

Axes: B image, N head, K class, H row, W column.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salakseg.classes import IGNORE_INDEX
from salakseg.network.heads import Logits
from salakseg.network.perturb import ChannelDropout
from salakseg.train.branches import Branch
from salakseg.train.losses import LossParts, pseudo_label_ce, segmentation_loss
from salakseg.train.pseudo import Labeller, Target
from salakseg.train.recipe import Recipe

Record = dict[str, Tensor]
"""Figures of a step, still on the device."""

Student = Callable[[Tensor, ChannelDropout | None], Logits]


@dataclass(frozen=True, slots=True)
class Objective:
    """loss_sup + weight x loss_unsup, where loss_unsup adds up the branches by their weights.

    Attributes:
        recipe: Loss and self-training settings.
        labeller: Makes targets where the student labels its own pass.
        class_weights_K: Weights of the classes in the cross entropy, float [K], or None.
    """

    recipe: Recipe
    labeller: Labeller
    class_weights_K: Tensor | None

    def __call__(
        self, student: Student, branches: Sequence[Branch], weight: float, random_head: int
    ) -> tuple[Tensor, Record]:
        """The loss of some branches.

        Args:
            student: Gives logits for images, with some channels dropped.
            branches: The labelled one and those of the unlabelled patches, if any.
            weight: Of the loss on pseudo-labels in this step.
            random_head: The head that learns pseudo-labels where the recipe wants a random one.

        Returns:
            A scalar with its gradient, and what is worth logging.
        """
        config = self.recipe.selftraining
        record: Record = {}
        loss_unsup: Tensor | None = None
        loss = torch.zeros((), device=branches[0].image_BCHW.device)
        answers = self._answers(student, branches)
        for branch, logits in zip(branches, answers, strict=True):
            if branch.kind == "labelled":
                sup = self._supervised(logits, branch.label_BHW)
                terms = {"loss_sup": sup.total, "ce": sup.ce, "dice": sup.dice, "focal": sup.focal}
                record |= {name: term for name, term in terms.items() if term is not None}
                loss = loss + sup.total
                if config.on_labelled and len(branches) > 1:
                    own, _ = self.labeller.label(_detached(logits), branch.label_BHW != IGNORE_INDEX, learn=False)
                    part = self._pseudo(logits, own, random_head)
                    loss_unsup = part if loss_unsup is None else loss_unsup + part
                continue
            target = branch.target
            if target is None:
                target, kept = self.labeller.label(_detached(logits), branch.label_BHW != IGNORE_INDEX)
                record |= kept
            part = self._pseudo(logits, target, random_head)
            record[f"loss_{branch.kind}"] = part
            share = {"weak": config.weak, "strong": config.strong * branch.views, "feature": config.feature}[
                branch.kind
            ]
            loss_unsup = share * part if loss_unsup is None else loss_unsup + share * part
        if loss_unsup is not None:
            record["loss_unsup"] = loss_unsup
            loss = loss + weight * loss_unsup
        record["loss"] = loss
        return loss, {name: value.detach() for name, value in record.items()}

    def _answers(self, student: Student, branches: Sequence[Branch]) -> list[Logits]:
        """The student's logits of each branch, from one pass over all where the recipe joins them and sizes agree."""
        sizes = {branch.image_BCHW.shape[-2:] for branch in branches}
        if not self.recipe.performance.joint_forward or len(sizes) > 1:
            return [student(branch.image_BCHW, self._dropout(branch, 0)) for branch in branches]
        dropouts, first = [], 0
        for branch in branches:
            dropouts.append(self._dropout(branch, first))
            first += len(branch.image_BCHW)
        needed = [dropout for dropout in dropouts if dropout is not None]
        if len(needed) > 1:  # two kinds of dropped channels do not fit into one pass
            return [student(branch.image_BCHW, self._dropout(branch, 0)) for branch in branches]
        logits = student(torch.cat([branch.image_BCHW for branch in branches]), needed[0] if needed else None)
        lengths = [len(branch.image_BCHW) for branch in branches]
        return [Logits(*parts) for parts in zip(*(tensor.split(lengths) for tensor in logits), strict=True)]

    def _dropout(self, branch: Branch, first: int) -> ChannelDropout | None:
        if branch.kind == "feature":
            return ChannelDropout(first, len(branch.image_BCHW))
        if branch.kind == "strong" and self.recipe.selftraining.complementary_dropout:
            return ChannelDropout(first, len(branch.image_BCHW), complementary=True)
        return None

    def _supervised(self, logits: Logits, label_BHW: Tensor) -> LossParts:
        config = self.recipe.loss
        if config.heads == "mean":
            return segmentation_loss(logits.mean_BKHW, label_BHW, config, self.class_weights_K)
        parts = [
            segmentation_loss(head, label_BHW, config, self.class_weights_K) for head in logits.heads_BNKHW.unbind(1)
        ]
        divisor = len(parts) if config.heads == "each" else 1

        def of_heads(terms: Sequence[Tensor | None]) -> Tensor | None:
            there = [term for term in terms if term is not None]
            return torch.stack(there).sum() / divisor if there else None

        total = torch.stack([part.total for part in parts]).sum() / divisor
        return LossParts(
            total, *(of_heads([getattr(part, name) for part in parts]) for name in ("ce", "dice", "focal"))
        )

    def _pseudo(self, logits: Logits, target: Target, random_head: int) -> Tensor:
        config = self.recipe.selftraining
        weights_K = self.class_weights_K if config.class_weighted else None
        if config.heads == "mean":
            learners = [logits.mean_BKHW]
        elif config.heads == "each":
            learners = list(logits.heads_BNKHW.unbind(1))
        else:
            learners = [logits.heads_BNKHW[:, random_head]]
        if config.loss == "recipe":
            losses = [segmentation_loss(own, target.label_BHW, self.recipe.loss, weights_K).total for own in learners]
        else:
            losses = [pseudo_label_ce(own, target, config.normalise, weights_K) for own in learners]
        return torch.stack(losses).mean()


def _detached(logits: Logits) -> Logits:
    return Logits(logits.heads_BNKHW.detach(), logits.mean_BKHW.detach())
