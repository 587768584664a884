"""Choices as data sets write them, which of them is right, and rows of unequally many of them as tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune import Base, DataError, Prediction, Row, Rows, exact, label_text, row_numbers
from hubtune_plugins.tokenization.texts import pad, refuse

if TYPE_CHECKING:
    from torch import Tensor


def read(cell: Any) -> Any:
    """Choices as they are in the data: lists and dicts may be written as JSON."""
    if isinstance(cell, str):
        try:
            return json.loads(cell)
        except ValueError:
            return []
    return cell


def texts_of(cell: Any) -> list[Any]:
    """The texts of choices: a list, or a dict of lists `text` and `label` as in ARC and CommonsenseQA."""
    cell = read(cell)
    return [label_text(text) for text in (cell.get("text") if isinstance(cell, dict) else cell) or ()]


def pairs(row: Row) -> tuple[Any, Any]:
    """The two texts of each choice: what comes before it, and the choice; with a context, the question goes with the choice."""
    texts = texts_of(row["choices"])
    if row.get("context") is None:
        return [row["question"]] * len(texts), texts
    return [row["context"]] * len(texts), [f"{row['question']} {text}" for text in texts]


def named(row: Row) -> Any:
    """The index of the right choice, from its own name, its text, its number from 0 or its letter; None if it is none."""
    label, cell = label_text(row["label"]).strip(), read(row["choices"])
    texts = texts_of(cell)
    names = [label_text(name) for name in cell.get("label") or ()] if isinstance(cell, dict) else []
    known: list[list[str]] = [
        *([names] if names else []), *([texts] if isinstance(row["label"], str) else []),
             [str(index) for index in range(len(texts))], [chr(ord("A") + index) for index in range(len(texts))],
             [chr(ord("a") + index) for index in range(len(texts))]]
    return next((found.index(label) for found in known if label in found), None)


def right(row: Row) -> Any:
    """The index of the right choice."""
    index = named(row)
    if index is None:
        raise DataError(f"the label {row['label']!r} is none of the choices {texts_of(row['choices'])}.", hint=LABELS)
    return index


LABELS = "A label is the text of a choice, its letter (A is the first), or its number from 0."


def refuse_unclear(rows: Rows, split: str) -> None:
    """Refuse rows without a choice, and rows whose label is none of theirs."""
    few = [index for index, row in enumerate(rows) if len(texts_of(row["choices"])) < 2]
    refuse(few, rows, split, "rows have fewer than two choices",
           hint='Choices are a list of texts, or such a list as JSON: ["at home", "at sea"]')
    wrong = [index for index, row in enumerate(rows) if named(row) is None]
    if wrong:
        raise DataError(f"{rows[wrong[0]]['label']!r} is none of the choices: {row_numbers(wrong, rows)} of {split}.", hint=LABELS)


def stacked(base: Base, lists: Any) -> dict[str, Any]:
    """Tokenised choices of each row as inputs (rows, most choices, longest), and `choices`: how many each row has.

    Rows with fewer have their first choice some times more, which `choice_logits` leaves out again.
    """
    most = max(map(len, lists))
    filled = [[*choices, *choices[:1] * (most - len(choices))] for choices in lists]
    inputs = pad(base, [choice for choices in filled for choice in choices])
    return {**{name: value.unflatten(0, (len(lists), most)) for name, value in inputs.items()},
            "choices": [len(choices) for choices in lists]}


def choice_logits(logits: Tensor, counts: Any) -> Any:
    """(rows, most choices) from one number per choice, (rows * most choices, 1); minus infinity where a row has fewer."""
    import torch

    logits = exact(logits).view(len(counts), -1)
    counts = torch.tensor(counts, device=logits.device)[:, None]
    return logits.masked_fill(torch.arange(logits.shape[1], device=logits.device) >= counts, float("-inf"))


def answer(probabilities: Any) -> dict[str, Any]:
    """The answer of a row, from the probability of each of its choices."""
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return {"label": best, "probability": probabilities[best], "probabilities": probabilities}


def sure(row: Row) -> Any:
    """The answer of whoever knows."""
    index = right(row)
    return answer([float(place == index) for place in range(len(texts_of(row["choices"])))])


def scores(predictions: Sequence[Prediction], rows: Rows) -> dict[str, Any]:
    """The share of rows whose right choice is the likeliest."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": float(accuracy_score([right(row) for row in rows], [p["label"] for p in predictions]))}


def chance(rows: Rows) -> Any:
    """The accuracy of whoever draws one of the choices."""
    return sum(1 / len(texts_of(row["choices"])) for row in rows) / len(rows)
