"""The page of the checks and measurements on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu import made
from benchmarks.report import table
from benchmarks.whole.table import Row

Record = dict[str, Any]
READ = """\
Each way is a process of its own, one after the other: `hubtune train` with its defaults in bf16, beside Trainer (bf16, `group_by_length`, fused
AdamW, SDPA, with and without `torch.compile`) or TRL (with and without packing, `padding_free`). Made rows with log-normal lengths, random weights,
the same rows, steps, batch and rate. Tokens are real ones. **of a product**: 6 operations (LoRA: 4) a token and parameter beside the embeddings,
without attention's own, as a share of what a large bf16 product reaches in the same process. **memory**: the most that tensors held on the GPU.
Steps are medians. **loss**: mean of the last quarter of the steps."""


def work(row: Row, folder: Path, base: Path) -> dict[str, float]:
    """Return the tokens of a mean row and the operations of a token."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    tokens = sum(len(" ".join(line[key] for key in ("text", "prompt", "completion") if key in line).split()) for line in lines)
    factor = 4 if row.strategy == "lora" else 6
    return {"tokens_a_row": tokens / len(lines), "operations_a_token": factor * made.product_parameters(base)}


def page(found: Record) -> str:
    """Return the page of everything that was found."""
    on = found["machine"]
    words = (f"{on['date']}, {on['device']}, {on['cpu']}, {on['cores']} cores; Python {on['python']}, torch {on['torch']}, "
             f"transformers {on['transformers']}, hubtune {on['commit'] or on['hubtune']}.")
    parts = ["# hubtune on a GPU", words]
    if found["checks"]:
        lines = [(name.replace("_", " "), one["result"], one["words"], one["seconds"]) for name, one in found["checks"].items()]
        parts += ["## Checks", table(("check", "result", "seen", "seconds"), lines)]
    if found["bench"]:
        parts += ["## Training beside its peers", READ, bench_table(found["bench"])]
    if found["not_run"]:
        parts.append(f"Not run, since the time was over: {', '.join(found['not_run'])}.")
    return "\n\n".join(parts) + "\n"


def bench_table(records: list[Record]) -> str:
    """Return a line for every measurement."""
    lines = []
    for record in records:
        if "failed" in record:
            lines.append([record["row"], record["way"], "failed: " + record["failed"].replace("|", "/"), "", "", "", "", ""])
            continue
        # The median, since a compiler compiles in some steps.
        step = record["median_step_ms"]
        speed = 1e3 * record["tokens_a_row"] * record["rows"] / record["steps"] / step
        share = speed * record["operations_a_token"] / record["product_flops"]
        memory = record.get("gpu_bytes", record["peak_bytes"]) / 2**20
        lines.append([record["row"], record["way"], f"{step:.1f}", f"{speed:,.0f}", f"{100 * share:.0f}%",
                      f"{memory:,.0f}", f"{record['seconds']:.0f}", f"{record['loss']:.3f}"])
    return table(("row", "way", "step ms", "tokens a second", "of a product", "memory MiB", "command s", "loss"), lines)
