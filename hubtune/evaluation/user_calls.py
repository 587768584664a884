"""Rows as users ask the published model about them, with the trained model's answers."""

from __future__ import annotations

import copy
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
from hubtune.evaluation.clean_process import answer, make_media, meaning
from hubtune.evaluation.equivalence import relative_difference

if TYPE_CHECKING:
    from torch.nn import Module

CALLS = "calls.json"
LONGEST, SPREAD = 4, 8
"""Rows that are asked: the longest, and others evenly between these and the shortest."""
GENERATED = 3
"""Rows of a task that generates, which takes longer."""
SAMPLED = 32
"""About how many values of a tensor a published answer holds."""
TEXTS = (
    "What a lovely day",
    "The parcel came a week late, the box was open, and nobody answered my letter of 3 May. " * 40,
)
"""Texts of made rows, whose answers are published: a short one, and one that most models truncate."""
TOLERANCE = 1e-4
"""The largest difference of two numbers in an answer, relative to those above 1."""


def record_calls(
    task: Task[Any], base: Base, rows: Rows, encoded: EncodedDataset, folder: Path
) -> int:
    """Write real rows as users ask about them.

    Args:
        rows: of validation, and `encoded` the same rows.
        folder: `calls.json` and media are written there; it is not published.

    Returns:
        The number of rows; 0 where the task has no `user_call`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    targets = {column.role for column in task.columns if column.target}
    chosen = choose_rows(encoded, GENERATED if isinstance(task, GenerativeTask) else None)
    calls = []
    for number in chosen:
        row = without_targets(task, rows[number], targets)
        calls.append(described_call(task, base, row, MediaFiles(folder, f"{number}")))
    calls = [call for call in calls if call is not None]
    write_calls(folder, {"calls": calls})
    return len(calls)


def record_answers(
    model: Module, task: Task[Any], base: Base, folder: Path, saved: Path
) -> int:
    """Add the trained model's answers to the calls of `record_calls`.

    Args:
        model: as it is published, in memory.
        saved: where it is saved.

    Returns:
        The number of answers; where transformers fails for a row, its answer is null.
    """
    calls = json.loads((folder / CALLS).read_text(encoding="utf-8"))["calls"]
    processor = copied_processor(base)
    model.eval()
    answers = [answered(model, processor, task, call, folder) for call in calls]
    write_calls(folder, {
        "meaning": meaning(model, base.processor, saved),
        "calls": [{**call, "answer": found} for call, found in zip(calls, answers, strict=True)]})
    return sum(found is not None for found in answers)


def write_calls(folder: Path, calls: Mapping[str, Any]) -> None:
    """Write calls with their answers for the clean process, which may read them at that moment."""
    aside = folder / f"{CALLS}.part"
    aside.write_text(json.dumps(calls, ensure_ascii=False), encoding="utf-8")
    aside.replace(folder / CALLS)


def is_asked(model: Module) -> bool:
    """Return whether a model is in the number format that its users load it in."""
    return next(model.parameters()).dtype == torch.float32


def made_answers(
    model: Module, task: Task[Any], base: Base, saved: Path
) -> dict[str, Any] | None:
    """Return the trained model's answers about made rows, and the meaning of labels and tokens.

    They hold nothing of the data, so that they are published, and anyone can ask the same.

    Args:
        model: as it is published, in memory. saved: where it is saved.

    Returns:
        `meaning` and `answers`, null for a row that is not asked; None without any answer.
    """
    if not is_asked(model):
        return None
    model.eval()
    processor = copied_processor(base)
    answers = [call and answered(model, processor, task, call, Path())
               for call in made_calls(task, base)]
    if not any(answer is not None for answer in answers):
        return None
    return {"meaning": meaning(model, base.processor, saved), "answers": answers}


def made_calls(task: Task[Any], base: Base) -> list[dict[str, Any] | None]:
    """Return the calls about made rows, which are the same wherever they are made."""
    rows: list[Row] = [row for text in TEXTS if (row := made_row(task, text)) is not None]
    if isinstance(task, GenerativeTask):
        rows = [task.question(row) for row in rows[:1]]
    calls = [described_call(task, base, row, MadeMedia()) for row in rows]
    return [call and {**call, "sampled": SAMPLED} for call in calls]


def recorded_calls(
    task: Task[Any], base: Base, recorded: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the calls about made rows with answers that `made_answers` gave, for `write_calls`.

    None where there are not as many answers as calls, as of another version.
    """
    calls, answers = made_calls(task, base), recorded["answers"]
    if len(calls) != len(answers):
        return None
    asked = [{**call, "answer": answer} for call, answer in zip(calls, answers, strict=True)
             if call is not None and answer is not None]
    return {"meaning": recorded["meaning"], "calls": asked}


