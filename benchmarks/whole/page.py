"""The section of docs/performance.md on whole commands."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import spread, table

Record = dict[str, Any]
READ = """\
Each command is a process of its own, and the ways take turns, round after round: `hubtune train` with its defaults, which validates after
each epoch, scores with intervals, and proves the saved model in a clean process, beside a script as the peer's documentation has it,
which trains and saves: bf16, `group_by_length` where the trainer can, fused AdamW, padding to the longest of a batch. The same rows,
steps, batch size, learning rate, epochs and base model; hubtune's head learns no faster (`strategy.head_rate=1`). Medians; in brackets the
least and the most. Ratios above 1 say how many times hubtune is as fast as the fastest peer, and what its memory is of the peer's.

- **row ms**: wall milliseconds of the training steps but the first, and without validations, a row learned.
- **command**: wall seconds from start to end. **peak**: the most resident memory of the process itself; **children**: of a process that it started.
- **loss**: mean of the last quarter of the steps; a packed batch weighs tokens in another way, LoRA and dropout draw other numbers."""


def read_section(path: Path) -> list[str]:
    """Return the parts of the section from the results of `python -m benchmarks.whole`; empty without them."""
    return section(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def section(found: Sequence[Record]) -> list[str]:
    """Return the parts of the section; empty where nothing was measured."""
    measured = [record for record in found if "way" in record]
    if not measured:
        return []
    on = found[0]["machine"]
    rounds = len({record["seed"] for record in measured})
    loads = [record["load"] for record in measured]
    words = (f"{on['date']}, {on['cpu']}, {on['cores']} cores, bf16: {on['bf16']}, {found[0]['threads']} threads, load average before each "
             f"{min(loads)} to {max(loads)}; torch {on['torch']}, transformers {on['transformers']}, hubtune {on['commit']}. Rounds: {rounds}.")
    return ["## Whole commands on all cores", READ, words, table_of(measured)]


def table_of(found: Sequence[Record]) -> str:
    """Return a line for every row and way."""
    measured = [record for record in found if "way" in record]
    lines = []
    for name, way in dict.fromkeys((record["row"], record["way"]) for record in measured):
        own = [record for record in measured if (record["row"], record["way"]) == (name, way)]

        def of(key: str, unit: float = 1.0, own: list[Record] = own) -> str:
            return spread([record[key] / unit for record in own])

        rows = " or ".join(dict.fromkeys(f"{record['rows']} x {record['epochs']}" for record in own))
        lines.append([name, way, rows, of("row_ms"), of("step_ms"), of("seconds"), of("peak_bytes", 2**20),
                      of("children_bytes", 2**20), f"{statistics.median(record['loss'] for record in own):.3f}"])
    head = ("row", "way", "rows x epochs", "row ms", "step ms", "command s", "peak MiB", "children MiB", "loss")
    return "\n\n".join(part for part in (ratios_of(measured), table(head, lines)) if part)


def ratios(measured: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return for every row with both: steps, command and memory, against the best peer of each."""
    found = {}
    for name in dict.fromkeys(record["row"] for record in measured):
        middle = {way: {key: statistics.median(record[key] for record in measured if (record["row"], record["way"]) == (name, way))
                        for key in ("row_ms", "seconds", "peak_bytes")}
                  for way in dict.fromkeys(record["way"] for record in measured if record["row"] == name)}
        ours = middle.pop("hubtune", None)
        if ours and middle:
            best = {key: min(peer[key] for peer in middle.values()) for key in ours}
            found[name] = {"steps": best["row_ms"] / ours["row_ms"], "command": best["seconds"] / ours["seconds"],
                           "memory": ours["peak_bytes"] / best["peak_bytes"]}
    return found


def ratios_of(measured: Sequence[Record]) -> str:
    """Return the ratios as a table; empty where no row has both."""
    lines = [[name, *(f"{value:.2f}" for value in of.values())] for name, of in ratios(measured).items()]
    return table(("row", "steps", "whole command", "peak memory"), lines) if lines else ""
