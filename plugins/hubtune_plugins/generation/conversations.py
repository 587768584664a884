"""Rows as conversations: what data sets call a message and its role, and what of a row can be learnt.

A conversation is a list of messages, each with a `role` and a `content`.
"""

from __future__ import annotations

from typing import Any

from hubtune import DataError, Row, Rows, row_numbers

ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
SIDES = ("chosen", "rejected")
"""The two answers of a row that says which is better."""


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


def conversation(row: Row) -> Any:
    """The messages of a row: its own, or its prompt (with the input that belongs to it) and its answer, where known."""
    if row.get("messages") is not None:
        return messages(row["messages"], "user")
    said = messages(row["prompt"], "user")
    if row.get("input"):
        said[-1] = {**said[-1], "content": f"{said[-1]['content']}\n\n{row['input']}"}
    if row.get("completion") is None:
        return said
    answer = messages(row["completion"], "assistant")
    return answer if answer[: len(said)] == said else said + answer


def messages(value: Any, role: Any) -> Any:
    """A string as one message of the role; a list of messages, also of ShareGPT's `from` and `value`, in one form."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    found = []
    for message in value:
        who, content = message.get("role") or message["from"], message.get("content") or message.get("value") or ""
        if not isinstance(content, str):
            content = "".join(part["text"] for part in content)
        found.append({"role": ROLES.get(who, who), "content": content})
    return found


def answered(said: Any) -> Any:
    """Return whether a conversation ends in an answer to something."""
    return len(said) > 1 and said[-1]["role"] == "assistant" and bool(said[-1]["content"].strip())


def answer_of(row: Row) -> str:
    """The last answer of a row, without the blanks around it."""
    return str(conversation(row)[-1]["content"]).strip()


def question_of(row: Row) -> dict[str, Any]:
    """Return what of a row may be seen before its last answer; a plain text is gone on with."""
    if row.get("messages") is not None:
        said = messages(row["messages"], "user")
        return {**row, "messages": said[:-1] if answered(said) else said}
    return dict(row) if row.get("prompt") is not None else {"prompt": row["text"]}


def with_answer(row: Row, side: Any) -> dict[str, Any]:
    """A prompt with one of its answers, such as the chosen one; without a prompt, the answer has it in it (TRL's implicit prompt)."""
    if row.get("prompt") is not None:
        return {"prompt": row["prompt"], "completion": row[side]}
    return {"text" if isinstance(row[side], str) else "messages": row[side]}


def learnable(row: Row, form: Any) -> Any:
    """Return whether a row has something to learn."""
    if form == "text":
        return isinstance(row["text"], str) and bool(row["text"].strip())
    try:
        return answered(conversation(row))
    except (KeyError, TypeError, AttributeError):
        return False


def refuse_unlearnable(rows: Rows, split: str, form: Any) -> None:
    """Refuse a split for rows that have nothing to learn."""
    bad = [index for index, row in enumerate(rows) if not learnable(row, form)]
    if bad:
        what = "no answer at their end" if form == "chat" else "an empty text"
        raise DataError(f"{len(bad)} of {len(rows)} rows have {what}: {row_numbers(bad)} of {split}.",
                        hint="Mend these rows or take them out, and run the same command again.")


def refuse_undecided(rows: Rows, split: str) -> None:
    """Refuse a split for rows whose answers are empty or not two."""
    if any(rows[0].get(side) is None for side in SIDES):
        raise DataError(f"{split} has no pairs of a chosen and a rejected answer.",
                        hint="Name the columns: --set data.chosen=COLUMN --set data.rejected=COLUMN")
    bad = [index for index, row in enumerate(rows) if row["chosen"] == row["rejected"]
           or not all(learnable(answer, "text" if "text" in answer else "chat") for answer in (with_answer(row, side) for side in SIDES))]
    if bad:
        raise DataError(f"{len(bad)} of {len(rows)} rows have an empty answer or two answers that are the same: "
                        f"{row_numbers(bad)} of {split}.", hint="Mend these rows or take them out.")
