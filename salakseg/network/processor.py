"""What this machine's processor can do with 8-bit integers, and how many of its cores may be used."""

import contextlib
import math
import os
import platform
import sys
from pathlib import Path

_CPU_FLAGS = Path("/proc/cpuinfo")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The cores that this process is confined to, by its affinity or by a container's share; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    usable = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # a container's share, "max 100000" or "200000 100000"
        quota, period = _CGROUP_QUOTA.read_text().split()
        usable = min(usable, math.ceil(int(quota) / int(period)))
    return max(1, usable)


def int8_weight_bits(cpuinfo: Path = _CPU_FLAGS) -> int:
    """How many bits of an 8-bit weight may be used: 7 where 8 would overflow, x86 with AVX2 but without VNNI.

    Such a processor adds two products of 8 bits in 16, which saturates; with 7 bits a weight they fit. Where x86 does
    not tell its flags, as on Windows, the safe answer is given.

    Args:
        cpuinfo: Linux's description of the processor.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return 8
    if not sys.platform.startswith("linux"):
        return 7
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 7
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return 8 if any(flag in ("avx512_vnni", "avx_vnni") for flag in flags) else 7
