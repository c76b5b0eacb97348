"""The sections of a recipe: every setting with its meaning, default and range, where it is defined."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A table of a recipe; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(Section):
    """What is read from disk, and how much at a time."""

    crop: int = Field(default=256, ge=32)
    """Side of a training crop in pixels; also the patch size that the checkpoint names."""
    batch_size: int = Field(default=8, ge=2)
    """Labelled patches a step, and as many unlabelled ones; batch normalisation needs two."""
    workers: int = Field(default=2, ge=0)
    """Processes that decode pictures; 0 decodes in the training process."""
    split: Literal["block", "folder"] = "block"
    """Hold out runs of consecutive photos, or whole folders."""
    val_share: float = Field(default=0.15, gt=0.0, lt=0.5)
    """Wanted share of the labelled pixels in the validation part."""
    test_share: float = Field(default=0.15, ge=0.0, lt=0.5)
    """The same for the test part; 0 for none."""
    calibration_share: float = Field(default=0.05, ge=0.0, le=0.2)
    """The same for the calibration part, on which pseudo-labels are compared with labels; 0 for none. It is left out
    where it would cost training a class or a quarter of its labels."""
    gap: int = Field(default=3, ge=0)
    """Photos to either side of a held-out photo that are used nowhere."""
    sampling: Literal["uniform", "rarity"] = "uniform"
    """``uniform``: every labelled patch once before any again; ``rarity``: patches with rare classes more often, by the
    rare class sampling of DAFormer (`sampling.py`)."""
    rarity_temperature: float = Field(default=0.1, gt=0.0)
    """How much a rare class is preferred in ``rarity``: towards 0 the rarest alone, large values all classes alike."""
    in_memory: bool = False
    """All patches of the run decoded once into memory, for small sets; nothing is left for `workers` to do then."""


class OptimizerConfig(Section):
    """The optimizer and its rate."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = Field(default=2.5e-4, gt=0.0)
    """Peak rate of the encoder."""
    decoder_factor: float = Field(default=10.0, gt=0.0)
    """Rate of decoder and heads as a multiple of the encoder's."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of SGD; the first beta of AdamW."""
    weight_decay: float = Field(default=5e-4, ge=0.0)
    """Weight decay of all parameters."""
    clip_norm: float = Field(default=10.0, gt=0.0)
    """Largest norm of the gradient over all parameters."""
    freeze_batch_norm: bool = False
    """Batch normalisation keeps the statistics that it starts with; for batches too small to take any from."""


class ScheduleConfig(Section):
    """Linear warm-up from 0, then a cosine back to 0."""

    iterations: int = Field(default=50_000, ge=1)
    """Training steps."""
    warmup: int = Field(default=1_000, ge=0)
    """Steps of the warm-up."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup {self.warmup} is not below iterations {self.iterations}; lower --warmup-iters")
        return self


class LossConfig(Section):
    """The weighted sum of cross entropy, Dice and focal loss on labels."""

    ce: float = Field(default=0.4, ge=0.0)
    """Weight of the cross entropy."""
    dice: float = Field(default=0.4, ge=0.0)
    """Weight of the Dice loss."""
    focal: float = Field(default=0.2, ge=0.0)
    """Weight of the focal loss."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """``balanced``: a class counts in the cross entropy by the inverse of its share of the labelled pixels."""
    focal_alpha: float = Field(default=0.25, gt=0.0)
    """Factor of the focal loss."""
    focal_gamma: float = Field(default=2.0, ge=0.0)
    """Exponent of the focal loss: how little sure pixels count."""
    heads: Literal["mean", "each", "sum"] = "mean"
    """``mean``: the loss of the mean of the heads' logits; ``each``: the mean of the losses of every head alone, which
    keeps heads different; ``sum``: the sum of these, as DiverseNet has it."""
    heads_frozen: int = Field(default=0, ge=0)
    """Heads that are drawn anew in each step and do not learn in it (DiverseNet's DF: 5 of 10)."""
    heads_frozen_from: int = Field(default=3_500, ge=0)
    """First step with frozen heads."""

    @model_validator(mode="after")
    def _has_a_term(self) -> Self:
        if self.ce == self.dice == self.focal == 0:
            raise ValueError("ce, dice and focal are all 0, so nothing would be learned from labels")
        return self


class PerformanceConfig(Section):
    """What makes a step quicker, and leaves what is learned as it is but for rounding."""

    channels_last: bool = True
    """Images and weights with the channels innermost in memory, as tensor cores want them; a CPU gains some 8 %."""
    joint_forward: bool = False
    """One pass of labelled and unlabelled images together, where they have the same size. Batch normalisation then
    takes its statistics over both."""
    compile: bool = False
    """``torch.compile`` for the network: minutes at the start, quicker steps then."""
    deterministic: bool = False
    """Algorithms that give the same bits in every run, slower ones where needed; for what has none, the run says so."""


class EvaluationConfig(Section):
    """When the moving average is validated, and when to stop."""

    every: int = Field(default=500, ge=1)
    """Steps between two evaluations."""
    patience: int = Field(default=15, ge=1)
    """Evaluations without a new best after which the run stops, unless its smoothed curve rises (`stopping.py`)."""
    ignore_first: int = Field(default=0, ge=0)
    """Evaluations at the start that early stopping does not count; the best of all is kept in any case."""
    smoothing: float = Field(default=0.6, ge=0.0, lt=1.0)
    """How much of the smoothed curve is its own past; 0 is the curve itself."""
    save_every: int = Field(default=100, ge=1)
    """Steps between two checkpoints to go on from; what a run killed at once loses at most. A checkpoint is put off
    where writing would take more than a twentieth of the time (`keeping.py`)."""
