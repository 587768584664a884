"""The cut of steps into micro-batches, beside others: `python -m benchmarks.cuts`.

A micro-batch costs its padded tokens and an overhead (`hubtune.devices.device.choose`). This trains the same
steps with other overheads, in one process and interleaved, for the tasks of `benchmarks.whole` and several
strategies, and prints how much slower the default cut is than the fastest one that was found.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.whole import bases, data
from benchmarks.whole.table import BY_NAME, Row

OVERHEADS = (0, 16, 64, 256, 1024, 10**9)
"""Overheads that are tried, in tokens: from one micro-batch for each length to one for each step."""


def measured(row: Row, strategy: str, sampler: str, count: int, cache: Path, steps: int, clock: Any) -> tuple[int, dict[int, list[tuple[float, int]]]]:
    """Return the default overhead of a row of the table, and what `measure` finds."""
    from hubtune.devices import device

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        loop = open_loop(row, strategy, sampler, count, cache, Path(folder))
        stack.callback(loop.close)
        stack.enter_context(device.device_settings(loop.context.compute))
        return loop.context.compute.overhead, measure(loop, steps, clock)


def open_loop(row: Row, strategy: str, sampler: str, count: int, cache: Path, folder: Path) -> Any:
    """Return the training loop of a row of the table, before its first step."""
    from hubtune.callbacks import Callbacks
    from hubtune.devices import device, memory
    from hubtune.recipe import build
    from hubtune.runs import preparation, stages
    from hubtune.training.loop import Loop

    train = {"epochs": 50.0, "batch_size": row.batch_size, "learning_rate": row.lr / 10, "precision": "bf16", "sampler": sampler,
             "max_length": row.max_length, "verify": False}
    if row.task in ("image-classification", "automatic-speech-recognition"):
        del train["max_length"]
    recipe = build({
        "task": {"name": row.task}, "model": {"id": str(bases.make(row.base, cache))}, "strategy": {"name": strategy},
        "data": {"source": str(data.make(row.data, count, cache))}, "train": train,
    })
    prepared, _ = preparation.prepare(recipe, Callbacks(), None)
    memory.resume_collection()
    settings = prepared.settings
    compute = device.choose(settings.precision, settings.kernels)
    prepared, context = stages.load_model(folder, prepared, compute, resume=False)
    return Loop(dataclasses.replace(context, checkpoints=False), Callbacks())


def measure(loop: Any, steps: int, clock: Any) -> dict[int, list[tuple[float, int]]]:
    """Return seconds and micro-batches of each step by overhead, cut anew for each."""
    context, found = loop.context, {overhead: [] for overhead in OVERHEADS}
    for step in range(steps + 1):
        examples = loop.sampler.examples(loop.sampler.rows(step))
        seen: dict[str, tuple[float, int]] = {}
        order = OVERHEADS if step % 2 else OVERHEADS[::-1]
        for overhead in order:
            context.compute = dataclasses.replace(context.compute, overhead=overhead)
            cut = json.dumps(loop.accumulation.batcher.divide(examples))
            if cut not in seen:  # the same cut has the same cost
                loop.state.start_step(step)
                loop.forward_backward(step, examples)  # compiles products for the shapes of this cut
                loop.state.optimizer.zero_grad(set_to_none=True)
                begun = clock()
                result = loop.forward_backward(step, examples)
                seen[cut] = clock() - begun, result.micro_batches
                loop.state.optimizer.zero_grad(set_to_none=True)
            if step:
                found[overhead].append(seen[cut])
    return found


def main() -> None:
    """Measure rows of the table with strategies, and print a line for each."""
    given = argparse.ArgumentParser(description=main.__doc__)
    given.add_argument("--rows", nargs="+", default=list(BY_NAME), choices=list(BY_NAME))
    given.add_argument("--strategies", nargs="+", default=["full", "lora", "head"])
    given.add_argument("--samplers", nargs="+", default=["length-bucketed", "random"])
    given.add_argument("--steps", type=int, default=12)
    given.add_argument("--scale", type=float, default=0.4, help="share of the table's rows of data")
    given.add_argument("--threads", type=int, default=0, help="0: all cores")
    given.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu on a busy machine, with one thread")
    given.add_argument("--cache", type=Path, default=Path("runs/bench-whole"))
    given.add_argument("--out", type=Path, help="a JSON file of the figures")
    chosen = given.parse_args()
    import torch

    from hubtune.errors import HubtuneError

    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    clock = time.perf_counter if chosen.clock == "wall" else time.process_time
    lines = []
    sys.stdout.write("| row | strategy | order | ms a step: default cut | best cut | its overhead | default / best | micro-batches |\n"
                     "|---|---|---|--:|--:|--:|--:|---|\n")
    for name in chosen.rows:
        for strategy in chosen.strategies:
            for sampler in chosen.samplers:
                row = BY_NAME[name]
                try:
                    count = max(48, int(row.rows * chosen.scale))
                    default, found = measured(row, strategy, sampler, count, chosen.cache, chosen.steps, clock)
                except HubtuneError as error:
                    sys.stdout.write(f"| {name} | {strategy} | {sampler} | {error.message} |\n")
                    continue
                means = {overhead: 1e3 * statistics.fmean(seconds for seconds, _ in steps) for overhead, steps in found.items()}
                parts = {overhead: round(statistics.fmean(count for _, count in steps), 1) for overhead, steps in found.items()}
                best = min(means, key=lambda overhead: means[overhead])
                lines.append({"row": name, "strategy": strategy, "sampler": sampler, "default": default,
                              "ms": means, "micro_batches": parts})
                sys.stdout.write(f"| {name} | {strategy} | {sampler} | {means[default]:.1f} | {means[best]:.1f} | {best} | "
                                 f"{means[default] / means[best]:.2f} | {parts[default]} of {parts[0]} to {parts[10**9]} |\n")
                sys.stdout.flush()
    if chosen.out:
        chosen.out.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
