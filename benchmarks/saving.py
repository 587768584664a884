"""How long a checkpoint keeps the loop waiting."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import rows, training
from benchmarks.measures import BATCH
from benchmarks.ours import hubtune
from benchmarks.peers import Job

UNIT = 440e6
"""The weights of a model of 110 million parameters."""


def one(data: str, steps: int, seconds_between: float) -> dict[str, Any]:
    """Wall milliseconds of the saves of a short training, after the first; and the bytes that one writes."""
    from hubtune.training.loop import Loop

    own, stalls, written = Loop.save, [], [0]

    def save(loop: Loop, *given: Any) -> None:
        written.append(newest(loop.checkpoints))
        start = time.perf_counter()
        own(loop, *given)
        stalls.append(1e3 * (time.perf_counter() - start))

    Loop.save = save  # type: ignore[method-assign]
    texts = rows.read(data)
    job = Job(training.default_model(), rows.drawn(texts.train, steps * BATCH, 0), texts.classes, steps, 0, training.RATE)
    hubtune(job, save_minutes=seconds_between / 60)
    if len(stalls) < 3:
        raise AssertionError(f"only {len(stalls)} saves in {steps} steps")
    size = max(written)
    stall = statistics.median(stalls[1:])
    return {"saves": len(stalls), "bytes": size, "stall_ms": stall, "first_ms": stalls[0], "stall_ms_a_unit": stall * UNIT / size}


def newest(folder: Path) -> int:
    """Bytes of the largest checkpoint that is there."""
    return max((sum(file.stat().st_size for file in place.iterdir()) for place in folder.glob("step-*")), default=0)
