"""How much memory there is, how much this process holds, and how much it held at its most: read from the system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 2**60
"""What cgroups write where there is no limit is above this."""

before = 0
"""The most that was held before the system's own count was begun anew, in bytes."""


def peak(device: str) -> int:
    """The most bytes this process has held: on the GPU where it computes on one, else resident memory."""
    return max(before, since(device))


def since(device: str) -> int:
    """The same, since `begin`."""
    import resource
    import sys

    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def begin(device: str) -> None:
    """Count the most from here on. Where the system cannot, `since` goes on with the old count, which is not too small."""
    global before
    import torch

    before = max(before, since(device))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def held(device: str) -> int | None:
    """Bytes that this process holds now; None where nobody says."""
    import torch

    if device == "cuda":
        return int(torch.cuda.memory_allocated())
    if device != "cpu":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def room(device: str) -> int | None:
    """Bytes that this process may still take; None where nobody says. Processes of one machine share it evenly."""
    import torch

    if device == "cuda":
        on_device, _ = torch.cuda.mem_get_info()
        return int(on_device + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
    if device != "cpu":
        return None
    free = min(left_in(Path("/proc"), Path("/sys/fs/cgroup")), default=None)
    return None if free is None else free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def left_in(proc: Path, groups: Path) -> Iterator[int]:
    """What the machine has left, and every control group around this process that has a limit (version 1 and 2)."""
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top = groups / "memory" if kinds else groups
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
            inside = top / path.strip("/")
            for folder in (inside, *inside.parents):
                yield from left_of(folder, *names)
                if folder == top:
                    break


def left_of(folder: Path, limit: str, usage: str) -> Iterator[int]:
    """What one control group has left: files that it keeps in memory and does not use can be let go."""
    with contextlib.suppress(OSError, ValueError):
        most = int((folder / limit).read_text(encoding="ascii"))
        used = int((folder / usage).read_text(encoding="ascii"))
        if most < UNLIMITED:
            said = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            idle = {name: int(value) for name, value in said}
            yield most - used + idle.get("total_inactive_file", idle.get("inactive_file", 0))


def give_back(device: str) -> None:
    """Let the system have what is free in this process, so that what is held can be read."""
    import ctypes

    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Ask the C library to keep what is freed: else every step's large tensors are pages that the system clears anew.

    Measured: a third of the time of MiniLM's steps on short texts. For glibc; elsewhere nothing happens. It holds for the whole
    process and cannot be undone, so the command line asks for it, and the library does not.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold, largest = -1, -3, 32 * 2**20
        mallopt(mmap_threshold, largest)
        mallopt(trim_threshold, 2**31 - 1)
