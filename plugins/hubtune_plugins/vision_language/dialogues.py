"""Rows as conversations with images: messages whose content is a list of parts, and the images in their order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hubtune import DataError, Row
from hubtune_plugins.generation.turns.messages import EMPTY, ROLES, Message, parsed

MARK = "<image>"
"""Stands for an image in the text of a message, as in LLaVA's data."""
IN_PART = ("image", "path", "url", "bytes")
"""Keys of a part that hold its image, where the row has no column of images."""


def dialogue(row: Row) -> tuple[list[Message], list[Any]]:
    """Return the messages of a row, each with a list of parts as its content, and its images, one per image part.

    Raises:
        DataError: there is nothing to ask, or the images are not as many as the places for them.
    """
    images = images_of(row)
    if row.get("messages") is not None:
        said = [message(value, images) for value in turns(row["messages"])]
    elif row.get("prompt") is not None:
        said = [{"role": "user", "content": parts_of(row["prompt"], images)}]
        if row.get("completion") is not None:
            said.append({"role": "assistant", "content": [text_part(str(row["completion"]))]})
    else:
        raise DataError("a row has neither messages nor a question.",
                        hint="Say which column it is: --set data.prompt=COLUMN or --set data.messages=COLUMN")
    if row.get("system"):
        said.insert(0, {"role": "system", "content": [text_part(str(row["system"]))]})
    return with_places(said, images), images


def images_of(row: Row) -> list[Any]:
    """Return the images of a row's columns `images` and `image`, as the data has them."""
    several = row.get("images")
    several = parsed(several) if isinstance(several, str) and several.lstrip().startswith("[") else several
    if several is not None and not isinstance(several, list | tuple):
        several = [several]
    found = [value for value in several or () if value is not None]
    return found or ([row["image"]] if row.get("image") not in (None, "") else [])


def turns(value: Any) -> list[Any]:
    """Return the messages of a row as a list, from JSON in a string too."""
    value = parsed(value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"{str(value)[:80]!r} is no list of messages.", hint="A message is a table with a role and a content.")
    return list(value)


def message(value: Any, images: list[Any]) -> Message:
    """Return a message in one form; images that its parts hold are added to `images`."""
    who = isinstance(value, Mapping) and (value.get("role") or value.get("from"))
    if not isinstance(who, str):
        raise DataError(f"{str(value)[:80]!r} is no message.", hint="A message is a table with a role and a content.")
    content = value.get("content") if value.get("content") is not None else value.get("value")
    return {"role": ROLES.get(who, who), "content": parts_of(content, images)}


def parts_of(content: Any, images: list[Any]) -> list[dict[str, Any]]:
    """Return a content as parts `{"type": "image"}` and `{"type": "text", "text": ...}`."""
    if content is None or isinstance(content, str):
        pieces = re.split(f"\\s*{MARK}\\s*", content or "")
        found = [part for piece in pieces for part in (text_part(piece), {"type": "image"})][:-1]
        return [part for part in found if part != text_part("")]
    if not isinstance(content, list | tuple):
        raise DataError(f"the content {str(content)[:80]!r} of a message is neither a text nor a list of parts.")
    found = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text" if isinstance(part, str) else type(part).__name__
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if kind in ("image", "image_url"):
            images += [part[key] for key in IN_PART if part.get(key) not in EMPTY]
            found.append({"type": "image"})
        elif kind == "text" and isinstance(text, str):
            found.append(text_part(text))
        else:
            raise DataError(f"a message has a part of the type {kind!r}, and the task reads images and texts.",
                            hint='Parts are {"type": "image"} and {"type": "text", "text": ...}: take the others out.')
    return found


def text_part(text: str) -> dict[str, Any]:
    """Return a text as a part of a message."""
    return {"type": "text", "text": text}


def with_places(said: list[Message], images: list[Any]) -> list[Message]:
    """Put the images before the first question where no message says their place.

    Raises:
        DataError: there are more places than images, or fewer.
    """
    places = sum(part["type"] == "image" for turn in said for part in turn["content"])
    asked = next((turn for turn in said if turn["role"] == "user"), None)
    if not places and images and asked is not None:
        asked["content"] = [{"type": "image"} for _ in images] + asked["content"]
    elif places != len(images):
        raise DataError(f"its messages have {places} place{'s' * (places != 1)} for images, and the row has {len(images)} "
                        f"image{'s' * (len(images) != 1)}.",
                        hint='Give a part {"type": "image"} for every image of the row, in their order, or none at all.')
    return said


def words_of(turn: Message) -> str:
    """Return the text of a message, without the blanks around it."""
    return "".join(part.get("text", "") for part in turn["content"]).strip()


def is_answered(said: list[Message]) -> bool:
    """Return whether a conversation ends in an answer of the assistant to something."""
    return len(said) > 1 and said[-1]["role"] == "assistant"
