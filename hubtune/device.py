"""What this device computes best in, measured before step 0 and written down; never measured again by a resume."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hubtune.errors import RecipeError


@dataclass(frozen=True)
class Compute:
    """How a step is computed: part of `run.json` and of every checkpoint, since dropout follows the cut.

    precision: the format of matrix products; weights are fp32 (fp64 for fp64). threads: 0 leaves them alone.
    overhead: what a micro-batch costs beyond its padded tokens, in tokens. limit: the most padded tokens of one. uniform: only
    examples of one size meet, since the model's answers change with padding. probe: GFLOP/s by format.
    """

    device: str
    precision: str
    threads: int
    overhead: int
    limit: int
    probe: dict[str, float] = field(default_factory=dict)
    uniform: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return asdict(self)


def choose(precision: str) -> Compute:
    """Look at the device, and time a matrix product in the formats it may have."""
    import torch

    if torch.cuda.is_available():
        device = "cuda"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu"
    threads = free_threads() if device == "cpu" else 0
    if precision == "fp16" and device == "cpu":
        raise RecipeError("train.precision=fp16 needs a GPU; this machine has none.", hint="Leave it at auto.")
    if precision == "fp64" and device == "mps":
        raise RecipeError("train.precision=fp64 is not known to this GPU.", hint="Leave it at auto.")
    if threads:
        torch.set_num_threads(threads)  # the probe measures what training will have
    probe = measured(device) if precision == "auto" else {}
    if precision == "auto":
        precision = "bf16" if probe["bf16"] > 1.5 * probe["fp32"] else "fp32"
    # Measured with MiniLM on one core: 1.3 ms a token and 65 ms a micro-batch. On a GPU, where launches count,
    # the figure is a guess on the side of few micro-batches.
    overhead, limit = (64, 8192) if device == "cpu" else (4096, 16384)
    return Compute(device, precision, threads, overhead, limit, probe)


def use(compute: Compute) -> None:
    """Compute as was chosen, here and now."""
    import torch

    if compute.threads:
        torch.set_num_threads(compute.threads)


def free_threads() -> int:
    """As many threads as make a matrix product faster now: all of the cores this process may use, or one.

    Measured, because a core that is busy elsewhere makes two threads many times slower than one, and neither
    affinity nor quota tells. `OMP_NUM_THREADS` overrides.
    """
    import torch

    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    most = max(1, min(torch.get_num_threads(), cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    if most == 1:
        return 1

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        a, b = torch.ones(128, 384), torch.ones(384, 384)
        start = time.perf_counter()
        for _ in range(100):
            a @ b
        return time.perf_counter() - start

    seconds(most)  # the first call starts the threads
    alone, together = (sorted(seconds(threads) for _ in range(5))[2] for threads in (1, most))
    return most if together < 0.8 * alone else 1


def measured(device: str) -> dict[str, float]:
    """GFLOP/s of one matrix product in fp32 and bf16, the best of a few."""
    import torch

    def speed(dtype: torch.dtype) -> float:
        try:
            a = torch.ones(128, 384, dtype=dtype, device=device)
            b = torch.ones(384, 384, dtype=dtype, device=device)
            best = float("inf")
            for _ in range(3):
                start = time.perf_counter()
                (a @ b).sum().item()
                best = min(best, time.perf_counter() - start)
            return round(2 * 128 * 384 * 384 / best / 1e9, 1)
        except (RuntimeError, TypeError):
            return 0.0

    return {"fp32": speed(torch.float32), "bf16": speed(torch.bfloat16)}


def peak_memory(device: str) -> int:
    """The most bytes this process has held: on the GPU where it computes on one, else resident memory."""
    import resource
    import sys

    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
