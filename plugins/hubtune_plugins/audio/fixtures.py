"""Test data of the tasks: small rows that a tiny model can learn, and the right answers.

Every function gives `count` rows by role, the same at every call.
"""

from __future__ import annotations

import math
import random
from typing import Any

from hubtune import Base, Row
from hubtune.testing import TaskFixture
from hubtune_plugins.writing.likelihood import Writing
from hubtune_plugins.writing.right_answers import certain


def labelled(count: int) -> list[Any]:
    """Sounds of two, three or four tones, all low or all high, which is their label."""
    draw = random.Random(0)
    pitches = {"low": 200.0, "high": 2000.0}
    return [{"audio": tone(draw, [pitches[label]] * (2 + row % 3)), "label": label}
            for row, label in zip(range(count), list(pitches) * count, strict=False)]


def spelt(count: int) -> list[Any]:
    """Sounds that spell their text: one pitch for each of two or three different letters."""
    draw, pitches = random.Random(0), {"a": 200.0, "b": 800.0, "c": 3200.0}
    texts = ["".join(draw.sample("abc", 2 + row % 2)) for row in range(count)]
    return [{"audio": tone(draw, [pitches[letter] for letter in text]), "text": text} for text in texts]


def tone(draw: Any, pitches: Any, length: Any = 0.12, rate: int = 16000) -> dict[str, Any]:
    """A sound: one pitch in Hz after the other, each `length` seconds long with a little silence behind."""
    samples = []
    for pitch in pitches:
        phase, count = draw.uniform(0, 6.28), int(length * rate * draw.uniform(0.9, 1.1))
        wave = (0.5 * math.sin(phase + 6.2832 * pitch * n / rate) for n in range(count))
        samples += [round(value + draw.gauss(0, 0.01), 4) for value in wave]
        samples += [0.0] * (rate // 50)
    return {"array": samples, "sampling_rate": rate}


class SoundLabels(TaskFixture):
    """Sounds of low or high tones, which is the label."""

    def sample(self, task: Any, count: int) -> Any:
        return labelled(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return task.kind.gold(row["label"], task.names, base.config)


class Transcripts(TaskFixture):
    """Sounds that spell their text."""

    def sample(self, task: Any, count: int) -> Any:
        return spelt(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        likelihood = certain(task, row, base) if isinstance(task, Writing) else {}
        return {**likelihood, "text": task.written(row["text"])}
