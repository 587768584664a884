"""Which number format a training gets: a rule on what the device is, so that the same machine always chooses the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune.devices import processor

EXACT = 2e-6
"""The largest relative error of a product that still counts as fp32; bf16's is a thousand times larger."""
HALVES = ("bf16", "fp16")
BF16_CAPABILITY, FP16_CAPABILITY = (8, 0), (7, 0)
"""NVIDIA's compute capability from which tensor cores multiply bf16 (Ampere) and fp16 (Volta)."""


@dataclass(frozen=True)
class Format:
    """The format of matrix products. onednn: fp32 products by oneDNN; why: the reason, in words."""

    precision: str
    onednn: bool
    why: str


def choose(wanted: str, device_type: str, kernels: str = "auto", allowed: Sequence[str] = HALVES) -> Format:
    """The format that was asked for; for `auto`, half precision where the device multiplies it by itself.

    allowed: what `auto` may give beside fp32.
    """
    half, why = half_precision(device_type) if wanted == "auto" else (None, "asked for")
    precision = half if half in allowed else "fp32" if wanted == "auto" else wanted
    onednn = precision == "fp32" and kernels == "auto" and device_type == "cpu" and processor.is_faster_by_onednn() and is_exact_by_onednn()
    return Format(precision or "fp32", onednn, why)


def half_precision(device_type: str) -> tuple[str | None, str]:
    """The half precision that a device multiplies by itself, and how that is known."""
    import torch

    if device_type == "cpu":
        flag = processor.bf16_flag()
        return ("bf16", f"the processor has {flag}") if flag else (None, "the processor has no instructions for bf16")
    if device_type != "cuda":
        return None, f"half precision was not measured on {device_type}"
    capability = torch.cuda.get_device_capability()
    found = "bf16" if capability >= BF16_CAPABILITY else "fp16" if capability >= FP16_CAPABILITY else None
    return found, f"the GPU's compute capability is {capability[0]}.{capability[1]}"


def overflows(model: Any) -> str | None:
    """What says that a model's numbers are too large for fp16, whose largest is 65504; None where nothing does.

    transformers marks the families of T5, whose feed-forward layers overflow; and what was pretrained in bf16 may
    have grown into its range.
    """
    kept = sorted(getattr(model, "_keep_in_fp32_modules", None) or ())
    if kept:
        return f"transformers keeps {kept[0]} of this family out of fp16"
    said = str(getattr(getattr(model, "config", None), "dtype", None))
    return "it was pretrained in bf16" if "bfloat16" in said else None


@contextlib.contextmanager
def setting(place: Any, value: str) -> Iterator[None]:
    """A backend's `fp32_precision` for a while."""
    before = place.fp32_precision
    place.fp32_precision = value
    try:
        yield
    finally:
        place.fp32_precision = before


def by_onednn() -> contextlib.AbstractContextManager[None]:
    """fp32 products by oneDNN's kernels, which the setting's name does not tell: true fp32 where the CPU has no AMX.

    torch has the setting from 2.9 on; before, nothing changes.
    """
    import torch

    place: Any = getattr(torch.backends.mkldnn, "matmul", None)
    return setting(place, "bf16") if hasattr(place, "fp32_precision") else contextlib.nullcontext()


@contextlib.contextmanager
def allowing_tf32(allowed: bool) -> Iterator[None]:
    """The same by the names that torch had before 2.9."""
    import torch

    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = allowed
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


@contextlib.contextmanager
def on_cuda(products: str) -> Iterator[None]:
    """What fp32 means on an NVIDIA GPU: `ieee`, or `tf32`, which torch takes for convolutions unless it is told."""
    import torch

    places: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)]
    with contextlib.ExitStack() as stack:
        for place in places:
            if hasattr(place, "fp32_precision"):
                stack.enter_context(setting(place, products))
            elif place is torch.backends.cuda.matmul:  # before torch 2.9
                stack.enter_context(allowing_tf32(products == "tf32"))
        yield


def is_exact_by_onednn() -> bool:
    """Whether oneDNN's fp32 products are fp32 here: computed, not timed, since a new release may take bf16 for them."""
    import torch

    if not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(256, 384, generator=draw), torch.randn(384, 512, generator=draw)
    true = a.double() @ b.double()
    with by_onednn():
        found = (a @ b).double()
    return float((found - true).abs().max() / true.abs().max()) < EXACT
