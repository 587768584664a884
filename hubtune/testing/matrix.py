"""Every task with every strategy on tiny models: which pairs work, which do not, and which do not apply.

A pair is trained for a few steps in the real engine, saved, and loaded again in one fresh process without hubtune.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, Strategy, Task
from hubtune.contract.registry import Registry, unavailable
from hubtune.errors import DataError, HubtuneError, MissingExtra, ProofError
from hubtune.recipe import PluginChoice
from hubtune.testing.bench import Bench, calm
from hubtune.testing.fixtures import fixture_for
from hubtune.testing.watched import Declined

ROWS, STEPS = 12, 2
Result = Literal["pass", "fail", "not-applicable"]
RESULTS: tuple[Result, ...] = ("pass", "fail", "not-applicable")


@dataclass
class Cell:
    """One task with one strategy. model: the type of the tiny model. reason: why it fails or does not apply."""

    task: str
    strategy: str
    model: str | None = None
    result: Result = "pass"
    reason: str | None = None
    seconds: float = 0.0

    def set(self, result: Literal["fail", "not-applicable"], reason: str | BaseException) -> None:
        """Record the result of a cell, with the reason in one line."""
        if isinstance(reason, HubtuneError):
            reason = reason.message
        elif isinstance(reason, BaseException):
            reason = f"{type(reason).__name__}: {reason}" if not isinstance(reason, AssertionError) else str(reason)
        self.result, self.reason = result, " ".join(reason.split())[:400]


def check(plugins: Registry, callbacks: Callbacks | None = None, names: Iterable[str] = ()) -> dict[str, Any]:
    """The document that `hubtune plugins --check --json` prints. names: only cells with one of these tasks or strategies."""
    wanted, callbacks = set(names), callbacks or Callbacks()
    cells = [
        Cell(task, label) for task in sorted(plugins.tasks) for label in labels(plugins)
        if not wanted or {task, label, chosen(plugins, label).name} & wanted
    ]
    callbacks.on_progress_start("checking", len(cells))
    with tempfile.TemporaryDirectory(prefix="hubtune-check-") as temporary, calm():
        saved: list[tuple[Cell, Any]] = []
        for task in dict.fromkeys(cell.task for cell in cells):
            row = [cell for cell in cells if cell.task == task]
            saved += check_task(plugins, row, Path(temporary) / task, callbacks)
            found = Counter(cell.result for cell in row)
            callbacks.on_info(f"{task}: " + ", ".join(f"{found[result]} {result}" for result in RESULTS if found[result]))
        if saved:
            callbacks.on_info(f"loading {len(saved)} models in a fresh process without hubtune")
            prove(saved)
    callbacks.on_progress_end()
    counts = Counter(cell.result for cell in cells)
    return {"contract": CONTRACT, "cells": [asdict(cell) for cell in cells], "counts": {r: counts[r] for r in RESULTS}}


def labels(plugins: Registry) -> list[str]:
    """Every strategy by name; one with variants once for each of them, as `peft[oft]`."""
    found = []
    for name, kind in sorted(plugins.strategies.items()):
        variants = {} if unavailable(kind) else kind.variants()
        found += [f"{name}[{variant}]" for variant in variants] or [name]
    return found


def chosen(plugins: Registry, label: str) -> PluginChoice:
    """The strategy of a label, with the options of its variant."""
    name, _, variant = label.rstrip("]").partition("[")
    return PluginChoice(name, plugins.strategies[name].variants()[variant] if variant else {})


def check_task(plugins: Registry, cells: Sequence[Cell], place: Path, callbacks: Callbacks) -> list[tuple[Cell, Any]]:
    """One task with all its strategies; what was saved, to be proven."""
    saved = []
    bench: Bench | Exception | None = None
    for cell in cells:
        begun = time.monotonic()
        try:
            choice = chosen(plugins, cell.strategy)
            reason = unavailable(plugins.tasks[cell.task]) or unavailable(plugins.strategies[choice.name])
            if reason:
                cell.set("not-applicable", reason)
                continue
            bench = bench or set_up(plugins.task(PluginChoice(cell.task)), place)
            if isinstance(bench, Exception):
                cell.set("not-applicable" if isinstance(bench, DataError) else "fail", bench)
                continue
            cell.model = bench.base.config.model_type
            strategy = plugins.strategy(choice)
            reason = strategy.refuse(bench.task, bench.base.config)
            if reason is not None:
                cell.set("not-applicable", reason)
                continue
            saved.append((cell, trained(bench, strategy, place / cell.strategy)))
        except (Declined, MissingExtra) as error:
            cell.set("not-applicable", error)
        except Exception as error:  # of a plugin or a library: it is this cell's result
            cell.set("fail", error)
        finally:
            cell.seconds = round(time.monotonic() - begun, 3)
            callbacks.on_progress(1)
    return saved


def set_up(task: Task[Any], place: Path) -> Bench | Exception:
    """The task on a tiny model, and its loss is a sum; or why not, which is the result of all its cells. A DataError: it needs
    options that nobody has given here."""
    from hubtune.testing.models import tiny_for
    from hubtune.testing.sums import sums

    try:
        rows = fixture_for(task).sample(task, ROWS)
        bench = Bench(task, tiny_for(task, place / "tiny", rows=rows), rows)
        sums(bench, bench.uniform)
        return bench
    except Exception as error:  # of a plugin or a library
        return error


def trained(bench: Bench, strategy: Strategy[Any], place: Path) -> Any:
    """Train a few steps under watch, and save: a `proof.Saved`. Raises where something is wrong."""
    from hubtune.evaluation import verification
    from hubtune.models import saving
    from hubtune.testing.bench import ensure
    from hubtune.testing.watched import learn

    bench.__dict__.pop("own", None)  # a strategy may have changed the configuration
    learnt = learn(bench, strategy, max(STEPS, len(strategy.phases())), place / "run", rows=4)
    learnt.watched.check()
    seen = place / "proof.safetensors"
    model = learnt.outcome.model
    verification.record_outputs(model, bench.task, bench.base, bench.part(4), seen, bench.uniform)
    export = strategy.export(learnt.outcome.model)
    ensure(export.loads_with == strategy.loads_with,
           f"the class says loads_with={strategy.loads_with!r}, its export {export.loads_with!r}.", "`loads_with`, `export`")
    saving.save(export, bench.own, place / "model", bench.origin, bench.task.files(bench.own))
    setup = bench.task.model_config(bench.dataset_info, bench.own)
    return verification.SavedModel(
        place / "model", bench.task.model, export.loads_with, seen, bench.folder, dict(setup.config)
    )


def prove(saved: Sequence[tuple[Cell, Any]]) -> None:
    """Load all that was saved in one fresh process, and compare."""
    from hubtune.evaluation import verification

    try:
        found = verification.verify_models([model for _, model in saved])
    except Exception as error:  # outputs that cannot be compared: looked for by halves, in further processes
        if len(saved) == 1:
            saved[0][0].set("fail", error)
        else:
            prove(saved[: len(saved) // 2])
            prove(saved[len(saved) // 2 :])
        return
    for (cell, _), said in zip(saved, found, strict=True):
        if isinstance(said, ProofError):
            cell.set("fail", said)
