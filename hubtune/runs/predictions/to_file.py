"""Predict rows of any number into a file, in windows that are kept, so that a stopped call goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubtune.callbacks import Callbacks
from hubtune.contract import Prediction
from hubtune.errors import HubtuneError
from hubtune.files import flush
from hubtune.runs import run_lock
from hubtune.runs.predictions import computing, parts, records, windows, writers
from hubtune.runs.predictions.opening import OpenedModel
from hubtune.runs.predictions.windows import LoadedRows, StreamedRows


@dataclass(frozen=True)
class Settings:
    """Settings of the prediction of a file; see `Model.predict_file`."""

    keep: Sequence[str] | str = ()
    probabilities: bool = False
    split: str | None = None
    columns: Mapping[str, str] | None = None
    precision: str = "fp32"

    def reading(self, model: OpenedModel, callbacks: Callbacks) -> windows.Reading:
        """Return how the rows are read."""
        keep = self.keep if self.keep == "all" or not isinstance(self.keep, str) else [self.keep]
        return windows.Reading(
            model.task, model.model_record.get("columns", {}), self.columns or {}, keep,
            self.split, callbacks.on_info)


def predict_file(
    model: OpenedModel, data: Any, out: Path, settings: Settings, callbacks: Callbacks
) -> dict[str, Any]:
    """Predict rows into a file; see `Model.predict_file`."""
    computing.check_precision(settings.precision)
    suffix = writers.suffix_of(out)
    kept = parts.Parts(out)
    with run_lock.hold(kept.folder, "the predictions"):
        rows = windows.open_rows(data, settings.reading(model, callbacks))
        writers.refuse_too_many(out, rows.total)
        kept.begin(manifest(model, rows, settings))
        resumed = done_before(kept, rows, callbacks)
        predict_parts(model, rows, kept, settings, callbacks)
        paths = kept.paths
        count = sum(parts.rows_and_input(path)[0] for path in paths)
        callbacks.on_progress_start(f"writing {out.name}", count)
        new = kept.folder / f"whole{suffix}"
        escaped = writers.write(records.Records(paths, settings.probabilities), new, suffix,
                                callbacks.on_progress)
        callbacks.on_progress_end()
        flush(new)
        new.replace(out)
        kept.remove()
    return {"out": str(out), "rows": count, "resumed": resumed, "escaped": escaped}


def manifest(
    model: OpenedModel, rows: LoadedRows | StreamedRows, settings: Settings
) -> dict[str, Any]:
    """Return what has to be the same for a file to be gone on with, by what messages call it."""
    keep = settings.keep if isinstance(settings.keep, str) else list(settings.keep)
    return {"model": model.origin.commit, "task": model.task.name, **rows.identity, "keep": keep,
            "chosen columns": dict(settings.columns or {}), "precision": settings.precision,
            "window": windows.WINDOW}


def done_before(
    kept: parts.Parts, rows: LoadedRows | StreamedRows, callbacks: Callbacks
) -> int:
    """Return the number of rows that are predicted already, and say so."""
    done = sum(parts.rows_and_input(path)[0] for path in kept.paths)
    if done:
        of = f" of {rows.total:,}" if rows.total is not None else ""
        callbacks.on_info(f"going on from {kept.folder}: {done:,}{of} rows are predicted")
    return done


def predict_parts(
    model: OpenedModel, rows: LoadedRows | StreamedRows, kept: parts.Parts, settings: Settings,
    callbacks: Callbacks,
) -> None:
    """Predict the windows that are not kept yet, and keep them."""
    before = kept.paths
    number, seen = len(before), parts.rows_and_input(before[-1])[1] if before else ""
    first = number * windows.WINDOW
    if rows.total is not None and first >= rows.total:
        return
    callbacks.on_progress_start("predicting", rows.total or 0)
    callbacks.on_progress(first)
    try:
        for window in rows.windows(first, seen):
            predictions = predict_window(model, window.rows, settings.precision, callbacks)
            if settings.probabilities:
                records.require_probabilities(predictions, model.task.name)
            kept.write(number, window.kept, predictions, window.seen)
            number += 1
    except BaseException as error:
        if number and not isinstance(error, HubtuneError):
            error.add_note(f"{number * windows.WINDOW:,} rows are kept in {kept.folder}: "
                           "the same command goes on with them")
        raise
    finally:
        callbacks.on_progress_end()


def predict_window(
    model: OpenedModel, rows: Any, precision: str, callbacks: Callbacks
) -> list[Prediction]:
    """Predict the rows of a window, with progress in rows."""
    from hubtune.devices import device

    encoded = computing.encode_rows(model, rows)
    # Chosen by the kind of device, and as for many rows: a window is computed alike in every call.
    compute = device.choose(precision, allowed=("bf16",))
    report, finish = in_rows(len(rows), callbacks.on_progress)
    found = computing.predict_encoded(model, rows, encoded, compute, report)
    finish()
    return computing.shown(model, found)


def in_rows(
    rows: int, on_progress: Callable[[int], None]
) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Return a report of examples, of which long rows have several, as rows; and of the rest of the rows."""
    left = rows

    def report(examples: int) -> None:
        nonlocal left
        units = min(examples, left)
        left -= units
        on_progress(units)

    return report, lambda: on_progress(left)


def predict_stream(
    model: OpenedModel, data: str, settings: Settings, callbacks: Callbacks
) -> Iterator[list[Prediction]]:
    """Yield the predictions of standard input as it comes, some rows at a time."""
    computing.check_precision(settings.precision)
    rows = windows.StreamedRows(data, settings.reading(model, callbacks))
    for window in rows.windows(0, "", as_it_comes=True):
        yield computing.shown(model, computing.predict_rows(
            model, window.rows, "predicting", callbacks, settings.precision))
