"""Random numbers for views, and their way to the device.

Everything random is drawn on the CPU, from a generator that depends on seed and step alone: a view does not depend on
the device or on what was drawn before, and a resumed run repeats it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


def uniforms(generator: np.random.Generator, samples: int, count: int) -> list[Floats]:
    """``count`` arrays [samples] of numbers from 0 to below 1."""
    return list(generator.random((samples, count)).T)


def spread(unit: Floats, strength: float) -> Floats:
    """Numbers from 0 to 1 as factors from ``1 - strength`` to ``1 + strength``."""
    return 1 + strength * (2 * unit - 1)


def send(device: torch.device, arrays: Sequence[NDArray[np.generic]]) -> list[Tensor]:
    """The arrays as float32 on the device, in one copy for which the CPU does not wait.

    Only page-locked memory can be copied without waiting; the allocator keeps it until the copy is done.
    """
    packed = torch.from_numpy(np.concatenate([np.asarray(array, np.float32).ravel() for array in arrays]))
    if device.type == "cuda":
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
