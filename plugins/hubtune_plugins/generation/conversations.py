"""Rows as conversations: what data sets call a message and its role, and what of a row can be learnt.

A conversation is a list of messages, each with a `role`, a `content` and the further fields that its row has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from hubtune import DataError, Row, Rows, row_numbers
from hubtune_plugins.generation.turns.messages import Message, messages, parsed, shared, tools_of, up_to_learnt

SIDES = ("chosen", "rejected")
"""The two answers of a row that says which is better."""
AROUND = ("system", "history", "tools")
"""Columns that belong to every answer of a row."""


def form_of(roles: Any) -> str:
    """Return what rows with these columns teach: chat, the answers of conversations, or text, all of a plain text."""
    if "messages" in roles or {"prompt", "completion"} <= roles:
        return "chat"
    if "text" not in roles:
        raise DataError(
            "no columns to learn from: there are neither messages, nor a prompt with its completion (an "
            f"instruction with its output), nor a text. Found: {', '.join(sorted(roles)) or 'none of these'}.",
            hint="Say which they are: --set data.messages=COLUMN, or --set data.prompt=COLUMN --set "
            "data.completion=COLUMN, or --set data.text=COLUMN",
        )
    return "text"


def conversation(row: Row) -> list[Message]:
    """The messages of a row: its own, or its prompt (with the input that belongs to it) and its answer, where known.

    A `system` prompt stands first, and the turns of `history` before the prompt. Where messages say which turns are learnt,
    the last of them ends the conversation: nothing after it is seen by it.
    """
    return up_to_learnt(with_system(row, history_of(row) + turns_of(row)))


def turns_of(row: Row) -> list[Message]:
    """The turns of a row's messages, or of its prompt and its answer."""
    if row.get("messages") is not None:
        return messages(row["messages"], "user")
    if row.get("prompt") is None:
        raise DataError("a row has neither messages nor a prompt.",
                        hint="Say which column it is: --set data.prompt=COLUMN or --set data.messages=COLUMN")
    said = messages(row["prompt"], "user")
    if row.get("input"):
        said[-1] = {**said[-1], "content": f"{said[-1]['content']}\n\n{row['input']}"}
    if row.get("completion") is None:
        return said
    answer = messages(row["completion"], "assistant")
    return answer if answer[: len(said)] == said else said + answer


def history_of(row: Row) -> list[Message]:
    """Earlier turns: messages, or pairs of a question and its answer."""
    value = row.get("history")
    value = parsed(value) if isinstance(value, str) else value
    if not value:
        return []
    if not isinstance(value, list):
        raise DataError(f"the history {value!r} is no list.", hint="It is a list of messages, or of pairs of two texts.")
    if all(isinstance(item, Mapping) for item in value):
        return messages(value, "user")
    for pair in value:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise DataError(f"{pair!r} in the history is no pair of two texts.", hint="A pair is a question and its answer.")
    return [{"role": role, "content": text} for pair in value for role, text in zip(("user", "assistant"), pair, strict=True)]


def with_system(row: Row, said: list[Message]) -> list[Message]:
    """Put the row's system prompt first. Raises DataError where the turns have another one."""
    systems = [message for message in said if message["role"] == "system"]
    said = [*systems[:1], *(message for message in said if message not in systems[:1])] if row.get("history") else said
    text = row.get("system")
    if not text:
        return said
    if not isinstance(text, str):
        raise DataError(f"the system prompt {text!r} is no text.")
    if systems and systems[0]["content"] != text:
        raise DataError(f"the row has two system prompts: {text[:60]!r} and {systems[0]['content'][:60]!r}.",
                        hint="Take one of them out.")
    return said if systems else [{"role": "system", "content": text}, *said]


def answered(said: Any) -> bool:
    """Return whether a conversation ends in an answer to something."""
    return len(said) > 1 and said[-1]["role"] == "assistant" and bool(said[-1]["content"].strip() or said[-1].get("tool_calls"))


