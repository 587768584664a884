"""Conversations and plain texts as token ids: the same in training, in prediction and once published.

An answer is learnt after exactly the tokens that the chat template puts before it when an answer is asked for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hubtune import Base, DataError, Row
from hubtune_plugins.generation.conversations import conversation
from hubtune_plugins.generation.turns.messages import Message, shared, tools_of
from hubtune_plugins.generation.turns.rendering import Fields, render
from hubtune_plugins.writing.likelihood import IGNORED


def missing(processor: Any, chats: Any = False) -> Any:
    """Attributes that a tokenizer lacks: a pad token out of its own vocabulary, which attention masks; a chat template,
    where it `chats`."""
    found = {}
    if processor.pad_token is None:
        found["pad_token"] = processor.eos_token or processor.unk_token or processor.convert_ids_to_tokens(0)
    if chats and not processor.chat_template:
        found["chat_template"] = simple_template(processor)
    return found


def simple_template(processor: Any) -> Any:
    """A chat template of plain words for a tokenizer without one; every answer is closed by the end token."""
    begins = processor.bos_token_id is not None and processor("a").input_ids[0] == processor.bos_token_id
    return (
        ("{{ bos_token }}" if begins else "")
        + "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}"
        + ("{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}" if processor.eos_token else "")
        + "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )


def pieces(base: Base, said: list[Message], tools: list[Any] | None = None) -> list[tuple[str, bool]]:
    """The rendered text cut where learning starts and stops: [(text, whether it is learnt)].

    What an answer adds to the text before it is learnt, with its end token. Templates that rewrite earlier turns
    (such as those that drop old reasoning) leave only the last answer.

    Raises:
        DataError: an earlier turn that the row names as learnt is rewritten.
    """
    if said[-1]["role"] != "assistant":
        return [(render(base, said, True, tools), False)]
    full, asked = render(base, said, tools=tools).rstrip(), render(base, said[:-1], True, tools)
    if not full.startswith(asked):
        if said[-1].keys() <= {"role", "content", "learnt"}:
            full = asked + said[-1]["content"]
        else:  # all that the template writes of the other fields is learnt, with its mark of a turn
            asked = full[: shared(full, render(base, said[:-1], tools=tools))]
    if base.processor.eos_token and not full.endswith(marks(base)):
        full += base.processor.eos_token
    spans = [(len(asked), len(full))]
    for turn in reversed(range(1, len(said) - 1)):
        if said[turn]["role"] == "assistant" and said[turn].get("learnt", True):
            start, end = render(base, said[:turn], True, tools), render(base, said[: turn + 1], tools=tools).rstrip()
            if full.startswith(end) and end.startswith(start) and len(end) <= spans[0][0]:
                spans.insert(0, (len(start), len(end)))
            elif said[turn].get("learnt"):
                raise DataError(f"the chat template of {base.repo} rewrites turn {turn + 1} once others follow it, so it cannot be learnt there.",
                                hint="Give that turn a weight of 0, and a row of its own that ends with it.")
    found: list[tuple[str, bool]] = []
    at = 0
    for first, last in spans:
        found += [(full[at:first], False), (full[first:last], True)]
        at = last
    return found


def answer_text(base: Base, row: Row, fields: Fields) -> str:
    """What is to be written for a row: its last answer, with its calls as the chat template writes them, without special tokens."""
    said, tools = fields.keep(conversation(row), tools_of(row.get("tools")))
    if said[-1].keys() <= {"role", "content", "learnt"}:
        return str(said[-1]["content"]).strip()
    ids = ids_of(base, pieces(base, said, tools)[-1][0])
    return str(base.processor.decode(ids, skip_special_tokens=True)).strip()


def marks(base: Base) -> tuple[Any, ...]:
    """The tokenizer's special words, one of which ends an answer."""
    added = [str(token) for token in base.processor.added_tokens_decoder.values() if token.special]
    return (*added, *base.processor.all_special_tokens)


def ids_of(base: Base, text: str) -> Any:
    """The ids of a rendered text, which has its special tokens in it."""
    return base.processor(text, add_special_tokens=False, verbose=False).input_ids


def example_of(base: Base, row: Row, fields: Fields, number: int) -> Any:
    """A row's conversation as an example, after a check that the chat template writes all that it says. number: from 0."""
    try:
        said, tools = fields.keep(conversation(row), tools_of(row.get("tools")))
        fields.check(base, said, tools)
        return encoded(base, said, tools)
    except DataError as error:
        raise DataError(error.message, where=error.where or f"row {number + 1}", hint=error.hint) from error


def encoded(base: Base, said: list[Message], tools: list[Any] | None = None) -> Any:
    """A conversation as an example: `input_ids`, and where it ends in an answer `labels` and the answer's `start`."""
    parts = pieces(base, said, tools)
    upto = [ids_of(base, "".join(text for text, _ in parts[: count + 1])) for count in range(len(parts))]
    if all(after[: len(before)] == before for before, after in pairwise(upto)):
        split = [after[len(before):] for before, after in zip([[], *upto], upto)]
    else:  # a token would lie across the end of a prompt, where none can lie when an answer is asked for
        split = [ids_of(base, text) for text, _ in parts]
    ids = [token for part in split for token in part]
    if not parts[-1][1]:
        return cut(base, {"input_ids": ids}, len(ids))
    labels = [token if learnt else IGNORED for part, (_, learnt) in zip(split, parts) for token in part]
    return cut(base, {"input_ids": ids, "labels": labels}, len(ids) - len(split[-1]))


def cut(base: Base, example: dict[str, Any], start: int) -> dict[str, Any]:
    """An example of at most `base.max_length` tokens around the place where its last answer starts.

    The oldest tokens go first, but for the one that begins every text; of a long answer, its end: a quarter of the
    length stays with what comes before it.
    """
    ids, limit = example["input_ids"], base.max_length
    first = 0
    if limit is not None and len(ids) > limit:
        first = min(len(ids) - limit, start - min(start, max(1, limit // 4)))
        example = {name: values[first : first + limit] for name, values in example.items()}
        if first and ids[0] == base.processor.bos_token_id:
            example["input_ids"][0] = ids[0]
    if "labels" in example:
        example["labels"][0] = IGNORED  # nothing comes before it
        example["start"] = start - first
    return example


def plain(base: Base, text: str, ends: Any) -> Any:
    """The ids of a plain text, with the end token where it `ends`."""
    ids, end = list(base.processor(text, verbose=False).input_ids), base.processor.eos_token_id
    if end is not None and len(ids) > 1 and ids[-1] == end:
        ids.pop()
    return [*ids, end] if ends and end is not None else ids


def windows(ids: Any, limit: Any) -> list[Any]:
    """A plain text as examples in which every token but the first is learnt once: each begins where another ends."""
    limit = max(2, limit or len(ids))
    parts = [ids[at : at + limit] for at in range(0, max(1, len(ids) - 1), limit - 1)]
    return [{"input_ids": part, "labels": [IGNORED, *part[1:]], "start": 0} for part in parts]


def end_tokens(base: Base) -> list[Any]:
    """The ids that end an answer: the tokenizer's end token, and what its chat template closes an answer with."""
    ends = {base.processor.eos_token_id}
    if base.processor.chat_template:
        text = pieces(base, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])[-1][0]
        ends |= {base.processor.convert_tokens_to_ids(mark) for mark in marks(base) if text.endswith(mark)}
    return sorted(ends - {None})
