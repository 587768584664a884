"""Tags of words: what schemes there are, the spans that they mark, and how right those are."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import Any

from hubtune import label_text
from hubtune_plugins.classification.scores import class_scores, class_table

PREFIXED = re.compile(r"[BIESLU]-.+")


def listed(cell: Any) -> Any:
    """A list of words or tags; blanks divide those of a string."""
    return cell.split() if isinstance(cell, str) else [None if item is None else label_text(item) for item in cell or ()]


def scheme_of(known: Any) -> str:
    """`bio` where each of several tags is O or says where in a span its word is, else `words`."""
    return "bio" if len(known) > 1 and all(tag == "O" or PREFIXED.fullmatch(tag) for tag in known) else "words"


def learnt(tags: Any, scheme: str) -> Any:
    """The tags of a row as a model learns them: spans in IOB2, whose parts pipelines know how to join."""
    if scheme == "io":
        tags = [tag if tag == "O" else f"I-{tag}" for tag in tags]
    return tags if scheme == "words" else iob2(tags)


@lru_cache(maxsize=100_000)
def spans(tags: Any) -> tuple[Any, ...]:
    """(type, start, end) of the spans in a tuple of tags, end exclusive, read as CoNLL's evaluation script reads them.

    That is IOB1, IOB2, BIOES and BILOU alike, and no tag is wrong: a span goes on while its type does, and begins anew
    after the end (E, L) or a single word (S, U) of another, or where a tag says so (B, S, U).
    """
    found, last, begin = [], "O", 0
    for index, tag in enumerate((*tags, "O")):
        same = tag != "O" != last and tag.partition("-")[2] == last.partition("-")[2]
        if not same or tag[0] in "BSU" or last[0] in "ESLU":
            if last != "O":
                found.append((last.partition("-")[2], begin, index))
            begin = index
        last = tag
    return tuple(found)


def iob2(tags: Any) -> Any:
    """The same spans in IOB2: B- on the first word of each, I- on the others."""
    written = ["O"] * len(tags)
    for kind, start, end in spans(tuple(tags)):
        written[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return written


def span_scores(gold: Any, found: Any) -> Any:
    """Precision, recall and F1 of spans over all rows; right is a span with the right words and the right type.

    Our own: neither scikit-learn nor torchmetrics counts spans. Tested against seqeval.
    """
    return ratios(sum(len(set(spans(tuple(g))) & set(spans(tuple(f)))) for g, f in zip(gold, found, strict=True)),
                  sum(len(spans(tuple(f))) for f in found), sum(len(spans(tuple(g))) for g in gold))


def ratios(right: Any, given: Any, wanted: Any) -> dict[str, Any]:
    """Precision, recall and F1 from counts."""
    return {"precision": right / given if given else 0.0, "recall": right / wanted if wanted else 0.0,
            "f1": 2 * right / (given + wanted) if given + wanted else 0.0}


def span_table(gold: Any, found: Any) -> dict[Any, Any]:
    """Precision, recall, F1 and support per type."""
    right: Counter[str] = Counter()
    given: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for g, f in zip(gold, found, strict=True):
        truth, guess = spans(tuple(g)), spans(tuple(f))
        wanted.update(kind for kind, _, _ in truth)
        given.update(kind for kind, _, _ in guess)
        right.update(kind for kind, _, _ in set(truth) & set(guess))
    return {kind: {**ratios(right[kind], given[kind], wanted[kind]), "support": wanted[kind]}
            for kind in sorted(set(wanted) | set(given))}


def tag_scores(gold: Any, found: Any, ids: Any, scheme: str) -> dict[str, float]:
    """Scores of rows of tags: of their spans, or of single words as `ids`, which hold the id of each tag, name them."""
    right, given = flattened(gold, found, ids)
    flat = class_scores(right, given, len(ids))
    return flat if scheme == "words" else {**span_scores(gold, found), "accuracy": flat["accuracy"]}


def tag_table(gold: Any, found: Any, ids: Any, scheme: str) -> dict[str, Any]:
    """Precision, recall, F1 and support per type of span, or per tag."""
    if scheme != "words":
        return span_table(gold, found)
    right, given = flattened(gold, found, ids)
    return class_table(right, given, list(ids))


def flattened(gold: Any, found: Any, ids: Any) -> tuple[list[int], list[int]]:
    """The ids of all words of all rows, right and given."""
    right, given = ([ids[tag] for tags in side for tag in tags] for side in (gold, found))
    return right, given
