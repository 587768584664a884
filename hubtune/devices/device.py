"""What this device computes best in, measured before step 0 and written down; never measured again by a resume."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hubtune.devices.number_formats import HALVES, by_onednn, chosen, exact_route, measured, on_cuda
from hubtune.errors import RecipeError, ResumeError
from hubtune.record import read_record

KERNELS = {"cpu": ("attention", "linear", "logits"), "cuda": ("logits",)}
"""Accelerated functions by kind of device; `hubtune.acceleration.kernels` computes them."""


@dataclass(frozen=True)
class Compute:
    """How a step is computed: part of `run.json` and of every checkpoint, since rounding follows the cut.

    precision: the format of matrix products; weights are fp32 (fp64 for fp64). threads: 0 leaves them alone.
    overhead: what a micro-batch costs beyond its padded tokens, in tokens. limit: the most padded tokens of one. uniform: only
    examples of one size meet, since the model's answers change with padding. onednn: fp32 products by oneDNN.
    kernels: what `hubtune.kernels` computes. probe: GFLOP/s and relative error by format. evaluation: the most padded tokens
    of a batch that is only answered. recompute: activations are computed again in the backward pass, to save memory.
    why: what spoke for the precision. trial: what was tried before step 0: seconds and bytes.
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
    evaluation: int = 8192
    recompute: bool = False
    why: str = ""
    trial: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return asdict(self)


def kind() -> str:
    """What there is to compute on: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose(precision: str, kernels: str = "auto", allowed: Sequence[str] = HALVES) -> Compute:
    """Look at the device, and time a matrix product in the formats it may have. allowed: what `auto` may give beside fp32."""
    import torch


    device = kind()
    threads = free_threads() if device == "cpu" else 0
    refuse_unknown(precision, device)
    if threads:
        torch.set_num_threads(threads)  # the probe measures what training will have
    probe = measured(device) if precision in ("auto", "fp32") else {}
    found = chosen(precision, probe, kernels, allowed)
    # A rule on the kind of device, since the cut must not follow a time; figures in docs/decisions.md.
    overhead, limit = (256, 8192) if device == "cpu" else (4096, 16384)
    return Compute(device, found.precision, threads, overhead, limit, probe, onednn=found.onednn, why=found.why,
                   kernels=KERNELS.get(device, ()) if kernels == "auto" else ())


def refuse_unknown(precision: str, device: str) -> None:
    """Refuse a number format that the device does not have."""
    import torch

    known = {"cpu": ("fp32", "bf16", "fp64"), "mps": ("fp32", "bf16", "fp16")}.get(device, ("fp32", "tf32", "bf16", "fp16", "fp64"))
    hint = "Leave train.precision at auto."
    if precision == "fp16" and device == "cpu":
        raise RecipeError("train.precision=fp16 needs a GPU; this machine has none.", hint=hint)
    if precision not in ("auto", *known):
        raise RecipeError(f"{precision} is not known to this device ({device}); it has: {', '.join(known)}.", hint=hint)
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RecipeError("train.precision=bf16 is not known to this GPU.", hint=hint)


def plan_of(run: str, precision: str) -> Compute:
    """The plan of another run, by its folder, for train.plan: refused with the reason where this machine cannot compute so."""
    try:
        said = read_record(Path(run).expanduser()).get("compute", {})
    except ResumeError as error:
        raise RecipeError(f"train.plan={run}: {error.message}", hint="It names the folder of a run, which has a run.json.") from None
    reason = next(against(said, precision), None) if said else "it stopped before it had a plan"
    if reason:
        raise RecipeError(f"train.plan={run}: {reason}.", hint="Measure one here: leave train.plan out.")
    found = Compute(**said)
    refuse_unknown(found.precision, found.device)
    return found


def against(said: Mapping[str, Any], precision: str) -> Iterator[str]:
    """What speaks against a plan on this machine, most basic first."""

    if set(said) != {item.name for item in fields(Compute)}:
        yield "its plan was written by another version of hubtune"
    found, here, cores = Compute(**said), kind(), os.cpu_count() or 1
    if found.device != here:
        yield f"its plan is for the device {found.device}, and this is {here}"
    if precision not in ("auto", found.precision):
        yield f"its plan is for {found.precision}, and train.precision={precision}"
    if strange := sorted(set(found.kernels) - set(KERNELS.get(here, ()))):
        yield f"it has kernels that are not here: {', '.join(strange)}"
    if found.threads > cores:
        yield f"it has {found.threads} threads, and this machine {cores} cores"
    if found.onednn and not exact_route({**measured(here), "fp32": {"gflops": 0.0}}):
        yield "oneDNN's fp32 products are not exact on this machine"


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


def learning(compute: Compute) -> contextlib.AbstractContextManager[Any]:
    """What holds for the steps of training, forward and backward: tf32, which answers are not in, or fp64 throughout."""
    if compute.precision == "fp64":
        from hubtune.devices import fp64

        return fp64.throughout()
    return on_cuda("tf32") if compute.precision == "tf32" else contextlib.nullcontext()


@contextlib.contextmanager
def computing(compute: Compute) -> Iterator[None]:
    """Compute as was chosen; afterwards the process is as it was, but for how its C library keeps memory."""
    import torch

    threads = torch.get_num_threads()
    if compute.threads:
        torch.set_num_threads(compute.threads)
    if compute.device == "cpu":
        keep_freed_memory()
    exactly = on_cuda("ieee") if compute.device == "cuda" else by_onednn() if compute.onednn else contextlib.nullcontext()
    try:
        with exactly:
            yield
    finally:
        torch.set_num_threads(threads)


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
