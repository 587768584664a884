"""What this device computes best in, measured before step 0 and written down; never measured again by a resume."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hubtune.errors import RecipeError

EXACT = 2e-6
"""The largest relative error of a product that still counts as fp32; bf16's is a thousand times larger."""


@dataclass(frozen=True)
class Compute:
    """How a step is computed: part of `run.json` and of every checkpoint, since dropout follows the cut.

    precision: the format of matrix products; weights are fp32 (fp64 for fp64). threads: 0 leaves them alone.
    overhead: what a micro-batch costs beyond its padded tokens, in tokens. limit: the most padded tokens of one. uniform: only
    examples of one size meet, since the model's answers change with padding. onednn: fp32 products by oneDNN.
    kernels: what `hubtune.kernels` computes. probe: GFLOP/s and relative error by format.
    """

    device: str
    precision: str
    threads: int
    overhead: int
    limit: int
    probe: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    uniform: bool = False
    onednn: bool = False
    kernels: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return asdict(self)


def kind() -> str:
    """What there is to compute on: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose(precision: str, kernels: str = "auto") -> Compute:
    """Look at the device, and time a matrix product in the formats it may have."""
    import torch

    from hubtune.kernels import KERNELS

    device = kind()
    threads = free_threads() if device == "cpu" else 0
    if precision == "fp16" and device == "cpu":
        raise RecipeError("train.precision=fp16 needs a GPU; this machine has none.", hint="Leave it at auto.")
    if precision == "fp64" and device == "mps":
        raise RecipeError("train.precision=fp64 is not known to this GPU.", hint="Leave it at auto.")
    if threads:
        torch.set_num_threads(threads)  # the probe measures what training will have
    probe = measured(device) if precision in ("auto", "fp32") else {}
    onednn = chosen_route(probe) if kernels == "auto" else False
    if precision == "auto":
        fp32 = probe["fp32 by onednn" if onednn else "fp32"]["gflops"]
        precision = "bf16" if probe["bf16"]["gflops"] > 1.5 * fp32 else "fp32"
    # Measured with MiniLM on one core: 1.3 ms a token and 65 ms a micro-batch. On a GPU, where launches count,
    # the figure is a guess on the side of few micro-batches.
    overhead, limit = (64, 8192) if device == "cpu" else (4096, 16384)
    return Compute(device, precision, threads, overhead, limit, probe, onednn=onednn,
                   kernels=KERNELS if device == "cpu" and kernels == "auto" else ())


def plain(precision: str) -> Compute:
    """A device as it is, without looking at it."""
    return Compute(kind(), precision, 0, 0, 0)


def autocast(compute: Compute) -> contextlib.AbstractContextManager[Any]:
    """Half precision for matrix products where it was chosen.

    Ours and not Accelerate's, whose wrapper stays on the model and would make evaluation inexact.
    """
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(compute.precision)
    return torch.autocast(compute.device, dtype) if dtype else contextlib.nullcontext()


def chosen_route(probe: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether fp32 products go by oneDNN: where that is faster and as exact. On CPUs with AMX it is bf16 in disguise."""
    ours = probe.get("fp32 by onednn")
    return bool(ours and ours["error"] < EXACT and ours["gflops"] > 1.1 * probe["fp32"]["gflops"])


@contextlib.contextmanager
def computing(compute: Compute) -> Iterator[None]:
    """Compute as was chosen; afterwards the process is as it was, but for how its C library keeps memory."""
    import torch

    threads = torch.get_num_threads()
    if compute.threads:
        torch.set_num_threads(compute.threads)
    if compute.device == "cpu":
        keep_freed_memory()
    try:
        with by_onednn() if compute.onednn else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def by_onednn() -> Iterator[None]:
    """fp32 products by oneDNN's kernels, which the setting's name does not tell: true fp32 where the CPU has no AMX."""
    import torch

    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


def keep_freed_memory() -> None:
    """Ask the C library to keep what is freed: else every step's large tensors are pages that the system clears anew.

    Measured: a third of the time of MiniLM's steps on short texts. For glibc; elsewhere nothing happens.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold, largest = -1, -3, 32 * 2**20
        mallopt(mmap_threshold, largest)
        mallopt(trim_threshold, 2**31 - 1)


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


def measured(device: str) -> dict[str, dict[str, float]]:
    """GFLOP/s of a matrix product in the formats of training, the best of a few, and its error relative to the largest entry."""
    import torch

    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=draw) for shape in ((256, 384), (384, 512)))
    true = a.double() @ b.double()

    def of(dtype: torch.dtype) -> dict[str, float]:
        try:
            x, y = a.to(device, dtype), b.to(device, dtype)
            best = float("inf")
            for _ in range(8):
                start = time.perf_counter()
                for _ in range(4):
                    found = x @ y
                found.sum().item()
                best = min(best, time.perf_counter() - start)
            error = float((found.double().cpu() - true).abs().max() / true.abs().max())
            return {"gflops": round(4 * 2 * a.numel() * b.shape[1] / best / 1e9, 1), "error": float(f"{error:.2g}")}
        except (RuntimeError, TypeError):
            return {"gflops": 0.0, "error": float("inf")}

    found = {"fp32": of(torch.float32), "bf16": of(torch.bfloat16)}
    if device == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        with by_onednn():
            found["fp32 by onednn"] = of(torch.float32)
    return found


def peak_memory(device: str) -> int:
    """The most bytes this process has held: on the GPU where it computes on one, else resident memory."""
    import resource
    import sys

    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
