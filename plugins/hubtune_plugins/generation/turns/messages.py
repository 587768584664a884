"""Messages and tools as chat templates take them, from the forms that data sets have.

A message has a `role`, a `content` (a string) and any other field that is not empty. `learnt` is there where the row says
by `weight` or `train` if an assistant's turn is to be learnt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune import DataError

Message = dict[str, Any]
ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
         "observation": "tool", "tool_response": "tool"}
KEYS = ("role", "from", "content", "value", "weight", "train", "learnt", "function_call")
"""Keys of a message that this module reads; all others are the template's."""
EMPTY: tuple[Any, ...] = (None, "", [], {})


def messages(value: Any, role: str) -> list[Message]:
    """Return a string as one message of the role, or a list of messages in one form, ShareGPT's `from` and `value` too.

    A list may be JSON in a string, as in a csv.

    Raises:
        DataError: for what is no message.
    """
    if isinstance(value, str):
        inner = parsed(value) if value.lstrip().startswith("[{") else value
        if isinstance(inner, str) or not all(isinstance(item, dict) and item.keys() & {"role", "from"} for item in inner):
            return [{"role": role, "content": value}]
        value = inner
    if not isinstance(value, Sequence):
        raise DataError(f"{value!r} is no list of messages.", hint="A message is a table with a role and a content.")
    return [message(item) for item in value]


def message(value: Any) -> Message:
    """Return a message in one form. Fields without a value, which Arrow adds where only some messages have them, go."""
    who = isinstance(value, Mapping) and (value.get("role") or value.get("from"))
    if not isinstance(who, str):
        raise DataError(f"{value!r} is no message.", hint="A message is a table with a role and a content.")
    found: Message = {"role": ROLES.get(who, who), "content": text_of(value.get("content") or value.get("value"))}
    if who == "function_call":  # ShareGPT's
        found = {"role": "assistant", "content": "", "tool_calls": calls(found["content"])}
    found |= {name: item for name, item in value.items() if name not in KEYS and item not in EMPTY}
    if value.get("function_call") not in EMPTY:  # OpenAI's older form
        found["tool_calls"] = calls(value["function_call"])
    if "tool_calls" in found:
        found["tool_calls"] = calls(found["tool_calls"])
    if found["role"] == "assistant":
        return found | learnt_of(value)
    if value.get("train"):
        raise DataError(f"a turn of the role {found['role']!r} is to be learnt, and only answers are.",
                        hint="Leave its `train` out, or give the turn to the assistant.")
    return found


def learnt_of(value: Mapping[str, Any]) -> Message:
    """Return `{"learnt": bool}` where a message has a `weight` (OpenAI, 0 or 1) or `train` (true or false); else `{}`."""
    for name in ("learnt", "train", "weight"):
        said = value.get(name)
        if said is None:
            continue
        if said not in (0, 1):
            raise DataError(f"the {name} of a message is {said!r}, and can be 0 or 1, true or false.",
                            hint="A turn is learnt or not; weights between are not supported.")
        return {"learnt": bool(said)}
    return {}


def text_of(content: Any) -> str:
    """Return a content as a text; a list of its parts joined."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise DataError(f"the content {content!r} of a message is no text.", hint="Write it as a string, a table as JSON in a string.")
    parts = content
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text" if isinstance(part, str) else type(part).__name__
        if kind != "text" or (isinstance(part, Mapping) and not isinstance(part.get("text"), str)):
            raise DataError(f"a message has a part of the type {kind!r}, and the task reads texts.",
                            hint="Take these rows out, or the parts out of them.")
    return "".join(part if isinstance(part, str) else part["text"] for part in parts)


def calls(value: Any) -> list[Any]:
    """Return tool calls as templates take them: `{"type": "function", "function": {"name", "arguments"}}`.

    Arguments that are JSON in a string become a table, which templates write as JSON again.
    """
    found = []
    for call in listed(value, "tool calls"):
        if not isinstance(call, Mapping):
            raise DataError(f"{call!r} is no tool call.", hint='A call is {"function": {"name": ..., "arguments": {...}}}.')
        inner = call["function"] if isinstance(call.get("function"), Mapping) else call
        if not isinstance(inner.get("name"), str):
            raise DataError(f"a tool call has no name: {call!r}.", hint='A call is {"function": {"name": ..., "arguments": {...}}}.')
        outer = {} if inner is call else {name: item for name, item in call.items() if name != "function"}
        arguments = inner.get("arguments")
        function = {**inner, "arguments": parsed(arguments) if isinstance(arguments, str) else without_nulls(arguments or {})}
        found.append({"type": "function", **without_nulls(outer), "function": function})
    return found


def tools_of(value: Any) -> list[Any] | None:
    """Return a row's tools as `{"type": "function", "function": {...}}`, from a list or JSON in a string; None without any."""
    if value in EMPTY:
        return None
    tools = [without_nulls(tool) for tool in listed(value, "tools")]
    return [{"type": "function", "function": tool} if isinstance(tool, Mapping) and "name" in tool and "function" not in tool
            else tool for tool in tools] or None


def listed(value: Any, what: str) -> list[Any]:
    """Return a list, from one item or from JSON. Raises DataError for a string that is no JSON."""
    if isinstance(value, str):
        value = parsed(value)
        if isinstance(value, str):
            raise DataError(f"{what} are no JSON: {value[:80]!r}.", hint="Write them as a list, or as JSON in a string.")
    return value if isinstance(value, list) else [value]


def parsed(text: str) -> Any:
    """Return JSON in a string as a value; the string itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def without_nulls(value: Any) -> Any:
    """Drop the keys without a value: Arrow gives every table of a column the keys of all."""
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many items two texts or lists have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (first, second) in pairs if first != second), min(len(one), len(other)))


def up_to_learnt(said: list[Message]) -> list[Message]:
    """Return a conversation up to the last turn that is learnt; all of one that asks for an answer."""
    if not said or said[-1]["role"] != "assistant":
        return said
    chosen = [place for place, message in enumerate(said) if message["role"] == "assistant" and message.get("learnt", True)]
    return said[: chosen[-1] + 1] if chosen else said
