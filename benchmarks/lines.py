"""Results as lines of JSON, each written when it is measured: what is there is not measured again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.alone import Failed

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """The lines that measurements left."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def each(path: Path, planned: Iterable[Record], measure: Callable[[Record], Record], say: Callable[[float, Record], None]) -> int:
    """Measure what is planned and has no line yet, and leave its line at once; how many failed.

    planned: arguments, whose values a line repeats. say: is told the seconds since the start, and the line.
    """
    failed, began = 0, time.monotonic()
    for arguments in planned:
        if any(all(record.get(key) == value for key, value in arguments.items()) for record in read(path)):
            continue
        try:
            found = measure(arguments)
        except Failed as error:
            failed += 1
            print(f"failed: {arguments}\n{error}", file=sys.stderr)
            continue
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        say(time.monotonic() - began, found)
    return failed
