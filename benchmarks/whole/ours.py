"""`hubtune` itself, with a clock on its steps: `python -m benchmarks.whole.ours train ...`."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measures import device_figures
from hubtune.cli.console import ConsoleCallbacks

marks: list[tuple[float, bool]] = []
"""When a step ended; whether a validation and a save stood before it."""
between = [False]
progress, evaluate = ConsoleCallbacks.on_progress, ConsoleCallbacks.on_evaluate


def on_progress(self: ConsoleCallbacks, units: int, **metrics: Any) -> None:
    """Mark a step. The trial before the training reports none."""
    if "loss" in metrics:
        marks.append((time.perf_counter(), between[0]))
        between[0] = False
    progress(self, units, **metrics)


def on_evaluate(self: ConsoleCallbacks, record: dict[str, Any], best: bool) -> None:
    """Leave the next step out, since it waited for a validation."""
    between[0] = True
    evaluate(self, record, best)


if __name__ == "__main__":
    from hubtune.cli.commands import main

    ConsoleCallbacks.on_progress, ConsoleCallbacks.on_evaluate = on_progress, on_evaluate  # type: ignore[method-assign]
    code = main()
    spans = [later[0] - earlier[0] for earlier, later in itertools.pairwise(marks) if not later[1]]
    Path(os.environ["BENCH_MARKS"]).write_text(
        json.dumps({"spans": spans, "steps": len(marks), **device_figures()}), encoding="utf-8")
    sys.exit(code)
