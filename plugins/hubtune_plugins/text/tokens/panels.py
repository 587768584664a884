"""Parts of the page of tagged words: errors of spans by type, or a confusion matrix of tags, and the worst rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hubtune import BarsPanel, MatrixPanel, Panel, RowsPanel, ShownRow
from hubtune_plugins.text.tokens.tags import spans

KINDS = ("right", "wrong type", "wrong borders", "missed", "invented")
"""What became of a span: found; with its words and another type; overlapped by another; not found; given where none is."""


def of_spans(gold: Any, found: Any, texts: Sequence[Sequence[str]]) -> list[Panel]:
    """Panels of tags that mark spans. gold, found: the tags of each row. texts: its words."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    shown = []
    for row, (right, given) in enumerate(zip(gold, found, strict=True)):
        truth, guess = spans(tuple(right)), spans(tuple(given))
        errors = 0
        for kind, name in judged(truth, guess):
            counts[kind][name] += 1
            errors += kind != "right"
        if errors:
            shown.append(ShownRow(row, written(truth, texts[row]), written(guess, texts[row]), errors))
    bars = {kind: {name: float(number) for name, number in sorted(found.items())} for kind, found in counts.items() if found}
    note = ("Spans by their right type, those that were invented by the given one. Wrong borders: the given span has some of "
            "its words, and not all of them or more.")
    return [BarsPanel("Errors of spans by type", "spans", bars, note=note),
            RowsPanel("Worst rows", shown, note="The rows with the most spans that were not found as they are, or invented.")]


def judged(truth: Any, guess: Any) -> list[tuple[str, str]]:
    """Return what became of each right span, and each invented one: (one of `KINDS`, type)."""
    places = {(start, end): kind for kind, start, end in guess}
    said, met = [], set()
    for kind, start, end in truth:
        touched = [(left, right) for left, right in places if left < end and start < right]
        met.update(touched)
        if places.get((start, end)) == kind:
            said.append(("right", kind))
        elif (start, end) in places:
            said.append(("wrong type", kind))
        else:
            said.append(("wrong borders" if touched else "missed", kind))
    return said + [("invented", kind) for place, kind in places.items() if place not in met]


def written(found: Any, words: Sequence[str]) -> str:
    """Return spans as text: `location: New York; person: Ada`."""
    return "; ".join(f"{kind}: {' '.join(words[start:end])}" for kind, start, end in found) or "nothing"


def of_words(right: Sequence[int], given: Sequence[int], labels: Sequence[str]) -> list[Panel]:
    """Panels of tags of single words. right, given: ids (words,)."""
    cells = Counter(zip(right, given, strict=True))
    return [MatrixPanel("Confusion matrix", labels, [(*pair, count) for pair, count in sorted(cells.items())],
                        note=f"Of {len(right)} words.")]
