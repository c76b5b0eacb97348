"""An optimizer step that is left out where the gradient is no finite number, without waiting for the device."""

import torch
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor


def step_if_finite(optimizer: _FabricOptimizer, norm: Tensor) -> None:
    """Moves the weights, unless the gradient is broken: then neither they nor the optimizer's averages change.

    On a GPU the fused kernel itself looks at a flag on the device, the one that gradient scalers use; elsewhere the
    norm is at hand.

    Args:
        optimizer: As Fabric has wrapped it; not one whose precision has a gradient scaler, which does this by itself.
        norm: Of the whole gradient, a scalar on the device; inf or NaN if any of it is.
    """
    own = optimizer.optimizer
    # A kernel that leaves out its very first step would leave the momentum as it found that memory
    if own.defaults.get("fused") and own.state:
        own.found_inf = (~norm.isfinite()).to(torch.float32)  # type: ignore[attr-defined]  # read by torch's fused kernels
        optimizer.step()
    elif bool(norm.isfinite()):
        optimizer.step()
