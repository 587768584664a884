"""Clocks of a training, products of matrices, memory, and the machine that all of it ran on."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
BATCH = 16


@dataclass
class Steps:
    """What every step of a training took and gave, one entry a step; tokens without padding."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def mark(self) -> None:
        """A step has ended."""
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    def figures(self) -> dict[str, float]:
        """Of all steps but the first, in which libraries prepare their kernels. A step without a gradient is no step."""
        if not self.norms or not all(norm > 0 for norm in self.norms):
            raise AssertionError(f"steps without a gradient: {self.norms}")
        rows = (len(self.cpu) - 1) * BATCH
        cpu, wall, tokens = self.cpu[-1] - self.cpu[0], self.wall[-1] - self.wall[0], sum(self.tokens[1 : len(self.cpu)])
        return {
            "rows": rows, "tokens_a_row": tokens / rows, "cpu_ms": 1e3 * cpu / rows, "wall_ms": 1e3 * wall / rows,
            "tokens_a_second": tokens / cpu, "loss": statistics.fmean(self.losses[-5:]), "norm": statistics.fmean(self.norms),
        }


@contextlib.contextmanager
def clock(found: dict[str, float]) -> Any:
    """CPU and wall seconds of what stands inside."""
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    found |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def gemm() -> dict[str, float]:
    """GFLOP a CPU second of a product of 256 x 384 and 384 x 1536, a layer of MiniLM: in bf16, and in fp32 by the faster way that is exact."""
    import torch

    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=draw) for shape in ((256, 384), (384, 1536)))
    true = a.double() @ b.double()

    def of(dtype: Any) -> tuple[float, float]:
        x, y = a.to(dtype), b.to(dtype)
        best = float("inf")
        for _ in range(12):
            start = time.process_time()
            for _ in range(4):
                product = x @ y
            best = min(best, (time.process_time() - start) / 4)
        return 2 * a.numel() * b.shape[1] / best / 1e9, float((product.double() - true).abs().max() / true.abs().max())

    products: Any = torch.backends.mkldnn.matmul
    found = {"bf16": of(torch.bfloat16)[0], "fp32": of(torch.float32)[0]}
    before, products.fp32_precision = products.fp32_precision, "bf16"
    with contextlib.suppress(RuntimeError):
        speed, error = of(torch.float32)
        found["fp32 by oneDNN"] = speed
        found["fp32"] = max(found["fp32"], speed if error < 2e-6 else 0.0)
    products.fp32_precision = before
    return found


def device_figures() -> dict[str, float]:
    """Return the peak memory of the GPU in bytes, and the operations per second of a large bf16 product, of this process."""
    import torch

    on_gpu = torch.cuda.is_available()
    found: dict[str, float] = {"gpu_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
    size, device = (8192, "cuda") if on_gpu else (512, "cpu")
    one, other = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(6):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(4):
            one @ other
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 4)
    return {**found, "product_flops": 2 * size**3 / best}


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of another process, 0.0 where it is gone; about its wall time on an idle machine, without waits."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    said = dict(reversed([line.split(":", 1) for line in lines if ":" in line]))
    said = {key.strip(): value.strip() for key, value in said.items()}
    flags = set(said.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = [said.get("model name") or platform.processor() or platform.machine()]
    model += [f"family {said['cpu family']}, model {said['model']}"] if "cpu family" in said else []
    return {
        "cpu": "; ".join(model), "cores": os.cpu_count(), "memory": round(memory),
        "bf16": "AMX" if "amx_bf16" in flags else "AVX-512" if "avx512_bf16" in flags else "no instructions",
        "python": platform.python_version(), **{name: version_of(name) for name in ("torch", "transformers", "peft", "hubtune")},
        "commit": commit(), "load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit that was measured, with a plus where files differ from it; empty without git."""
    try:
        name, changed = (subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True, check=True).stdout.strip() for words in
                         (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "hubtune", "plugins")))
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")
