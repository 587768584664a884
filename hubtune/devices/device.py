"""Device and compute settings: chosen by rules before step 0, and recorded for a resume."""

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
"""Accelerated functions by kind of device, computed by `hubtune.acceleration.kernels`."""


@dataclass(frozen=True)
class Compute:
    """Settings of a step's computation: part of `run.json` and checkpoints, since it decides rounding.

    Attributes:
        precision: format of matrix products; weights are fp32 (fp64 for fp64).
        threads: number of CPU threads; 0 leaves it unchanged.
        overhead: cost of a micro-batch beyond its padded tokens, in tokens.
        limit: maximum number of padded tokens per micro-batch.
        uniform: batch only examples of one size, since the model's outputs change with padding.
        onednn: compute fp32 products with oneDNN.
        kernels: functions that `hubtune.acceleration` replaces.
        evaluation: maximum number of padded tokens per evaluation batch.
        recompute: recompute activations in the backward pass (gradient checkpointing).
        why: reason for the precision.
        trial: results of the memory search before step 0: bytes and micro-batches.
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
        """Return the entry for `run.json`."""
        return asdict(self)


def kind() -> str:
    """Return the kind of device to compute on: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose(precision: str, kernels: str = "auto", allowed: Sequence[str] = HALVES) -> Compute:
    """Choose the settings by the kind of device; nothing is timed.

    Args:
        allowed: formats that precision `auto` may choose besides fp32.
    """
    device = kind()
    refuse_unknown(precision, device)
    found = number_formats.choose(precision, device, kernels, allowed)
    # By the kind of device, since the division of a step must not depend on timings; figures in
    # docs/decisions.md.
    overhead, limit = (256, 8192) if device == "cpu" else (4096, 16384)
    threads = processor.threads() if device == "cpu" else 0
    return Compute(
        device, found.precision, threads, overhead, limit, onednn=found.onednn, why=found.why,
        kernels=KERNELS.get(device, ()) if kernels == "auto" else ())


def refuse_unknown(precision: str, device: str) -> None:
    """Refuse a number format that the device does not support."""
    import torch

    known = {"cpu": ("fp32", "bf16", "fp64"), "mps": ("fp32", "bf16", "fp16")}.get(
        device, ("fp32", "tf32", "bf16", "fp16", "fp64"))
    hint = "Leave train.precision at auto."
    if precision == "fp16" and device == "cpu":
        raise RecipeError("train.precision=fp16 needs a GPU; this machine has none.", hint=hint)
    if precision not in ("auto", *known):
        raise RecipeError(f"this device ({device}) does not support {precision}; "
                          f"supported: {', '.join(known)}.", hint=hint)
    if (precision == "bf16" and device == "cuda"
            and not torch.cuda.is_bf16_supported(including_emulation=False)):
        raise RecipeError("this GPU does not support train.precision=bf16.", hint=hint)


def load_plan(run: str, precision: str) -> Compute:
    """Load the compute settings of another run for train.plan.

    Args:
        run: folder of the run.

    Raises:
        RecipeError: no such run, or this machine cannot compute with its settings.
    """
    try:
        recorded = read_record(Path(run).expanduser()).get("compute", {})
    except ResumeError as error:
        raise RecipeError(
            f"train.plan={run}: {error.message}",
            hint="Set train.plan to the folder of a run, which has a run.json.") from None
    reason = (next(plan_conflicts(recorded, precision), None) if recorded
              else "it stopped before its settings were chosen")
    if reason:
        raise RecipeError(f"train.plan={run}: {reason}.",
                          hint="To choose settings for this machine, remove train.plan.")
    found = Compute(**recorded)
    refuse_unknown(found.precision, found.device)
    return found


def plan_conflicts(recorded: Mapping[str, Any], precision: str) -> Iterator[str]:
    """Yield reasons why this machine cannot use recorded settings, most basic first."""
    if set(recorded) != {item.name for item in fields(Compute)}:
        yield "its settings were written by another version of hubtune"
    found, here, cores = Compute(**recorded), kind(), os.cpu_count() or 1
    if found.device != here:
        yield f"its device is {found.device}, but this machine has {here}"
    if precision not in ("auto", found.precision):
        yield f"its precision is {found.precision}, but train.precision={precision}"
    if strange := sorted(set(found.kernels) - set(KERNELS.get(here, ()))):
        yield f"it uses kernels that this device lacks: {', '.join(strange)}"
    if found.threads > cores:
        yield f"it uses {found.threads} threads, but this machine has {cores} cores"
    if found.onednn and not number_formats.is_exact_by_onednn():
        yield "oneDNN's fp32 products are not exact on this machine"


def default_settings(precision: str) -> Compute:
    """Return settings that change nothing about the device."""
    return Compute(kind(), precision, 0, 0, 0)


def autocast(compute: Compute) -> contextlib.AbstractContextManager[Any]:
    """Enable half precision for matrix products if it was chosen.

    Not Accelerate's wrapper, which stays on the model and would make evaluation inexact.
    """
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(compute.precision)
    return torch.autocast(compute.device, dtype) if dtype else contextlib.nullcontext()


def training_precision(compute: Compute) -> contextlib.AbstractContextManager[Any]:
    """Enable the precision of training steps: tf32 (not for evaluation), or fp64 everywhere."""
    if compute.precision == "fp64":
        from hubtune.devices import fp64

        return fp64.fp64_everywhere()
    return on_cuda("tf32") if compute.precision == "tf32" else contextlib.nullcontext()


@contextlib.contextmanager
def device_settings(compute: Compute) -> Iterator[None]:
    """Apply threads and fp32 settings; restore the process's own afterwards."""
    import torch

    threads = torch.get_num_threads()
    if compute.threads:
        torch.set_num_threads(compute.threads)
    exactly: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if compute.device == "cuda":
        exactly = on_cuda("ieee")
    elif compute.onednn:
        exactly = by_onednn()
    try:
        with exactly:
            yield
    finally:
        torch.set_num_threads(threads)
