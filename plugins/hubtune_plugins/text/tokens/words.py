"""Words and their tags as cells of data, as pieces of windows, and as one answer from all windows of a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hubtune import Base, DataError, Prediction, Rows, column_values, label_space
from hubtune_plugins.text.tokens.tags import learnt, listed, scheme_of, spans
from hubtune_plugins.text.tokens.windows import first_pieces, windows
from hubtune_plugins.tokenization.texts import refuse

HINT = "One tag a word, as lists or as strings that blanks divide."


def refuse_wordless(texts: Any, split: str) -> None:
    """Refuse rows, as lists of words, in which there is none."""
    refuse([index for index, words in enumerate(texts) if not any(word.strip() for word in words)], texts, split,
           "rows have no words", HINT)


def refuse_untagged(rows: Rows, split: str) -> None:
    """Refuse rows that have not one tag for every word."""
    refuse_wordless(column_values(rows, "tokens", make=listed), split)
    both = column_values(rows, "tokens", "tags", make=lambda tokens, tags: (listed(tokens), listed(tags)))
    refuse([index for index, (words, tags) in enumerate(both) if len(words) != len(tags) or not all(tags)], rows, split,
           "rows have another number of tags than of words, or a word without a tag", HINT)


def dataset_info(splits: Mapping[str, Rows], scheme: str) -> dict[str, Any]:
    """The scheme of the rows' tags, auto: as they look, and the ordered labels that a model learns for them.

    Of spans these are O and then B- and I- of each type.
    """
    raw = {split: column_values(rows, "tags", make=listed) for split, rows in splits.items()}
    if scheme == "auto":
        scheme = scheme_of({tag for tags in raw["train"] for tag in tags})
    counts = Counter(tag for tags in raw["train"] for tag in learnt(tags, scheme))
    if scheme == "words":
        return {"scheme": scheme, "labels": label_space(raw), "counts": counts}
    types = label_space({split: column_values(rows, "tags", make=lambda cell: kinds_in(listed(cell), scheme)) for split, rows in splits.items()})
    return {"scheme": scheme, "labels": ["O", *(f"{part}-{kind}" for kind in types if kind != "O" for part in "BI")], "counts": counts}


def kinds_in(tags: Any, scheme: str) -> list[Any]:
    """O, and the type of every span."""
    return ["O", *(kind for kind, _, _ in spans(tuple(learnt(tags, scheme))))]


def known(tags: Any, ids: Any) -> Any:
    """The tags, once each is one of the model's, whose ids are given."""
    strange = [tag for tag in tags if tag not in ids]
    if strange:
        raise DataError(f"the tag {strange[0]!r} is none of the model's: {', '.join(map(repr, ids))}.")
    return tags


def placed(base: Base, texts: Any, stride: int) -> Iterator[Any]:
    """Windows over each text, given as words; their `places` hold, per piece, the word that it is the first of, or None."""
    for words, examples in zip(texts, windows(base, [" ".join(words) for words in texts], stride=stride), strict=True):
        for example, first in zip(examples, first_pieces(examples, words), strict=True):
            example["places"] = [first.get(position) for position in range(len(example["input_ids"]))]
        yield examples


def tags_seen(places: Any, values: Any, ids: Any, config: Any) -> dict[str, Any]:
    """The tag of each word of a window, from the likeliest tags of its pieces, their probabilities and ids (pieces,);
    `context`: how many pieces a word is from the window's nearer end."""
    values, ids = values.tolist(), ids.tolist()
    at = [position for position, word in enumerate(places) if word is not None]
    return {"words": [places[p] for p in at], "tags": [config.id2label[ids[p]] for p in at],
            "probabilities": [values[p] for p in at], "context": [min(p, len(places) - 1 - p) for p in at]}


def joined(parts: Sequence[Prediction], count: int, missing: Any) -> tuple[Any, Any]:
    """The tags of `count` words and their probabilities, each from the window that shows most of what is around it.

    missing: the tag of a word that the tokenizer leaves out, such as a control character.
    """
    best: dict[Any, Any] = {}
    for part in parts:
        for word, *seen in zip(*(part[key] for key in ("words", "context", "tags", "probabilities")), strict=True):
            best[word] = max(best.get(word, [-1]), seen, key=lambda one: one[0])
    chosen = [best.get(index, [0, missing, 0.0]) for index in range(count)]
    return [tag for _, tag, _ in chosen], [probability for *_, probability in chosen]


def spans_of(words: Any, tags: Any, probabilities: Any) -> list[Any]:
    """The spans that tags mark, with their text and mean probability. A span's `end` is the word after it."""
    return [{"type": kind, "start": start, "end": end, "text": " ".join(words[start:end]),
             "score": sum(probabilities[start:end]) / (end - start)} for kind, start, end in spans(tuple(tags))]
