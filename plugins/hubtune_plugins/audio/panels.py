"""Parts of the page of speech: error rates by length, and the worst rows with their sounds."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from hubtune import BarsPanel, Panel, RowsPanel, ShownRow
from hubtune_plugins.audio.sounds import decode

HEARD = 12
"""Seconds of a sound that the page plays."""
RATE = 16000
EDGES = (1, 4, 8, 16, 32)
"""Words from which a group of the error rates begins."""
SHOWN = 12
"""Rows to look at."""


def media(value: Any) -> str | None:
    """Return the beginning of a sound as MP3 in a `data:` address; None where it cannot be written."""
    import soundfile

    file = io.BytesIO()
    try:
        soundfile.write(file, decode(value, RATE)[: HEARD * RATE], RATE, format="MP3")
    except (soundfile.SoundFileError, ValueError, TypeError):  # a libsndfile without MP3
        return None
    return f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def counted(rows: Sequence[int]) -> str:
    """Return how many rows there are: `1 row`, `2 rows`."""
    return f"{len(rows)} row{'s' * (len(rows) > 1)}"


def of_texts(gold: Sequence[str], found: Sequence[str], sounds: Sequence[Any]) -> list[Panel]:
    """Panels of texts that were heard. sounds: of each row, as the data has them."""
    import jiwer

    groups: dict[str, list[int]] = {}
    for row, text in enumerate(gold):
        words = len(text.split())
        start = max((edge for edge in EDGES if edge <= words), default=1)
        after = next((edge for edge in EDGES if edge > start), None)
        groups.setdefault(f"{start} to {after - 1} words" if after else f"{start} words or more", []).append(row)
    ordered = sorted(groups, key=lambda name: int(name.split()[0]))
    rates = {f"{name} ({counted(groups[name])})": float(jiwer.wer([gold[row] for row in groups[name]],
                                                                  [found[row] for row in groups[name]])) for name in ordered}
    each = [float(jiwer.wer(gold[row], found[row])) if gold[row].strip() else float(bool(found[row].strip()))
            for row in range(len(gold))]
    worst = sorted(range(len(gold)), key=lambda row: -each[row])[:SHOWN]
    rows = [ShownRow(row, gold[row], f"{found[row] or '(nothing)'}\nword error rate {each[row]:.2f}", each[row], media(sounds[row]))
            for row in worst]
    return [BarsPanel("Word error rate by length", "word error rate", {"model": rates}, note="By the number of words that are right."),
            RowsPanel("Worst rows", rows, note="The rows with the highest word error rate.")]
