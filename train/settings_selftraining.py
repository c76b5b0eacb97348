"""How the unlabelled patches take part: who labels, which pixels count, which views, how the loss is normalised."""

from typing import Literal, Self

from pydantic import Field, model_validator

from salakseg.classes import BACKGROUND
from salakseg.errors import RecipeError
from salakseg.train.settings import Section


class SelfTrainingConfig(Section):
    """Every part of a self-training method; the methods of `recipes/` differ in these settings only."""

    enabled: bool = True
    """Off: plain supervised training, unlabelled patches are not even read."""
    start: int = Field(default=500, ge=0)
    """First step with pseudo-labels."""
    ramp: int = Field(default=0, ge=0)
    """Steps over which the weight rises from 0 to its full value."""
    weight: float = Field(default=1.0, ge=0.0)
    """Weight of the loss on pseudo-labels beside the supervised one."""

    sampling: Literal["patches", "folders"] = "patches"
    """``patches``: every unlabelled patch once before any again; ``folders``: every folder as often as any other, so
    that large orthomosaics do not push small ones aside."""
    labeller: Literal["student", "teacher"] = "student"
    """Who labels the weak view: the network being trained, or its moving average."""
    labeller_heads: Literal["prob", "diversenet"] = "prob"
    """How the labeller's heads say one thing: mean of their probabilities, or DiverseNet's vote."""

    weak: float = Field(default=1.0, ge=0.0)
    """Weight of the loss on the weak view itself, beside the other views."""
    strong: float = Field(default=0.0, ge=0.0)
    """Weight of the loss on each strong view."""
    strong_views: int = Field(default=2, ge=1, le=2)
    """Strong views of each weak one."""
    feature: float = Field(default=0.0, ge=0.0)
    """Weight of the loss on the weak view with half of the encoder's channels dropped (UniMatch)."""
    on_labelled: bool = False
    """Whether the student also learns the pseudo-labels of the labelled view (DiverseNet)."""
    mix: Literal["none", "cutmix", "classmix"] = "none"
    """What is pasted into a strong view from another one: a rectangle, or half of its classes."""
    paste: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the strong views into which labelled pieces of rare classes are pasted."""
    complementary_dropout: bool = False
    """Whether half of the samples have one half of the encoder's channels dropped in the first strong view, and the
    other half in the second (UniMatch V2)."""

    keep: Literal["fixed", "adaptive", "share"] = "fixed"
    """``fixed``: pixels whose confidence reaches the threshold of their class; ``adaptive``: the threshold of a class
    follows the moving mean of its confidence; ``share``: of every class the same share, its surest pixels (Zou et al.
    2018)."""
    background_threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    """Least confidence of a background pixel; 0 keeps every one, 1 none."""
    thresholds: float | tuple[float, ...] = (0.60, 0.65, 0.70, 0.65, 0.55, 0.60)
    """Least confidence of the classes 1, 2, ...; one number for all of them; 1 keeps none."""
    adaptive_floor: float = Field(default=0.5, ge=0.0, le=1.0)
    """Lowest threshold that ``adaptive`` sets."""
    adaptive_ceiling: float = Field(default=0.95, ge=0.0, le=1.0)
    """Highest threshold that ``adaptive`` sets."""
    adaptive_momentum: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Momentum of what ``adaptive`` and ``share`` remember of each class."""
    kept_share: float = Field(default=0.7, gt=0.0, le=1.0)
    """Share of the pixels of each class that ``share`` keeps."""
    disagreement: float = Field(default=0.0, ge=0.0)
    """How much less a pixel counts where the labeller's heads disagree: exp(-value x Jensen-Shannon divergence)."""

    loss: Literal["recipe", "ce"] = "recipe"
    """Loss on pseudo-labels: the recipe's weighted sum, or cross entropy alone."""
    class_weighted: bool = True
    """Whether the class weights of the supervised cross entropy also apply to pseudo-labels."""
    normalise: Literal["kept", "valid"] = "kept"
    """The cross entropy is divided by the pixels that are kept, or by all valid ones (``loss = "ce"``)."""
    heads: Literal["mean", "each", "random"] = "mean"
    """What learns pseudo-labels: the mean of the heads' logits, every head alone, or one head drawn in each step."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        values = (self.thresholds,) if isinstance(self.thresholds, float) else self.thresholds
        if any(not 0.0 <= value <= 1.0 for value in values):
            raise ValueError(f"thresholds {values} must lie between 0 and 1")
        if self.adaptive_floor > self.adaptive_ceiling:
            raise ValueError(f"adaptive_floor {self.adaptive_floor} is above adaptive_ceiling {self.adaptive_ceiling}")
        if self.loss == "recipe":
            needed = {
                'normalise = "valid"': self.normalise == "valid",
                "disagreement": self.disagreement > 0,
            }
            for setting, given in needed.items():
                if given:
                    raise ValueError(f'{setting} needs loss = "ce", since the recipe\'s sum has no weights for pixels')
        if self.complementary_dropout and self.strong_views != 2:
            raise ValueError("complementary_dropout needs strong_views = 2")
        if self.enabled and self.weak + self.strong + self.feature == 0:
            raise ValueError("one of weak, strong and feature must be above 0, or enabled = false")
        return self

    @property
    def labels_inline(self) -> bool:
        """Whether the student labels the very pass that it learns from."""
        return self.labeller == "student" and self.strong == 0 and self.feature == 0

    def threshold_of_each(self, num_classes: int) -> list[float]:
        """Thresholds in the order of the class ids, background included.

        Raises:
            RecipeError: The recipe names thresholds for another number of classes.
        """
        others = num_classes - 1
        values = [self.thresholds] * others if isinstance(self.thresholds, float) else list(self.thresholds)
        if len(values) != others:
            raise RecipeError(
                f"The recipe has thresholds for {len(values)} classes beside background, the class map has {others}; "
                "give one for all with --set selftraining.thresholds=0.6, or one each as [0.6, 0.65, ...]."
            )
        values.insert(BACKGROUND, self.background_threshold)
        return values
