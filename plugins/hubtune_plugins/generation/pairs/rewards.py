"""Texts that a reward model reads, as token ids; the score of each, and of pairs how far the better one is ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubtune import Base
from hubtune_plugins.generation import chat
from hubtune_plugins.generation.conversations import SIDES, with_answer
from hubtune_plugins.generation.pairs.bradley_terry import wins
from hubtune_plugins.generation.turns.rendering import Fields, render

Row = Mapping[str, Any]
Rows = Sequence[Row]


def texts_of(row: Row) -> list[Row]:
    """The rows to be scored in a row: with its chosen and its rejected answer, or as it is."""
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return [with_answer(row, side) for side in SIDES]
    return [row]


def encoded(base: Base, row: Row, fields: Fields, number: int) -> dict[str, list[int]]:
    """A text, or a conversation in its chat template, between the special tokens that the model's texts have. number: of the row, from 0."""
    begin, end = frame(base)
    room = replace(base, max_length=base.max_length and max(1, base.max_length - len(begin) - len(end)))
    if row.get("messages") is None and row.get("prompt") is None:
        ids = chat.plain(base, row["text"], ends=True)
        ids = chat.cut(room, {"input_ids": ids}, len(ids))["input_ids"]
    else:
        ids = chat.example_of(room, row, fields, number)["input_ids"]
    return {"input_ids": [*(begin if ids[: len(begin)] != begin else ()), *ids, *(end if ids[len(ids) - len(end):] != end else ())]}


def frame(base: Base) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after every text, such as [CLS] and [SEP]."""
    inner = base.processor("a", add_special_tokens=False).input_ids
    ids = base.processor("a").input_ids
    place = next(at for at in range(len(ids)) if ids[at : at + len(inner)] == inner)
    return ids[:place], ids[place + len(inner):]


def rendered(base: Base, messages: list[dict[str, str]]) -> tuple[str, bool]:
    """Return how a user of the published model makes its ids: the text behind the chat template, and whether special tokens are added."""
    text = render(base, messages).rstrip()
    ids = encoded(base, {"messages": messages}, Fields(), 0)["input_ids"]
    end = "" if text.endswith(chat.marks(base)) else base.processor.eos_token or ""
    return end, base.processor(text + end).input_ids == ids


def answers(rewards: Sequence[float], counts: Sequence[int]) -> list[dict[str, float]]:
    """For each row, the score of its text, or of its two answers and their difference; rewards: of all texts in order."""
    found: list[dict[str, float]] = []
    texts = iter(rewards)
    for count in counts:
        if count == 1:
            found.append({"score": next(texts)})
        else:
            chosen, rejected = next(texts), next(texts)
            found.append({"chosen": chosen, "rejected": rejected, "margin": chosen - rejected})
    return found


def pair_scores(predictions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """accuracy: the share of pairs whose chosen answer has the higher reward, equal ones half; the mean margin."""
    import numpy as np

    margins = np.array([prediction["margin"] for prediction in predictions])
    return {"accuracy": wins(margins), "margin": float(margins.mean())}