def answer_of(row: Row) -> str:
    """The text of a row's last answer, without the blanks around it."""
    return str(conversation(row)[-1]["content"]).strip()


def question_of(row: Row) -> dict[str, Any]:
    """Return what of a row may be seen before its last answer; a plain text is gone on with."""
    if row.get("messages") is not None:
        said = up_to_learnt(messages(row["messages"], "user"))
        return {**row, "messages": said[:-1] if answered(said) else said}
    return dict(row) if row.get("prompt") is not None or row.get("text") is None else {"prompt": row["text"]}


def with_answer(row: Row, side: str) -> dict[str, Any]:
    """A prompt with one of its answers, such as the chosen one.

    Without a prompt, whole conversations: what they share at their beginning is the prompt (TRL's implicit prompt), and only
    what comes after it is learnt. Two texts are two texts.
    """
    around = {name: row[name] for name in AROUND if row.get(name) is not None}
    if row.get("prompt") is not None:
        inner = {"input": row["input"]} if row.get("input") else {}
        return {**around, **inner, "prompt": row["prompt"], "completion": row[side]}
    if isinstance(row[side], str):
        return {"text": row[side]}
    said = messages(row[side], "user")
    prompt = shared(said, messages(row[SIDES[side == SIDES[0]]], "user"))
    return {**around, "messages": [{**message, "learnt": False} if place < prompt and message["role"] == "assistant" else message
                                   for place, message in enumerate(said)]}


def problem_of(row: Row, form: str) -> str | None:
    """Return why a row has nothing to learn, to be read after `rows have`; None where it has."""
    if form == "text":
        return None if isinstance(row["text"], str) and row["text"].strip() else "an empty text"
    try:
        said = conversation(row)
        tools_of(row.get("tools"))
    except DataError as error:
        return f"an error ({error.message})"
    except (KeyError, TypeError, AttributeError):
        return "no answer at their end"
    if not answered(said):
        return "no answer at their end"
    return None if said[-1].get("learnt", True) else "no turn that is learnt: every weight is 0"


def refuse_unlearnable(rows: Rows, split: str, form: Any) -> None:
    """Refuse a split for rows that have nothing to learn, by the first reason."""
    bad: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if problem := problem_of(row, form):
            bad[problem].append(index)
    for problem, indices in bad.items():
        raise DataError(f"{len(indices)} of {len(rows)} rows have {problem}: {row_numbers(indices, rows)} of {split}.",
                        hint="Mend these rows or take them out, and run the same command again.")


def refuse_undecided(rows: Rows, split: str, texts: bool = True) -> None:
    """Refuse a split for rows whose answers are empty or not two. texts: whether two texts without a prompt are a pair."""
    if any(rows[0].get(side) is None for side in SIDES):
        raise DataError(f"{split} has no pairs of a chosen and a rejected answer.",
                        hint="Name the columns: --set data.chosen=COLUMN --set data.rejected=COLUMN")
    bad = [index for index, row in enumerate(rows) if row["chosen"] == row["rejected"] or not all(
        is_answer(row, side) for side in SIDES)]
    if bad:
        raise DataError(f"{len(bad)} of {len(rows)} rows have an empty answer or two answers that are the same: "
                        f"{row_numbers(bad, rows)} of {split}.", hint="Mend these rows or take them out.")
    unasked = [] if texts else [index for index, row in enumerate(rows) if row.get("prompt") is None and isinstance(row["chosen"], str)]
    if unasked:
        raise DataError(f"{len(unasked)} of {len(rows)} rows have two texts and no prompt: {row_numbers(unasked, rows)} of {split}.",
                        hint="Name the prompt's column: --set data.prompt=COLUMN, or give whole conversations as lists of messages.")


def is_answer(row: Row, side: str) -> bool:
    """Tell if one side of a pair is an answer that can be learnt."""
    try:
        found = with_answer(row, side)
    except (DataError, KeyError, TypeError, AttributeError):
        return False
    return problem_of(found, "text" if "text" in found else "chat") is None
