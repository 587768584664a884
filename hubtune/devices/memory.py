"""Memory: available, current and peak bytes, read from the system."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 2**60
"""Values above this mean no limit in cgroup files."""

before = 0
"""Peak bytes before the system's own counter was last reset."""


def peak(device: str) -> int:
    """Return the peak bytes of this process: GPU memory on a GPU, else resident memory."""
    return max(before, peak_since_reset(device))


def peak_since_reset(device: str) -> int:
    """Return the peak bytes since `reset_peak`."""
    import resource
    import sys

    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak(device: str) -> None:
    """Reset the peak counter.

    Where the system cannot, `peak_since_reset` keeps the old, higher count.
    """
    global before
    import torch

    before = max(before, peak_since_reset(device))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def current_bytes(device: str) -> int | None:
    """Return the bytes that this process uses now; None where the system does not tell."""
    import torch

    if device == "cuda":
        return int(torch.cuda.memory_allocated())
    if device != "cpu":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def available_bytes(device: str) -> int | None:
    """Return the bytes that this process may still use; None where the system does not tell.

    The processes of one machine share its memory evenly.
    """
    import torch

    if device == "cuda":
        on_device, _ = torch.cuda.mem_get_info()
        return int(on_device + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
    if device != "cpu":
        return None
    free = min(free_bytes(Path("/proc"), Path("/sys/fs/cgroup")), default=None)
    return None if free is None else free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_bytes(proc: Path, groups: Path) -> Iterator[int]:
    """Yield the free bytes of the machine and of each limited cgroup (v1, v2) of this process."""
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    for folder, limit, usage in limited_groups(proc, groups):
        yield from free_in_group(folder, limit, usage)


def limited_groups(proc: Path, groups: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the folder of each cgroup (v1, v2) of this process, with its files of limit and usage."""
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top = groups / "memory" if kinds else groups
            names = ("memory.limit_in_bytes",
                     "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
            inside = top / path.strip("/")
            for folder in (inside, *inside.parents):
                yield (folder, *names)
                if folder == top:
                    break


def total_bytes() -> int | None:
    """Return the bytes that this process may use at most, with swap; None where it is not known.

    The processes of one machine share its memory evenly.
    """
    most = min(limits(Path("/proc"), Path("/sys/fs/cgroup")), default=None)
    return None if most is None else most // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def limits(proc: Path, groups: Path) -> Iterator[int]:
    """Yield the memory and swap of the machine, and the limit of each cgroup of this process."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        sizes = {name: value.split()[0] for name, value in (line.split(":", 1) for line in lines)}
        yield (int(sizes["MemTotal"]) + int(sizes["SwapTotal"])) * 1024
    for folder, limit, _ in limited_groups(proc, groups):
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="ascii"))
            if most < UNLIMITED:
                yield most


def free_in_group(folder: Path, limit: str, usage: str) -> Iterator[int]:
    """Yield the free bytes of one cgroup, counting its inactive page cache as free."""
    with contextlib.suppress(OSError, ValueError):
        most = int((folder / limit).read_text(encoding="ascii"))
        used = int((folder / usage).read_text(encoding="ascii"))
        if most < UNLIMITED:
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            idle = {name: int(value) for name, value in (line.split() for line in lines)}
            yield most - used + idle.get("total_inactive_file", idle.get("inactive_file", 0))


def release_free_memory(device: str) -> None:
    """Return free memory of this process to the system, so that `current_bytes` is accurate."""
    import ctypes

    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512", "LRU_CACHE_CAPACITY": "16"}
"""Compiled products that oneDNN and torch's ideep keep; both keep 1,024 by themselves."""


def keep_few_kernels() -> None:
    """Let oneDNN and torch keep fewer compiled products.

    A product is compiled for its shape. oneDNN's takes 0.25 MB, and compiling it anew 0.3 ms;
    ideep's copies of them take 0.6 MB, and save nothing while oneDNN has the product. To be called
    before torch is imported, which reads the variables once. Values of the user win.
    """
    for name, count in KERNELS.items():
        os.environ.setdefault(name, count)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: otherwise every step's large tensors are newly cleared pages.

    Measured: a third of the time of MiniLM's steps on short texts. It holds for the whole process
    and cannot be undone, so only the command line calls it, never the library.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold, largest = -1, -3, 32 * 2**20
        mallopt(mmap_threshold, largest)
        mallopt(trim_threshold, 2**31 - 1)


ALLOCATIONS = 200_000
"""Allocations between two collections while libraries are imported; 700 is Python's default."""
usual_thresholds: list[tuple[int, int, int]] = []
"""Python's thresholds of the garbage collector, while `postpone_collection` is in force."""


def postpone_collection() -> None:
    """Let Python collect garbage rarely, until `resume_collection`.

    The libraries' 700,000 objects live as long as the process, and while they are imported, Python
    visits those that are there again and again: a quarter of the time. It holds for the whole
    process, so only the command line calls it, never the library.
    """
    if not usual_thresholds:
        usual_thresholds.append(gc.get_threshold())
        gc.set_threshold(ALLOCATIONS, 50, 1000)


def resume_collection() -> None:
    """Let Python collect garbage as usual, but never visit the objects that are there by now.

    Call it when the libraries are imported, before there is a model. It does nothing without
    `postpone_collection`.
    """
    if usual_thresholds:
        gc.freeze()
        gc.set_threshold(*usual_thresholds.pop())
