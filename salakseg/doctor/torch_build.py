"""The NVIDIA driver, and whether torch was built to use it."""

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from salakseg.doctor.finding import Finding, broken, good, warning
from salakseg.errors import first_line

TORCH_PAGE = "https://pytorch.org/get-started/locally/"
"""Where PyTorch says what to install for which system and CUDA."""

_LIBRARIES = ("nvml.dll", "nvcuda.dll") if sys.platform == "win32" else ("libnvidia-ml.so.1", "libcuda.so.1")


def find_driver() -> str | None:
    """What is known of the NVIDIA driver without torch: cards and version, or the library that shows it; else None."""
    if program := shutil.which("nvidia-smi"):
        query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            told = subprocess.run(query, capture_output=True, text=True, timeout=20, errors="replace")
        except (OSError, subprocess.TimeoutExpired):
            return "nvidia-smi is there but does not answer"
        cards = [line.strip() for line in told.stdout.splitlines() if line.strip()]
        return "; ".join(cards) if told.returncode == 0 and cards else "nvidia-smi is there but names no card"
    if Path("/proc/driver/nvidia/version").exists():
        return "a driver is loaded (/proc/driver/nvidia)"
    return next((f"a driver's library is there ({name})" for name in _LIBRARIES if _loads(name)), None)


def driver() -> Finding:
    """The NVIDIA driver; none is no fault."""
    found = find_driver()
    if found is None:
        return good("none; everything runs on the processor")
    if "nvidia-smi is there but" in found:
        return warning(found, "install the NVIDIA driver anew and restart: https://www.nvidia.com/drivers")
    return good(found)


@cache
def import_fault() -> str | None:
    """Why torch cannot be imported. Asked once: a second attempt in the same process fails for having been one."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return first_line(error)
    return None


def torch_build() -> Finding:
    """Version and CUDA build of torch, and whether it can use the card that is there."""
    if fault := import_fault():
        return broken(f"cannot be imported ({fault})", f"install it as {TORCH_PAGE} says for your system")
    import torch

    built = torch.version.cuda
    name = f"{torch.__version__}, {f'built for CUDA {built}' if built else 'built without CUDA'}"
    if built and torch.cuda.is_available():
        return good(f"{name}, uses {torch.cuda.get_device_name(0)}")
    if torch.backends.mps.is_available():
        return good(f"{name}, uses Apple's GPU (mps)")
    if torch.version.hip or find_driver() is None:
        return good(f"{name}, runs on {'a ROCm build' if torch.version.hip else 'the processor'}")
    if not built:
        return warning(
            f"{name} beside an NVIDIA driver: the card is not used",
            f"choose your system and a CUDA version on {TORCH_PAGE} and run the command shown there with "
            "--force-reinstall (on Windows the package index alone gives torch without CUDA)",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return warning(f"{name}; CUDA_VISIBLE_DEVICES hides the card", "unset CUDA_VISIBLE_DEVICES")
    return broken(
        f"{name}, but cannot use the card beside it",
        f"update the NVIDIA driver, or take a torch for an older CUDA from {TORCH_PAGE}",
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
