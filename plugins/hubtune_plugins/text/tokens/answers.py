"""Answers as data sets write them, as spans of tokens, as a user reads them, and as SQuAD scores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from re import sub
from string import punctuation
from typing import Any

from hubtune import Base, Prediction, Row, Rows, column_values, exact
from hubtune_plugins.text.tokens.windows import windows
from hubtune_plugins.tokenization.texts import refuse

NOTHING = (0, 0)
"""The place of the answer that a window has none: at the classification token, or the first where there is no such."""


def answers_of(value: Any, context: Any) -> list[Any]:
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


def refuse_misplaced(rows: Rows, split: str, unanswerable: Any) -> None:
    """Refuse questions without an answer, unless they may be so, and answers that are not where the data says."""
    found = column_values(rows, "context", "answers", make=lambda context, value: (context, answers_of(value, context)))
    if not unanswerable:
        empty = [index for index, (_, answers) in enumerate(found) if not answers]
        refuse(empty, rows, split, "questions have no answer", hint="If that is meant: --set task.unanswerable=true")
    wrong = [index for index, (context, answers) in enumerate(found)
             if any(start < 0 or context[start : start + len(text)] != text for text, start in answers)]
    refuse(wrong, rows, split, "answers do not stand where they should in their context", hint="An answer is a string of the "
           'context, or {"text": [...], "answer_start": [...]}, counted in characters from 0.')


def windowed(base: Base, rows: Rows, stride: int) -> Iterator[Any]:
    """Windows over each row's context; `target`: the first and the last token of the answer, where the row has one. The
    places of tokens that may answer have their characters, that of no answer NOTHING.
    """
    questions, contexts = [row["question"].strip() for row in rows], [row["context"] for row in rows]
    for row, examples in zip(rows, windows(base, questions, contexts, stride), strict=True):
        right = None if row.get("answers") is None else answers_of(row["answers"], row["context"])
        for example in examples:
            ids, places = list(example["input_ids"]), example["places"]
            null = ids.index(base.processor.cls_token_id) if base.processor.cls_token_id in ids else 0
            if right is not None:
                example["target"] = (right and span_in(places, *right[0])) or (null, null)
            places[null] = NOTHING
        yield examples


def span_in(places: Any, text: str, start: Any) -> tuple[Any, Any] | None:
    """The first and the last token of an answer; None where the window does not hold all of it."""
    end = start + len(text)
    touched = [n for n, place in enumerate(places) if place and place[0] < end and place[1] > start]
    if not touched or places[touched[0]][0] > start or places[touched[-1]][1] < end:
        return None
    return touched[0], touched[-1]


def span_logs(outputs: Any, mask: Any, places: Any) -> list[Any]:
    """Log-probabilities of being the first and the last token, (examples, longest) each: of the context's tokens and of
    no answer, so that neither padding nor the question takes part.

    mask (examples, longest): what is no padding. places: per example those of its tokens, None where none may be.
    """
    import torch

    mask = mask.bool()
    closed = ~mask
    closed[mask] = torch.tensor([place is None for row in places for place in row], device=mask.device)
    both = (logits[:, -mask.shape[1] :] for logits in (outputs.start_logits, outputs.end_logits))
    return [exact(logits).masked_fill(closed, float("-inf")).log_softmax(-1) for logits in both]


def likeliest(places: Any, start: Any, end: Any, longest: Any) -> dict[str, Any]:
    """The best span of at most `longest` tokens, by its characters, with its log-probability `log` beside that of no
    answer, `null`. start, end: log-probabilities of a window's tokens, (length,) each."""
    import torch

    places = [place and tuple(place) for place in places]  # kept examples have lists
    null = places.index(NOTHING)
    spans = start[:, None] + end[None, :]
    nothing = float(spans[null, null])
    allowed = torch.ones_like(spans, dtype=torch.bool).triu().tril(longest - 1)
    allowed[null] = allowed[:, null] = False
    spans = spans.masked_fill(~allowed, float("-inf"))
    first, last = divmod(int(spans.argmax()), len(places))
    return {"start": places[first][0], "end": places[last][1], "log": float(spans[first, last]), "null": nothing}


def best_of(parts: Sequence[Prediction], context: Any, threshold: float | None) -> Prediction:
    """The likeliest span of all windows, against the window where no answer is least likely.

    threshold: how much likelier, as a difference of log-probabilities, no answer must be; None: there is one.
    """
    best, null = max(parts, key=lambda part: part["log"]), min(part["null"] for part in parts)
    if threshold is not None and null - best["log"] > threshold:
        return no_answer(null)
    return answer(context, best["start"], best["end"], best["log"])


def sure(row: Row) -> Any:
    """The answer of whoever knows."""
    for text, start in answers_of(row["answers"], row["context"]):
        return answer(row["context"], start, start + len(text), 0.0)
    return no_answer(0.0)


def answer(context: Any, start: Any, end: Any, log: Any) -> dict[str, Any]:
    """The characters from `start` to `end` as an answer of a log-probability, without the blanks around them."""
    from math import exp

    text = context[start:end]
    start += len(text) - len(text.lstrip())  # pieces of some tokenizers begin with the blank before them
    return {"answer": text.strip(), "start": start, "end": start + len(text.strip()), "score": exp(log)}


def no_answer(log: Any) -> dict[str, Any]:
    """The answer of a log-probability that there is none."""
    from math import exp

    return {"answer": "", "start": None, "end": None, "score": exp(log)}


def squad_scores(predictions: Sequence[Prediction], rows: Rows) -> dict[Any, Any]:
    """exact_match and f1 as SQuAD defines them, from 0 to 1, over all rows."""
    found = [squad(prediction["answer"], tuple(text for text, _ in answers_of(row["answers"], row["context"])))
             for prediction, row in zip(predictions, rows, strict=True)]
    return {name: sum(one[name] for one in found) / len(found) for name in ("exact_match", "f1")}


@lru_cache(maxsize=100_000)
def squad(found: Any, gold: Any) -> dict[str, Any]:
    """exact_match and f1 of one answer, from 0 to 1: the best over the gold answers (Rajpurkar et al., arXiv:1606.05250).

    gold: a tuple of texts; none for a question without an answer. Cached, as resampling asks for the same scores again.
    """
    answer = normalize(found)
    golds = [normalize(text) for text in gold] or [[]]
    return {"exact_match": float(answer in golds), "f1": max(overlap(answer, words) for words in golds)}


def normalize(text: str) -> Any:
    """The words of an answer as SQuAD compares them: in lower case, without punctuation and articles."""
    text = "".join(character for character in text.lower() if character not in punctuation)
    return sub(r"\b(a|an|the)\b", " ", text).split()


def overlap(found: Any, gold: Any) -> Any:
    """F1 of two lists of words, counted with repetition; of empty ones, whether both are."""
    if not found or not gold:
        return float(found == gold)
    common = (Counter(found) & Counter(gold)).total()
    return 2 * common / (len(found) + len(gold))
