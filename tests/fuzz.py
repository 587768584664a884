"""Inputs at random: how many are tried, in the same order each time, none for longer than damaged input may take.

`HUBTUNE_FUZZ_EXAMPLES=1000` tries more than the suite does; `HUBTUNE_FUZZ_REPORT=FILE` appends what came of them, as a
line of JSON for each test, which `python -m benchmarks.fuzz` prints as a table.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="inputs at random come with: pip install 'hubtune[testing]'")

SECONDS = 60
"""That a call with damaged input takes at most."""


class Hang(AssertionError):
    """A call with damaged input did not end in time."""


def try_many(kind: str, call: Callable[[Any], object], inputs: Any, few: int, share: float = 1.0) -> None:
    """Call a function with inputs at random; a failure is shrunk, and raised.

    Args:
        kind: of the inputs, for the report.
        call: Raises where one is neither used nor refused as it should be.
        inputs: A strategy of hypothesis.
        few: Inputs that the suite tries.
        share: Of the inputs that are asked for, those that a slow call gets.
    """
    asked = os.environ.get("HUBTUNE_FUZZ_EXAMPLES")
    counts = {"inputs": 0, "hangs": 0, "tracebacks": 0}
    start, longest = time.monotonic(), 0.0

    @hypothesis.settings(
        max_examples=max(4, int(int(asked) * share)) if asked else few, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink])
    @hypothesis.given(inputs)
    def try_one(value: Any) -> None:
        nonlocal longest
        counts["inputs"] += 1
        began = time.monotonic()
        try:
            with in_time():
                call(value)
        except Exception as error:
            counts["hangs" if isinstance(error, Hang) else "tracebacks"] += 1
            raise
        finally:
            longest = max(longest, time.monotonic() - began)

    gc.unfreeze()  # after a command in this process, hypothesis on Python 3.14 warns that nothing refers to its generator
    try:
        try_one()
    finally:
        report({"kind": kind, **counts, "seconds": time.monotonic() - start, "longest": longest})


def report(found: dict[str, Any]) -> None:
    """Append a line to the report, where one is wanted."""
    if path := os.environ.get("HUBTUNE_FUZZ_REPORT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Fail where a block takes longer than damaged input may."""
    def stop(*_: Any) -> None:
        raise Hang(f"it took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
