"""Devices, precision, and several processes that train one network together, each on its own part of every batch.

``torchrun --nproc-per-node 4 -m salakseg train ...`` starts the processes and tells each its number. The first one is
the only one that writes and speaks. Gradients are averaged, so the batch is the recipe's times the number of processes.
"""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from salakseg.network.device import pick_device
from salakseg.train.recipe import Recipe


def make_fabric(device: str, recipe: Recipe) -> Fabric:
    """The device of this process, in the precision that suits it, connected with the other processes if there are any.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        recipe: Its precision.

    Raises:
        EngineError: The device is not there.
    """
    chosen = pick_device(device)
    precision = recipe.precision
    if precision == "auto":
        precision = "32-true"  # bfloat16 on a CPU is many times slower
        if chosen == "cuda":
            precision = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if chosen == "cuda":
        torch.backends.cudnn.benchmark = True  # views have one size, so the search for the best kernels pays
    here, everywhere = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if everywhere == 1:
        return Fabric(accelerator=chosen, devices=1, precision=precision)
    # Buffers are not sent around: a second pass would change them under the first one's gradient. On GPUs batch
    # normalisation takes its statistics over all processes; on CPUs, where that does not exist, each keeps its own.
    strategy = DDPStrategy(broadcast_buffers=False)
    fabric = Fabric(
        accelerator=chosen, devices=here, num_nodes=everywhere // here, strategy=strategy, precision=precision
    )
    fabric.launch()
    return fabric


def make_ready(network: nn.Module, fabric: Fabric) -> None:
    """Prepares a network for being trained by several processes; nothing to do for one.

    Batch normalisation takes its statistics over all processes, on GPUs. Parameters that no output depends on, such as
    the classifier's last layer in some encoders, are taken out: their gradients would be waited for.
    """
    if fabric.world_size == 1:
        return
    if fabric.device.type == "cuda":
        convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # timm's knows its own layers, in which an activation is part of the norm
    was_training = network.training
    network.eval()(torch.zeros(1, 3, 64, 64)).mean_BKHW.sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    network.train(was_training)


def total(counts: Tensor, fabric: Fabric) -> Tensor:
    """The sum of a tensor over all processes, where it lies; all of them must ask."""
    if fabric.world_size == 1:
        return counts
    sums = fabric.all_reduce(counts, reduce_op="sum")
    assert isinstance(sums, Tensor)
    return sums


def summed(counts: Tensor, fabric: Fabric) -> Tensor:
    """The same on the CPU, from wherever it lies."""
    if fabric.world_size == 1:  # not by way of the device: Apple's has no float64
        return counts.cpu()
    return total(counts.to(fabric.device), fabric).cpu()


def anybody(flag: bool, fabric: Fabric) -> bool:
    """Whether any of the processes says yes; all of them must ask."""
    return bool(summed(torch.tensor([int(flag)]), fabric) > 0)
