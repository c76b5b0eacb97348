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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device's memory did not suffice; Apple's says so in an error of no kind of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def empty_cache() -> None:
    """Gives back what torch keeps of the devices' memory."""
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
