"""Which number formats a device has, by speed and by error, and which of them a training gets. The decisions are pure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Probe = Mapping[str, Mapping[str, float]]
"""GFLOP/s and relative error of a matrix product, by format."""

EXACT = 2e-6
"""The largest relative error of a product that still counts as fp32; bf16's is a thousand times larger."""
BROKEN = 0.05
"""A product that is further off is none."""
FASTER = 1.5
"""How many times as fast a less exact format has to be to be taken."""
HALVES = ("tf32", "bf16", "fp16")
"""From the most careful to the least: tf32 rounds the factors, bf16 all, and fp16 overflows beside that."""


@dataclass(frozen=True)
class Format:
    """What products are computed in. onednn: fp32 products by oneDNN; why: what spoke for it, in words."""

    precision: str
    onednn: bool
    why: str


def chosen(wanted: str, probe: Probe, kernels: str = "auto", allowed: Sequence[str] = HALVES) -> Format:
    """The format that was asked for; for `auto`, the least exact of those that pay, each against the one before it."""
    onednn = wanted in ("auto", "fp32") and kernels == "auto" and exact_route(probe)
    if wanted != "auto":
        return Format(wanted, onednn, "asked for")
    best, speed, why = "fp32", probe["fp32 by onednn" if onednn else "fp32"]["gflops"], f"nothing else is {FASTER} times as fast"
    for name in HALVES:
        found = probe.get(name)
        if name in allowed and found and found["error"] < BROKEN and found["gflops"] > FASTER * speed:
            why = f"{found['gflops'] / max(speed, 1e-9):.1f} times as fast as {best}"
            best, speed = name, found["gflops"]
    return Format(best, onednn and best == "fp32", why)


def exact_route(probe: Probe) -> bool:
    """Whether fp32 products go by oneDNN: where that is faster and as exact. On CPUs with AMX it is bf16 in disguise."""
    ours = probe.get("fp32 by onednn")
    return bool(ours and ours["error"] < EXACT and ours["gflops"] > 1.1 * probe["fp32"]["gflops"])


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
    """fp32 products by oneDNN's kernels, which the setting's name does not tell: true fp32 where the CPU has no AMX."""
    import torch

    return setting(torch.backends.mkldnn.matmul, "bf16")  # type: ignore[attr-defined]


@contextlib.contextmanager
def on_cuda(products: str) -> Iterator[None]:
    """What fp32 means on an NVIDIA GPU: `ieee`, or `tf32`, which torch takes for convolutions unless it is told."""
    import torch

    with setting(torch.backends.cuda.matmul, products), setting(torch.backends.cudnn.conv, products):  # type: ignore[attr-defined]
        yield


def measured(device: str) -> dict[str, dict[str, float]]:
    """GFLOP/s of a matrix product in the formats of training, the best of a few, and its error relative to the largest entry."""
    import torch

    rows, inner, columns = (256, 384, 512) if device == "cpu" else (2048, 2048, 2048)  # a GPU has to be filled
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(rows, inner, generator=draw), torch.randn(inner, columns, generator=draw)
    true = a[:256].double() @ b.double()

    def of(dtype: torch.dtype) -> dict[str, float]:
        try:
            x, y = a.to(device, dtype), b.to(device, dtype)
            best = float("inf")
            for _ in range(8):
                start = time.perf_counter()
                for _ in range(4):
                    found = x @ y
                found[0, 0].item()  # a GPU answers when it is done
                best = min(best, time.perf_counter() - start)
            error = float((found[:256].double().cpu() - true).abs().max() / true.abs().max())
            return {"gflops": round(4 * 2 * a.numel() * columns / best / 1e9, 1), "error": float(f"{error:.2g}")}
        except (RuntimeError, TypeError):
            return {"gflops": 0.0, "error": float("inf")}

    found = {"bf16": of(torch.bfloat16)}
    if device == "cpu":
        found["fp32"] = of(torch.float32)
        if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            with by_onednn():
                found["fp32 by onednn"] = of(torch.float32)
    else:
        found["fp16"] = of(torch.float16)
        for name, products in (("fp32", "ieee"), ("tf32", "tf32")) if device == "cuda" else (("fp32", ""),):
            with on_cuda(products) if products else contextlib.nullcontext():
                found[name] = of(torch.float32)
    return found
