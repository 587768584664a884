"""Answers as data sets write them, as tokens, and as SQuAD scores them."""

from functools import lru_cache


def answers_of(value, context):
    """(text, first character) of each answer; none for a question without an answer.

    value: SQuAD's dict of lists, a list of such dicts, a string or strings; those without a place are looked for.
    """
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, str):
            texts, starts = [texts], [starts]
        value = list(zip(texts or (), starts or [None] * len(texts or ()), strict=False))
    elif isinstance(value, str):
        value = [value]
    pairs = [item if isinstance(item, tuple) else (item.get("text"), item.get("answer_start")) if isinstance(item, dict)
             else (item, None) for item in value or ()]
    return [(text, context.find(text) if start is None else int(start)) for text, start in pairs if text]


def span_in(places, text, start):
    """The first and the last token of an answer; None where the window does not hold all of it."""
    end = start + len(text)
    touched = [n for n, place in enumerate(places) if place and place[0] < end and place[1] > start]
    if not touched or places[touched[0]][0] > start or places[touched[-1]][1] < end:
        return None
    return touched[0], touched[-1]


@lru_cache(maxsize=100_000)
def squad(found, gold):
    """exact_match and f1 of one answer, from 0 to 1; kept, as scores are asked for again on resampled rows."""
    from torchmetrics.functional.text import squad as library

    target = {"answers": {"text": list(gold) or [""], "answer_start": [0] * max(1, len(gold))}, "id": "0"}
    scores = library([{"prediction_text": found, "id": "0"}], [target])
    return {name: float(value) / 100 for name, value in scores.items()}
