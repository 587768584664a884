"""Conversations as a base's chat template writes them, and refusals of what it would leave out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hubtune import Base, DataError, option
from hubtune_plugins.generation.turns.messages import Message, up_to_learnt

LOG = logging.getLogger("hubtune.generation")
MEANT = ("tool_calls", "tools", "reasoning_content", "reasoning", "thinking", "documents", "tool_plan", "images", "image",
         "audio", "audios", "video", "videos")
"""Fields that a model has to see to learn what the row says; others, such as ids, may go unwritten, and are named once."""
INTERNAL = ("role", "content", "learnt")


@dataclass(frozen=True)
class ChatOptions:
    ignore_fields: list[str] = option([], "fields of messages, or tools, that are left out, such as [\"reasoning_content\"]")


def render(base: Base, said: list[Message], ask: bool = False, tools: list[Any] | None = None) -> str:
    """Return the text of a conversation by the tokenizer's chat template; `ask`: up to where an answer begins."""
    from jinja2 import TemplateError

    turns = [{name: value for name, value in message.items() if name != "learnt"} for message in said]
    given: dict[str, Any] = {"tools": tools} if tools else {}
    try:
        text: str = base.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask, **given)
    except (TemplateError, ValueError, TypeError) as error:  # ValueError: there is no template; TypeError: of an expression in it
        raise DataError(f"the model's chat template refuses messages of {[m['role'] for m in said]}: {error}",
                        hint="Bring the conversations into the form that the model was trained on.") from error
    return text


@dataclass
class Fields:
    """Checks that a chat template writes the fields of conversations.

    ignored: fields that are left out before. unused: fields that the template does not write, as far as seen. A conversation is
    rendered once more for each field, but only the first of its shape (roles and fields of its turns).
    """

    ignored: Collection[str] = ()
    unused: set[str] = field(default_factory=set)
    shapes: set[Any] = field(default_factory=set)

    def keep(self, said: list[Message], tools: list[Any] | None) -> tuple[list[Message], list[Any] | None]:
        """Leave out the fields that are ignored. Turns of the assistant that are empty then, or were before, are not learnt.

        Raises:
            DataError: nothing is left to learn.
        """
        left = [without(message, self.ignored) for message in said]
        kept = up_to_learnt([message if says_something(message) else {**message, "learnt": False} for message in left])
        if kept[-1]["role"] == "assistant" and not kept[-1].get("learnt", True):
            raise DataError(f"nothing of it is learnt without {', '.join(self.ignored) or 'a text'}: its answers are empty.",
                            hint="Take the row out, or leave task.ignore_fields out.")
        return kept, None if "tools" in self.ignored else tools

    def check(self, base: Base, said: list[Message], tools: list[Any] | None) -> None:
        """Refuse a conversation of which the template leaves out what is meant to be learnt. Raises DataError."""
        names = {name for message in said for name in message if name not in INTERNAL}
        roles = {message["role"] for message in said} - {"user", "assistant"}
        shape = (tuple((message["role"], bool(message["content"]), *sorted(message)) for message in said), bool(tools))
        if shape in self.shapes or not (names or roles or tools):
            return
        ask = said[-1]["role"] != "assistant"
        text = render(base, said, ask, tools)
        if tools and same(text, partial(render, base, said, ask)):
            raise left_out(base, "the tools", "tools")
        for role in sorted(roles):
            if same(text, partial(render, base, [m for m in said if m["role"] != role], ask, tools)):
                raise left_out(base, f"turns of the role {role!r}", None)
        for name in sorted(names):
            if same(text, partial(render, base, [without(message, [name]) for message in said], ask, tools)):
                self.not_written(base, name)
        self.shapes.add(shape)

    def not_written(self, base: Base, name: str) -> None:
        """Refuse a field that is meant to be learnt; name another one once."""
        if name in MEANT:
            raise left_out(base, f"the field {name!r} of messages", name)
        if name not in self.unused:
            self.unused.add(name)
            LOG.warning("not used: the field %r of messages, which the chat template of %s does not write", name, base.repo)


def says_something(message: Message) -> bool:
    """Tell if a turn is not an empty one of the assistant."""
    return message["role"] != "assistant" or bool(message["content"].strip() or message.get("tool_calls"))


def without(message: Message, names: Collection[str]) -> Message:
    """Return a message without some fields."""
    return {name: value for name, value in message.items() if name not in names or name in INTERNAL}


def same(text: str, other: Callable[[], str]) -> bool:
    """Tell if another conversation has the same text; one that the template refuses has not."""
    try:
        return other() == text
    except (DataError, IndexError):
        return False


def left_out(base: Base, what: str, name: str | None) -> DataError:
    """Return the error of what a template does not write."""
    ignore = f", or leave it out: --set 'task.ignore_fields=[\"{name}\"]'" if name else ", or take these turns out"
    return DataError(f"the chat template of {base.repo} does not write {what}.",
                     hint=f"Take a model whose template writes it{ignore}")
