"""How steps are computed on this device: chosen by rules before step 0, and written down for a resume."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hubtune.devices import number_formats, processor
from hubtune.devices.number_formats import HALVES, by_onednn, on_cuda
from hubtune.errors import RecipeError, ResumeError
from hubtune.record import read_record

KERNELS = {"cpu": ("attention", "logits"), "cuda": ("logits",)}
"""Accelerated functions by kind of device; `hubtune.acceleration.kernels` computes them."""


@dataclass(frozen=True)
class Compute:
    """How a step is computed: part of `run.json` and of every checkpoint, since rounding follows the cut.

    precision: the format of matrix products; weights are fp32 (fp64 for fp64). threads: 0 leaves them alone.
    overhead: what a micro-batch costs beyond its padded tokens, in tokens. limit: the most padded tokens of one. uniform: only
    examples of one size meet, since the model's answers change with padding. onednn: fp32 products by oneDNN.
    kernels: what `hubtune.acceleration` computes in its own way. evaluation: the most padded tokens
    of a batch that is only answered. recompute: activations are computed again in the backward pass, to save memory.
    why: what spoke for the precision. trial: what was tried before step 0: seconds and bytes.
    """

    device: str
    precision: str
    threads: int
    overhead: int
    limit: int
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
    """Choose by what the device is; nothing is timed. allowed: what `auto` may give beside fp32."""
    device = kind()
    refuse_unknown(precision, device)
    found = number_formats.choose(precision, device, kernels, allowed)
    # A rule on the kind of device, since the cut must not follow a time; figures in docs/decisions.md.
    overhead, limit = (64, 8192) if device == "cpu" else (4096, 16384)
    return Compute(device, found.precision, processor.threads() if device == "cpu" else 0, overhead, limit, onednn=found.onednn, why=found.why,
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
    if found.onednn and not number_formats.is_exact_by_onednn():
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
    """Compute as was chosen; afterwards the process is as it was."""
    import torch

    threads = torch.get_num_threads()
    if compute.threads:
        torch.set_num_threads(compute.threads)
    exactly = on_cuda("ieee") if compute.device == "cuda" else by_onednn() if compute.onednn else contextlib.nullcontext()
    try:
        with exactly:
            yield
    finally:
        torch.set_num_threads(threads)
