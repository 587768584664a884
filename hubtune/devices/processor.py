"""What the processor is and how much of it this process may use: facts of the system, never a timing.

A timing depends on what else runs, and what it decides would decide the bits of the weights.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Flags of an x86 processor that multiplies bf16 by itself. Without one torch emulates bf16, at a hundredth of fp32's speed."""


@functools.cache
def description(path: str = "/proc/cpuinfo") -> tuple[str, frozenset[str]]:
    """The vendor and the flags of the first processor; empty where the system does not say."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found.get("vendor_id", ""), frozenset(found.get("flags", "").split())


def bf16_flag() -> str | None:
    """The flag by which this processor multiplies bf16; None where it does not."""
    _, flags = description()
    return next((name for name in BF16_FLAGS if name in flags), None)


def is_faster_by_onednn() -> bool:
    """Whether fp32 products are faster by oneDNN than by MKL, which serves processors of other makers with older code.

    Not with AMX, where oneDNN would take bf16 in the place of fp32.
    """
    vendor, flags = description()
    return vendor == "AuthenticAMD" and "avx512f" in flags and not any(name.startswith("amx") for name in flags)


def threads() -> int:
    """Threads of a training: the cores that this process may use, shared with its siblings; at most as many as torch has.

    `OMP_NUM_THREADS` overrides.
    """
    import torch

    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    return max(1, min(torch.get_num_threads(), cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
