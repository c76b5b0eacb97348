"""Which device to compute on."""

import torch

from salakseg.errors import EngineError


def pick_device(wanted: str) -> str:
    """The device that was asked for, or the best at hand.

    Args:
        wanted: "auto", "cpu", "cuda" or "mps".

    Returns:
        "cpu", "cuda" or "mps".

    Raises:
        EngineError: The device is not there.
    """
    at_hand = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, there in at_hand.items() if there)
    if not at_hand[wanted]:
        raise EngineError(
            f"--device {wanted} was asked for, but torch {torch.__version__} finds none; try --device auto."
        )
    return wanted
