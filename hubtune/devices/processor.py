"""The processor and the part of it that this process may use: facts of the system, never timings.

A timing depends on the load of the machine, and with it the bits of the weights would.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Flags of x86 processors with native bf16.

torch emulates it otherwise, at a hundredth of fp32's speed.
"""


@functools.cache
def cpu_description(path: str = "/proc/cpuinfo") -> tuple[str, frozenset[str]]:
    """Return the vendor and the flags of the first processor; empty where they are unknown."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        for line in text.split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found.get("vendor_id", ""), frozenset(found.get("flags", "").split())


def bf16_flag() -> str | None:
    """Return the flag by which this processor supports bf16; None where it does not."""
    _, flags = cpu_description()
    return next((name for name in BF16_FLAGS if name in flags), None)


def is_faster_by_onednn() -> bool:
    """Tell whether oneDNN's fp32 products are faster than MKL's, which is slow on AMD.

    Not with AMX, where oneDNN would use bf16 instead of fp32.
    """
    vendor, flags = cpu_description()
    has_amx = any(name.startswith("amx") for name in flags)
    return vendor == "AuthenticAMD" and "avx512f" in flags and not has_amx


def threads() -> int:
    """Return the number of training threads: this process's share of the cores it may use.

    At most torch's own number; `OMP_NUM_THREADS` overrides.
    """
    import torch

    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    return max(1, min(torch.get_num_threads(), cores()))


def cores() -> int:
    """Return this process's share of the cores that it may use; 0 where processes share one."""
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        found = found if quota == "max" else max(1, min(found, int(quota) // int(period)))
    return found // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
