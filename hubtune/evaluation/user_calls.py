"""Rows as users ask the published model about them, with the trained model's answers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hubtune.contract import Base, GenerativeTask, Row, Rows, Task, UserCall
from hubtune.contract.validation import checked
from hubtune.data.dataset import EncodedDataset
from hubtune.errors import HubtuneError
from hubtune.evaluation.clean_process import answer, meaning
from hubtune.evaluation.equivalence import relative_difference

if TYPE_CHECKING:
    from torch.nn import Module

CALLS = "calls.json"
LONGEST, SPREAD = 4, 8
"""Rows that are asked: the longest, and others evenly between these and the shortest."""
GENERATED = 3
"""Rows of a task that generates, which takes longer."""
TOLERANCE = 1e-4
"""The largest difference of two numbers in an answer, relative to those above 1."""


def record_answers(
    model: Module, task: Task[Any], base: Base, rows: Rows, encoded: EncodedDataset, folder: Path
) -> int:
    """Write real rows as users ask about them, with the answers of the trained model.

    Args:
        model: as it is published, in memory.
        rows: of validation, and `encoded` the same rows.
        folder: `calls.json` and media are written there; it is not published.

    Returns:
        The number of rows; 0 where the task has no `user_call`, or transformers cannot answer.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if next(model.parameters()).dtype != torch.float32:
        return 0
    folder.mkdir()
    targets = {column.role for column in task.columns if column.target}
    asked = []
    model.eval()
    for number in choose_rows(encoded, GENERATED if isinstance(task, GenerativeTask) else None):
        row = without_targets(task, rows[number], targets)
        found = ask(model, task, base, row, folder, number)
        asked += [] if found is None else [found]
    if not asked:
        shutil.rmtree(folder)
        return 0
    (folder / CALLS).write_text(json.dumps(
        {"meaning": meaning(model, base.processor), "calls": asked}, ensure_ascii=False),
        encoding="utf-8")
    return len(asked)


def choose_rows(encoded: EncodedDataset, most: int | None) -> list[int]:
    """Choose rows: the longest, and others evenly spread by length. most: how many at most."""
    order = encoded.row_sizes().argsort(kind="stable")
    longest = LONGEST if most is None else 1
    spread = SPREAD if most is None else most - longest
    rest = order[: max(0, len(order) - longest)]
    step = max(1, math.ceil(len(rest) / spread)) if spread else 1
    return [int(number) for number in [*order[::-1][:longest], *rest[::step]]]


def without_targets(task: Task[Any], row: Row, targets: set[str]) -> Row:
    """Return what a user knows of a row."""
    known = {role: value for role, value in row.items() if role not in targets}
    return task.question(known) if isinstance(task, GenerativeTask) else known


def ask(
    model: Module, task: Task[Any], base: Base, row: Row, folder: Path, number: int
) -> dict[str, Any] | None:
    """Ask the trained model about a row; returns the call with its answer.

    None where the task does not know how, or transformers fails or answers with what is no number.
    """
    try:
        call = checked(task, "user_call", task.user_call(row, base))
        if call is None:
            return None
        described = describe(call, folder, number)
        found = answer(model, base.processor, task.pipeline_tag, described, folder)
        json.dumps(found, allow_nan=False)
    except HubtuneError:
        raise
    except Exception:  # of any pipeline, for this row: others are asked
        return None
    return {**described, "answer": found}


def describe(call: UserCall, folder: Path, number: int) -> dict[str, Any]:
    """Return a call as JSON; images and arrays are written as files."""
    media: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if not hasattr(value, "save") and not hasattr(value, "dtype"):
            return value
        media.append(write_media(value, folder, f"{number}-{len(media)}"))
        return {"file": media[-1]}

    return {"way": call.way, "inputs": plain(call.inputs), "options": dict(call.options)}


def write_media(value: Any, folder: Path, name: str) -> str:
    """Write an image as PNG, or an array; returns the file's name."""
    if hasattr(value, "save"):
        value.save(folder / f"{name}.png")
        return f"{name}.png"
    import numpy as np

    np.save(folder / f"{name}.npy", np.asarray(value), allow_pickle=False)
    return f"{name}.npy"


def compare_answers(folder: Path, found: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Compare a saved model's answers with the recorded ones; returns figures, and what differs."""
    recorded = json.loads((folder / CALLS).read_text(encoding="utf-8"))
    for name, value in recorded["meaning"].items():
        if value != found["meaning"][name]:
            return {}, f"its {name} is not that of the trained model"
    largest = 0.0
    for number, (call, other) in enumerate(
        zip(recorded["calls"], found["answers"], strict=True), 1
    ):
        difference = relative_difference(call["answer"], other)
        if not difference <= TOLERANCE:
            return {}, (f"it answers row {number} of {len(recorded['calls'])} otherwise than the "
                        f"trained model: {shortened(call['answer'], other)}")
        largest = max(largest, difference)
    ways = sorted({call["way"] for call in recorded["calls"]})
    return {"rows": len(recorded["calls"]), "ways": ways, "largest_difference": largest}, None


def shortened(expected: Any, found: Any) -> str:
    """Describe two different answers for a message, without the text of a row."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        if expected.keys() != found.keys():
            return f"{sorted(found)[:4]} instead of {sorted(expected)[:4]}"
        worst = max(expected, key=lambda name: relative_difference(expected[name], found[name]))
        if all(isinstance(one[worst], float) for one in (expected, found)):
            return f"'{worst}' {found[worst]:.4f} instead of {expected[worst]:.4f}"
        return f"another '{worst}'"
    if isinstance(expected, str) and isinstance(found, str):
        return f"another text ({len(found)} characters instead of {len(expected)})"
    return "another answer"