def made_row(task: Task[Any], text: str) -> dict[str, Any] | None:
    """Return a row with the columns that a user has to give; None where their form is not known."""
    row: dict[str, Any] = {}
    for column in task.columns:
        if column.target or (column.needed != "always" and column.role != task.input):
            continue
        if column.kind == "any" and column.role != task.input:
            return None
        row[column.role] = made_value(column.kind, text)
    return row or None


def made_value(kind: str, text: str) -> Any:
    """Return the made value of a column of this kind; only an image needs Pillow, an extra."""
    if kind == "image":
        return make_media("image")
    if kind == "audio":
        return {"array": make_media("sound")}
    return {"text": text, "any": text, "words": text.split(), "texts": [text]}[kind]


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


def described_call(
    task: Task[Any], base: Base, row: Row, media: MediaFiles | MadeMedia
) -> dict[str, Any] | None:
    """Return how users ask about a row, as JSON; None where it cannot be asked.

    media: keeps the call's images and sounds.
    """
    try:
        call = checked(task, "user_call", task.user_call(row, base))
    except HubtuneError:
        raise
    except Exception:  # of any task, for this row: others are asked
        return None
    return None if call is None else describe(call, media)


def copied_processor(base: Base) -> Any:
    """Return a copy of the processor, since a pipeline changes its padding side; None without one."""
    try:
        return copy.deepcopy(base.processor)
    except Exception:  # of any processor: then no row is asked
        return None


def answered(
    model: Module, processor: Any, task: Task[Any], call: dict[str, Any], folder: Path
) -> Any:
    """Return the trained model's answer; None where transformers fails, or answers with what is no number."""
    if processor is None:
        return None
    try:
        found = answer(model, processor, task.pipeline_tag, call, folder)
        json.dumps(found, allow_nan=False)
    except Exception:  # of any pipeline, for this row: others are asked
        return None
    return found


def describe(call: UserCall, media: MediaFiles | MadeMedia) -> dict[str, Any]:
    """Return a call as JSON, with a note in the place of every image and array."""
    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return media.keep(value) if hasattr(value, "save") or hasattr(value, "dtype") else value

    return {"way": call.way, "inputs": plain(call.inputs), "options": dict(call.options)}


class MediaFiles:
    """Images and arrays of a call, as files of a folder. name: that their names begin with."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.count = folder, name, 0

    def keep(self, value: Any) -> dict[str, str]:
        """Write an image as PNG, or an array; returns the note that stands for it."""
        name = f"{self.name}-{self.count}"
        self.count += 1
        if hasattr(value, "save"):
            value.save(self.folder / f"{name}.png")
            return {"file": f"{name}.png"}
        import numpy as np

        np.save(self.folder / f"{name}.npy", np.asarray(value), allow_pickle=False)
        return {"file": f"{name}.npy"}


class MadeMedia:
    """Made images and sounds of a call, which can be made again anywhere."""

    def keep(self, value: Any) -> dict[str, str]:
        """Return the note that stands for a made image or sound."""
        return {"made": "image" if hasattr(value, "save") else "sound"}


def compare_answers(folder: Path, found: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Compare a saved model's answers with the recorded ones; returns figures, and what differs."""
    recorded = json.loads((folder / CALLS).read_text(encoding="utf-8"))
    for name, value in recorded["meaning"].items():
        if value != found["meaning"].get(name):
            return {}, f"its {name} differs from the trained model's"
    largest = 0.0
    problems = found.get("errors", [None] * len(found["answers"]))
    asked = [(call, other, problem) for call, other, problem in
             zip(recorded["calls"], found["answers"], problems, strict=True)
             if call["answer"] is not None]
    for number, (call, other, problem) in enumerate(asked, 1):
        row = f"row {number} of {len(asked)}"
        if problem is not None:
            return {}, f"it does not answer {row}: {problem}"
        difference = relative_difference(call["answer"], other)
        if not difference <= TOLERANCE:
            return {}, (f"it answers {row} otherwise than the "
                        f"trained model: {shortened(call['answer'], other)}")
        largest = max(largest, difference)
    ways = sorted({call["way"] for call, _, _ in asked})
    return {"rows": len(asked), "ways": ways, "largest_difference": largest}, None


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
