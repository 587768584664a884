"""Look for likely wrong labels: collect labels and features of all rows, and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hubtune.callbacks import Callbacks
from hubtune.contract import ClassificationTask, Task
from hubtune.data.checks import label_errors
from hubtune.data.checks.clean import origin_of
from hubtune.data.checks.examine import Examined
from hubtune.data.checks.label_errors import FOLDS, LabelErrors
from hubtune.data.row_batches import BatchedRows, column_batches
from hubtune.data.streaming import Stream
from hubtune.errors import DataError, RecipeError

if TYPE_CHECKING:
    from hubtune.runs.preparation import Prepared


def judge(
    examined: Examined, task: Task[Any], prepared: Prepared | None, seed: int, callbacks: Callbacks
) -> LabelErrors:
    """Find labels that are likely wrong, in the rows of all splits; of several per row, also missing ones.

    Args:
        prepared: with the base model whose frozen features are used; None: TF-IDF of the texts.

    Raises:
        RecipeError: the task or its data has no labels of rows, or no texts.
        DataError: too few rows of each label.
    """
    names, labels, splits = labels_of(examined, task)
    inputs = np.concatenate([examined.scans[split].inputs for split in names])
    several = any(len(of_row) != 1 for of_row in labels)
    ordered = label_errors.judged_labels(labels, inputs, several)
    if len(ordered) < (1 if several else 2):
        needed = (f"a label that {FOLDS} different inputs have and {FOLDS} have not; the data has none" if several else
                  f"2 labels with {FOLDS} different inputs each; the data has {len(ordered)}")
        raise DataError(f"wrong labels can be found from {needed}.", hint="Leave --label-errors out, or give more rows.")
    whole = np.array([set(of_row) <= set(ordered) for of_row in labels], bool)
    chosen = np.arange(len(labels)) if several else np.flatnonzero(whole)
    if prepared is None:
        texts = texts_of(examined, task, names)
        features: Any = [texts[row] for row in chosen]
        method = "logistic regression on TF-IDF of letters and words"
    else:
        features = model_features(examined, prepared, names, callbacks)[chosen]
        method = f"logistic regression on the mean features of {prepared.origin.repo}, frozen"
    callbacks.on_info(f"looking for wrong labels: {method}, {FOLDS} folds")
    find: Any = label_errors.find_several if several else label_errors.find
    judged = [labels[row] if several else labels[row][0] for row in chosen]
    found = find(features, judged, ordered, inputs[chosen], seed)
    places = {}
    for split in names:
        origin = origin_of(examined.data, split, examined.lines)
        numbers = origin.numbers_of(range(len(examined.data.splits[split])))
        places[split] = (numbers, origin.lines_of(numbers))
    return LabelErrors(
        f"{method}, predicted out of fold ({FOLDS} folds)", len(chosen), int((~whole).sum()),
        label_errors.suspects(found, places, [splits[row] for row in chosen]))


def labels_of(
    examined: Examined, task: Task[Any]
) -> tuple[list[str], list[Sequence[str]], list[tuple[str, int]]]:
    """Return the labelled splits, the labels of every row of them, and its split and position.

    Raises:
        RecipeError: rows have no labels, or numbers; or they are streamed.
    """
    if not isinstance(task, ClassificationTask):
        raise RecipeError(f"--label-errors needs a task with labels of rows; '{task.name}' has none.",
                          hint="Leave --label-errors out.")
    names, labels, splits = list[str](), list[Sequence[str]](), list[tuple[str, int]]()
    for split, rows in examined.data.splits.items():
        if isinstance(rows, Stream):
            raise RecipeError("--label-errors reads all rows, so the data cannot be streamed.",
                              hint="Leave data.stream or --label-errors out.")
        if examined.data.checks.get("unlabelled", {}).get(split):
            continue
        found = task.row_labels(BatchedRows(rows), examined.dataset_info)
        if len(found) != len(rows):
            raise RecipeError(f"--label-errors needs labels of rows; '{task.name}' tells none of the rows of {split}: they are "
                              "numbers, or labels of parts.", hint="Leave --label-errors out.")
        names.append(split)
        labels += found
        splits += [(split, index) for index in range(len(rows))]
    return names, labels, splits


def texts_of(examined: Examined, task: Task[Any], names: list[str]) -> list[str]:
    """Return the texts of every row, joined.

    Raises:
        RecipeError: the inputs are no texts.
    """
    given = [column for column in task.columns if not column.target]
    if any(column.kind != "text" for column in given if column.needed == "always"):
        raise RecipeError(f"without a model, wrong labels are found in texts only, and '{task.name}' reads others.",
                          hint="Name a model whose features are used: --model ORG/NAME")
    texts: list[str] = []
    for split in names:
        rows = examined.data.splits[split]
        roles = [column.role for column in given if column.kind == "text" and column.role in rows.column_names]
        for batch in column_batches(rows):
            texts += ["\n".join(str(value or "") for value in values)
                      for values in zip(*(batch[role] for role in roles), strict=True)]
    return texts


def model_features(
    examined: Examined, prepared: Prepared, names: list[str], callbacks: Callbacks
) -> NDArray[np.float32]:
    """Compute the mean of the base model's last hidden states for every row, (rows, width)."""
    from hubtune.data import encoding
    from hubtune.evaluation.batches import batch_indices, evaluation_mode, make_batch
    from hubtune.evaluation.model_checks import depends_on_padding
    from hubtune.models import loading
    from hubtune.runs.predictions.opening import move_to_best_device

    task, base = prepared.task, prepared.base
    model = move_to_best_device(loading.load(prepared.origin, base, task, prepared.strategy, seed=0).model)
    parts = []
    for split in names:
        encoded = encoding.encode(task, examined.data.splits[split], base, base.max_length)
        uniform = len(encoded.examples) > 1 and depends_on_padding(model, task, base, encoded)
        callbacks.on_progress_start(f"features of {split}", len(encoded.examples))
        by_example: dict[int, NDArray[np.float32]] = {}
        with evaluation_mode(model):
            for items in batch_indices(model, encoded.sizes, uniform):
                batch = make_batch(model, task, [encoded.examples[item] for item in items], base)
                by_example.update(zip(items, mean_states(model, batch.inputs), strict=True))
                callbacks.on_progress(len(items))
        callbacks.on_progress_end()
        parts += [np.mean([by_example[item] for item in items], axis=0) for items in encoded.examples_by_row()]
    return np.stack(parts)


def mean_states(model: Any, inputs: dict[str, Any]) -> NDArray[np.float32]:
    """Return the mean of the last hidden states over the places that are no padding, (examples, width).

    Raises:
        RecipeError: the model's backbone has no hidden states.
    """
    states = getattr(model.base_model(**inputs), "last_hidden_state", None)
    if states is None:
        raise RecipeError(f"the backbone of {type(model).__name__} gives no hidden states, so its features cannot be used.",
                          hint="Leave --model out, or name another model.")
    if states.ndim == 4:  # of a convolution: (examples, channels, height, width)
        states = states.flatten(2).transpose(1, 2)
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != states.shape[:2]:
        return np.asarray(states.mean(1).float().cpu())
    weights = mask.unsqueeze(-1).to(states.dtype)
    return np.asarray(((states * weights).sum(1) / weights.sum(1).clamp(min=1)).float().cpu())
