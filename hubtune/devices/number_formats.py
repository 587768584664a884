"""Number formats: choose the precision by the kind of device, so that it is reproducible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune.devices import processor

EXACT = 2e-6
"""Maximum relative error of a product that counts as fp32; bf16's is a thousand times larger."""
HALVES = ("bf16", "fp16")
BF16_CAPABILITY, FP16_CAPABILITY = (8, 0), (7, 0)
"""NVIDIA compute capabilities from which tensor cores support bf16 (Ampere) and fp16 (Volta)."""


@dataclass(frozen=True)
class Format:
    """The format of matrix products. onednn: fp32 products by oneDNN; why: the reason."""

    precision: str
    onednn: bool
    why: str


def choose(wanted: str, device_type: str, kernels: str = "auto",
           allowed: Sequence[str] = HALVES) -> Format:
    """Choose the requested format; for `auto`, half precision with native support.

    Args:
        allowed: formats that `auto` may choose besides fp32.
    """
    half, why = half_precision(device_type) if wanted == "auto" else (None, "requested")
    precision = half if half in allowed else "fp32" if wanted == "auto" else wanted
    onednn = (precision == "fp32" and kernels == "auto" and device_type == "cpu"
              and processor.is_faster_by_onednn() and is_exact_by_onednn())
    return Format(precision or "fp32", onednn, why)


def half_precision(device_type: str) -> tuple[str | None, str]:
    """Return the half precision that a device supports natively, and the reason."""
    import torch

    if device_type == "cpu":
        flag = processor.bf16_flag()
        if flag:
            return "bf16", f"the processor has {flag}"
        return None, "the processor has no instructions for bf16"
    if device_type != "cuda":
        return None, f"half precision was not measured on {device_type}"
    capability = torch.cuda.get_device_capability()
    found = None
    if capability >= FP16_CAPABILITY:
        found = "bf16" if capability >= BF16_CAPABILITY else "fp16"
    return found, f"the GPU's compute capability is {capability[0]}.{capability[1]}"


@contextlib.contextmanager
def fp32_precision(place: Any, value: str) -> Iterator[None]:
    """Set a backend's `fp32_precision` until the block ends."""
    before = place.fp32_precision
    place.fp32_precision = value
    try:
        yield
    finally:
        place.fp32_precision = before


def by_onednn() -> contextlib.AbstractContextManager[None]:
    """Compute fp32 products with oneDNN's kernels: true fp32 where the CPU has no AMX.

    The setting is named bf16, but without AMX oneDNN only allows it. torch has it from 2.9 on; with
    older releases nothing changes.
    """
    import torch

    place: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(place, "fp32_precision"):
        return contextlib.nullcontext()
    return fp32_precision(place, "bf16")


@contextlib.contextmanager
def allow_tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid tf32 by the names of torch before 2.9."""
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
    """Set what fp32 means on an NVIDIA GPU: `ieee`, or `tf32` (the default of convolutions)."""
    import torch

    places: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)]
    with contextlib.ExitStack() as stack:
        for place in places:
            if hasattr(place, "fp32_precision"):
                stack.enter_context(fp32_precision(place, products))
            elif place is torch.backends.cuda.matmul:  # before torch 2.9
                stack.enter_context(allow_tf32(products == "tf32"))
        yield


def is_exact_by_onednn() -> bool:
    """Tell whether oneDNN's fp32 products are true fp32 here.

    Computed, since releases may differ.
    """
    import torch

    if not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(256, 384, generator=draw), torch.randn(384, 512, generator=draw)
    true = a.double() @ b.double()
    with by_onednn():
        found = (a @ b).double()
    return float((found - true).abs().max() / true.abs().max()) < EXACT
