"""Long texts in overlapping windows, and which piece of a window stands where in its text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from hubtune import Base, Example
from hubtune_plugins.tokenization.texts import FED, one_type, pad


def padded_windows(base: Base, examples: Sequence[Example]) -> dict[str, Any]:
    """Windows as padded inputs. Their `places`, per piece its (start, end) in the characters of the text, or None, go
    with them as a list, which no model sees."""
    return {**pad(base, examples), "places": [example["places"] for example in examples]}


def windows(base: Base, texts: Any, contexts: Any = None, stride: int = 64) -> Any:
    """The examples of each text, or of each text before its context: one, or windows of `base.max_length` tokens.

    The last of the two is what is cut, into windows that share `stride` tokens (less where windows are short).
    """
    if not texts:
        return []
    processor, most = base.processor, base.max_length
    lists: list[list[Any]] = [[] for _ in texts]
    cut: dict[str, Any] = {}
    if most is not None:
        room = max(2, most - processor.num_special_tokens_to_add(pair=contexts is not None))
        cut = {"max_length": most, "stride": min(stride, (room - 1) // 4), "return_overflowing_tokens": True,
               "truncation": "only_second" if contexts else "only_first"}
        texts = texts if contexts is None else [shortened(processor, text, room // 2) for text in texts]
    if not processor.is_fast:
        return [slow_windows(base, text, context, cut.get("stride", 0)) for text, context in
                zip(texts, contexts or [None] * len(texts), strict=True)]
    encoded = processor(texts, contexts, return_attention_mask=False, return_offsets_mapping=True, verbose=False, **cut)
    for number, owner in enumerate(encoded.get("overflow_to_sample_mapping", range(len(texts)))):
        whose = encoded.sequence_ids(number)
        places = [(start, end) if text == (contexts is not None) and text is not None and start < end else None
                  for text, (start, end) in zip(whose, encoded["offset_mapping"][number], strict=True)]
        lists[owner].append(example({name: encoded[name][number] for name in FED if name in encoded}, places, base))
    return lists


def example(fed: Any, places: Any, base: Base) -> dict[str, Any]:
    """Return what a model is fed, and the places of its pieces."""
    if one_type(base.config):
        fed.pop("token_type_ids", None)
    return {**fed, "places": places}


def shortened(processor: Any, text: str, most: Any) -> Any:
    """A text of at most so many tokens."""
    ids = processor(text, add_special_tokens=False, verbose=False)["input_ids"]
    return text if len(ids) <= most else processor.decode(ids[:most])


def slow_windows(base: Base, text: str, context: Any, stride: int) -> Any:
    """Windows by a tokenizer in Python, which does not say where its pieces come from."""
    processor = base.processor
    first = None if context is None else processor(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids, places = spelled(processor, text if context is None else context)
    room = len(ids)
    if base.max_length is not None:
        room = base.max_length - processor.num_special_tokens_to_add(pair=context is not None) - len(first or ())
    made = []
    for start in range(0, max(1, len(ids) - stride), max(1, room - stride)):
        parts = [part for part in (first, ids[start : start + room]) if part is not None]
        fed = processor.prepare_for_model(*parts, add_special_tokens=True, return_attention_mask=False, verbose=False)
        special = processor.get_special_tokens_mask(*parts)
        where = iter([None] * len(first or ()) + places[start : start + room])
        made.append(example({name: fed[name] for name in FED if name in fed},
                            [None if odd else next(where) for odd in special], base))
    return made


def spelled(processor: Any, text: str) -> tuple[Any, Any]:
    """Token ids of a text, word by word, with the place of each: its word, or its letter where tokens are letters."""
    ids: list[Any] = []
    places: list[Any] = []
    blank = processor(" ", add_special_tokens=False, verbose=False)["input_ids"]
    for match in re.finditer(r"\S+", text):
        found = processor(match[0], add_special_tokens=False, verbose=False)["input_ids"]
        start, end = match.span()
        letters = len(found) == end - start
        places += [None] * len(blank if ids else []) + [
            (start + n, start + n + 1) if letters else (start, end) for n in range(len(found))]
        ids += (blank if ids else []) + found
    return ids, places


def first_pieces(examples: Sequence[Example], words: Any) -> Any:
    """For each window, {position: word} of the first piece of each word; the text is the words with blanks between.

    The first is told from all windows, as one may begin within a word; a piece may take the blank before its word in.
    """
    ends, end = [], -1
    for word in words:
        end += 1 + len(word)
        ends.append(end)

    def word_of(place: Any) -> Any:
        index = bisect_right(ends, place[0]) if place else len(words)
        return index if index < len(words) and place[1] > ends[index] - len(words[index]) else None

    begins: dict[Any, Any] = {}
    for one in examples:
        for place in one["places"]:
            word = word_of(place)
            if word is not None:
                begins[word] = min(begins.get(word, place), place)
    found = []
    for one in examples:
        at: dict[Any, Any] = {}
        for position, place in enumerate(one["places"]):
            word = word_of(place)
            if word is not None and place == begins[word]:
                at.setdefault(word, position)
        found.append({position: word for word, position in at.items()})
    return found


def framed_windows(base: Base, texts: Any) -> Iterator[Any]:
    """The ids of each text in windows that share nothing, each framed as the tokenizer frames a text."""
    if not texts:
        return
    start, end = frame(base.processor)
    for ids in base.processor(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        room = max(1, len(ids) if base.max_length is None else base.max_length - len(start) - len(end))
        yield [[*start, *ids[place : place + room], *end] for place in range(0, max(1, len(ids)), room)]


def frame(processor: Any) -> tuple[Any, Any]:
    """The special tokens before and after a text."""
    inner = processor("a", add_special_tokens=False)["input_ids"]
    whole = processor("a")["input_ids"]
    place = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    return whole[:place], whole[place + len(inner) :]
