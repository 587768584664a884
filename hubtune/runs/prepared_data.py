"""Load the rows of a run, check them, and encode them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.callbacks import Callbacks
from hubtune.contract import Base, ClassificationTask, ReferenceTask, Rows, Task
from hubtune.data import encoding, splits
from hubtune.data.checks import examine
from hubtune.data.checks.findings import Finding, of_short_rows
from hubtune.data.columns import add_task_columns
from hubtune.data.data_splits import DataSplits
from hubtune.data.dataset import EncodedDataset
from hubtune.data.streaming import Stream, StreamWindows
from hubtune.errors import RecipeError, ResumeError, listing
from hubtune.models import configuration
from hubtune.recipe import Recipe, TrainConfig

READING = ("reading", "short-rows")
"""Kinds of findings on how the files were read."""
Record = Mapping[str, Any]
"""The contents of a `run.json`."""


@dataclass(frozen=True)
class PreparedData:
    """Encoded examples by split, and the rows that are scored.

    rows: of every split but train. row_numbers: the row in the data, from 0, of each row of train.
    windows: of streamed data, those that the train examples are the first of.
    """

    encoded: Mapping[str, EncodedDataset]
    rows: Mapping[str, Rows]
    row_numbers: Sequence[int] | NDArray[np.int64]
    windows: StreamWindows | None = None


Encodings = dict[tuple[Any, ...], tuple[PreparedData, dict[str, Any]]]
"""Encoded rows by what they depend on, but for the data."""


def examine_data(
    recipe: Recipe, task: Task[Any], source: Any, resumed: Record | None
) -> examine.Examined:
    """Load the rows of all splits, clean them, and find everything that is to be said of them.

    Raises:
        ResumeError: the rows are not those that the resumed run began with.
        DataError: the rows cannot be read.
    """
    data = splits.load_splits(recipe.data, task.columns, source)
    if resumed and data.fingerprint != resumed["data"]["fingerprint"]:
        raise ResumeError(
            "the data has changed since the run began: "
            f"{data.fingerprint[:12]} instead of {resumed['data']['fingerprint'][:12]}.",
            hint="Put the old data back to go on, or train anew with --overwrite.",
        )
    names = recipe.data.label_names or data.checks.pop("label_names", [])
    if isinstance(task, ClassificationTask):
        task.label_names = tuple(names)
    elif recipe.data.label_names:
        raise RecipeError(f"'{task.name}' has no labels for data.label_names to name.",
                          hint="Leave data.label_names out.")
    examined = examine.examine(data, task, recipe.data.clean, data.lines)
    examined.report.findings[:0] = [
        *(Finding("reading", "warning", note) for note in data.notes),
        *of_short_rows(data.lines),
        *(Finding(f"unused-{what}", "info", f"{what} not used: {listing(names, 30)}")
          for what, names in (("columns", data.unused_columns), ("splits", data.unused_splits))
          if names)]
    return examined


def cut_splits(recipe: Recipe, task: Task[Any], examined: examine.Examined) -> DataSplits:
    """Return the splits that are trained and scored, and add what is found in them to the report."""
    report = examined.report
    data, inputs = splits.training_splits(
        examined.data, recipe.data, task.columns, recipe.train.seed,
        {split: found.inputs for split, found in examined.scans.items()})
    report.findings += examine.leak_findings(data, inputs, examined.lines)
    absent, report.labels = examine.absent_findings(task, data, examined.dataset_info)
    report.findings += absent
    report.rows = {split: len(rows) for split, rows in data.splits.items()}
    return replace(data, checks={**data.checks, **report.as_record()})


def load_data(
    recipe: Recipe, task: Task[Any], source: Any, resumed: Record | None, callbacks: Callbacks,
    examined: examine.Examined | None = None,
) -> tuple[DataSplits, dict[str, Any]]:
    """Load the rows of all splits, and what the task needs to know about them.

    Args:
        examined: rows that `examine_data` has loaded already.

    Raises:
        ResumeError: the rows are not those that the resumed run began with.
        DataError: rows that cannot be trained on; all problems at once.
    """
    examined = examined or examine_data(recipe, task, source, resumed)
    report = examined.report
    columns = ", ".join(f"{role} <- {name}" for role, name in report.columns.items())
    callbacks.on_info(f"columns: {columns}")
    for done in report.cleaned:
        callbacks.on_info(f"data.clean: {done['text']}")
    for finding in report.findings:
        if finding.kind in READING:  # what follows may come from it
            callbacks.on_warning(finding.text())
    if report.refused:
        raise report.error()
    data = cut_splits(recipe, task, examined)
    data = replace(data, splits={
        split: add_task_columns(found, task) for split, found in data.splits.items()})
    counts = ", ".join(f"{len(found)} {split}" for split, found in data.splits.items())
    callbacks.on_info(f"rows: {counts}")
    for finding in [found for found in report.findings if found.kind not in READING]:
        say = callbacks.on_warning if finding.level == "warning" else callbacks.on_info
        say(finding.text())
    return data, examined.dataset_info


def encode_splits(
    task: Task[Any], data: DataSplits, base: Base, recipe: Recipe, settings: TrainConfig,
    callbacks: Callbacks,
) -> tuple[PreparedData, dict[str, Any]]:
    """Encode all splits; returns the examples, and the lengths for `run.json`.

    Only training rows are truncated at `train.max_length`: predictions read the text up to the
    model's limit, as pipelines do. Of a stream, the first window of train is encoded.
    """
    configuration.set_length_limit(base, base.max_length)
    train, window = data.splits["train"], 0
    if isinstance(train, Stream):
        window = window_size(recipe.data.buffer, settings.batch_size or 1, task, callbacks)
    numbers = row_numbers(data)
    first, lengths = encode_train(task, train, base, settings.max_length, window, callbacks)
    lengths = encoding.number_truncated_rows(lengths, numbers)
    report_lengths(lengths, task.unit, callbacks)
    encoded = {"train": first}
    for split in [name for name in data.splits if name != "train"]:
        callbacks.on_progress_start(f"encoding {split}", len(data.splits[split]))
        encoded[split] = encoding.encode(
            task, data.splits[split], base, base.max_length, callbacks.on_progress)
    callbacks.on_progress_end()
    windows = None
    if isinstance(train, Stream):
        windows = StreamWindows(task, train, base, lengths["max_length"], window, (0, first))
    rows = {split: found for split, found in data.splits.items() if split != "train"}
    return PreparedData(encoded, rows, numbers, windows), lengths


def encode_once(
    encodings: Encodings | None, task: Task[Any], splits: DataSplits, base: Base,
    recipe: Recipe, settings: TrainConfig, callbacks: Callbacks,
) -> tuple[PreparedData, dict[str, Any]]:
    """Encode all splits, unless an earlier call has encoded the same for such a model and task."""
    key = (base.repo, base.commit, repr(recipe.task), recipe.data.fold, settings.max_length, base.max_length)
    if encodings is None:
        return encode_splits(task, splits, base, recipe, settings, callbacks)
    if key not in encodings:
        encodings[key] = encode_splits(task, splits, base, recipe, settings, callbacks)
    return encodings[key]


def encode_train(
    task: Task[Any], rows: Any, base: Base, wanted: int | None, window: int, callbacks: Callbacks
) -> tuple[EncodedDataset, dict[str, Any]]:
    """Encode the training rows, truncated at `wanted` or at a length that the rows suggest.

    window: of a stream, the number of rows that are encoded.
    """
    limit = base.max_length
    if wanted is not None and limit is not None and wanted > limit:
        callbacks.on_warning(f"train.max_length={wanted} is above the model's limit of {limit} "
                             f"tokens; {limit} is used.")
        wanted = limit
    rows = rows.read_range(0, window) if isinstance(rows, Stream) else rows
    callbacks.on_progress_start("encoding train", len(rows))
    return encoding.encode_for_training(task, rows, base, wanted, limit, callbacks.on_progress)


def report_lengths(lengths: dict[str, Any], unit: str, callbacks: Callbacks) -> None:
    """Report the lengths of the training rows, and warn about those that are truncated."""
    truncation = "no truncation"
    if lengths["rows_cut"]:
        truncation = f"truncated at {lengths['max_length']}"
        remedy = "Raise it with --set train.max_length=N"
        if lengths["max_length"] == lengths["limit"]:
            remedy = "The model takes no more: shorten the rows, or tune a model for longer ones"
        callbacks.on_warning(
            f"{lengths['rows_cut']} of {lengths['rows']} rows are {truncation} {unit}: "
            f"{lengths['tokens_cut']} of {lengths['tokens']} {unit} are lost. {remedy}. "
            f"In the data: {encoding.describe_truncated_rows(lengths)}."
        )
    callbacks.on_info(f"{unit.removesuffix('s')} lengths: median {lengths['median']}, "
                      f"max {lengths['longest']} ({truncation})")


def row_numbers(data: DataSplits) -> Sequence[int] | NDArray[np.int64]:
    """Return the row in the data, from 0, of each row of train."""
    train = data.splits["train"]
    if "train" in data.row_numbers:
        return data.row_numbers["train"]
    first = train.first if isinstance(train, Stream) else 0
    return range(first, first + len(train))


def window_size(buffer: int, batch_size: int, task: Task[Any], callbacks: Callbacks) -> int:
    """Return how many rows of a stream are shuffled together: a whole number of steps."""
    if isinstance(task, ReferenceTask):
        raise RecipeError(
            f"'{task.name}' computes outputs of the untrained model for every row before step 0, "
            "so its data cannot be streamed.", hint="Leave data.stream out.")
    callbacks.on_warning(f"streaming: only a buffer of {buffer} rows is shuffled (data.buffer), "
                         "so rows sorted by label stay nearly sorted.")
    return max(1, buffer // batch_size) * batch_size
