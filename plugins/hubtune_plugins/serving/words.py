"""Which words mattered: the probability that a text loses when a word is left out (occlusion)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hubtune import Prediction, Row
from hubtune_plugins.serving.limits import Limits, Refusal

WORD = re.compile(r"\S+")


def variants(row: Row, role: str, limits: Limits) -> list[Row]:
    """Return the row, and the row without each of its words.

    Raises:
        Refusal: 422, the text is one word; 413, it has more than are weighed.
    """
    spans = [found.span() for found in WORD.finditer(row[role])]
    if len(spans) < 2:
        raise Refusal(422, "a text of one word has nothing to leave out.", "Send a sentence.")
    if len(spans) > limits.words:
        raise Refusal(413, f"it has {len(spans)} words; {limits.words} are weighed.", "Send a shorter text.")
    text = row[role]
    return [row, *({**row, role: text[:start] + text[end:].lstrip()} for start, end in spans)]


def weights(row: Row, role: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the label, and of each word how much of the label's probability goes when it is left out.

    predictions: of `variants`. The weights need not add up to the probability: words work together.
    """
    whole, *others = predictions
    label = whole["label"] if isinstance(whole.get("label"), str) else max(whole["probabilities"], key=whole["probabilities"].get)
    at = whole["probabilities"][label]
    return {
        "label": label, "probability": at,
        "words": [{"word": found[0], "start": found.start(), "end": found.end(), "weight": at - other["probabilities"][label]}
                  for found, other in zip(WORD.finditer(row[role]), others, strict=True)],
    }
