"""The optimizer, and its rate at every step."""

import math

import torch
from torch.optim import SGD, AdamW, Optimizer

from salakseg.network.model import Segmenter
from salakseg.train.settings import OptimizerConfig, ScheduleConfig
from salakseg.train.settings_selftraining import SelfTrainingConfig


def make_optimizer(model: Segmenter, config: OptimizerConfig, fused: bool = False) -> Optimizer:
    """SGD or AdamW with two rates: the encoder's, and a multiple of it for decoder and heads, which start from nothing.

    The rates given here are the peaks; `set_rate` scales them.

    Args:
        model: What is trained.
        config: Kind and rates.
        fused: Whether all parameters are moved by one kernel, on a GPU.
    """
    rate = config.learning_rate
    groups = [
        {"params": model.encoder_parameters(), "lr": rate, "peak": rate},
        {"params": model.other_parameters(), "lr": rate * config.decoder_factor, "peak": rate * config.decoder_factor},
    ]
    if config.kind == "sgd":
        return SGD(groups, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused)
    return AdamW(groups, lr=rate, betas=(config.momentum, 0.999), weight_decay=config.weight_decay, fused=fused)


def rate_factor(iteration: int, config: ScheduleConfig) -> float:
    """Share of the peak rate at a step: linear warm-up from 0, then a cosine down to 0.

    Args:
        iteration: Steps done before this one, from 0.
        config: Steps of the warm-up and in all.

    Returns:
        0 to 1; 1 at the end of the warm-up.
    """
    if iteration < config.warmup:
        return (iteration + 1) / (config.warmup + 1)
    progress = (iteration - config.warmup) / (config.iterations - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def selftraining_weight(iteration: int, config: SelfTrainingConfig) -> float:
    """Weight of the loss on pseudo-labels at a step: it rises linearly over the ramp, then stays.

    Args:
        iteration: Steps done before this one, from 0.
        config: First step, ramp and full weight.
    """
    if config.ramp == 0:
        return config.weight
    return config.weight * min((iteration - config.start + 1) / (config.ramp + 1), 1.0)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group to a share of its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
