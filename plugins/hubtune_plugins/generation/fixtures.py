"""Test data of the tasks: small rows that a tiny model can learn, and the right answers.

Every function gives `count` rows by role, the same at every call.
"""

from __future__ import annotations

from typing import Any

from hubtune import Base, Row
from hubtune.testing import TaskFixture
from hubtune_plugins.generation.conversations import answer_of
from hubtune_plugins.writing.right_answers import certain

WORDS = ("river", "kettle", "chair", "parcel", "book", "hotel", "film", "soup")


def instructions(count: int) -> list[Any]:
    """To say a word so many times, and that."""
    asked = [(WORDS[i % 8], i // 8 + 2) for i in range(count)]
    return [{"prompt": f"Say {word} {times} times.", "completion": " ".join([word] * times)} for word, times in asked]


def preferences(count: int) -> list[Any]:
    """The same, and to refuse it."""
    return [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "No."} for row in instructions(count)]


def rewritten(count: int) -> list[Any]:
    """Two things, and the first of them with a number."""
    return [{"text": f"a {WORDS[i % 8]} and a {WORDS[(i // 8 + 3) % 8]}", "target": f"{WORDS[i % 8]} {i // 8 + 1}"}
            for i in range(count)]


class Instructions(TaskFixture):
    """Prompts with their answers."""

    def sample(self, task: Any, count: int) -> Any:
        return instructions(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        text = {} if task.form == "text" else {"text": answer_of(row)}
        return {**certain(task, row, base), **text}


class Preferences(TaskFixture):
    """Prompts with a chosen and a rejected answer."""

    def sample(self, task: Any, count: int) -> Any:
        return preferences(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        return {"chosen": 0.0, "rejected": -100.0, "reward_margin": 100.0}


class Rewards(Preferences):
    """Prompts with a chosen and a rejected answer, scored by a reward model."""

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        return {"chosen": 1.0, "rejected": -1.0, "margin": 2.0}


class Rewriting(TaskFixture):
    """Texts with their targets."""

    def sample(self, task: Any, count: int) -> Any:
        return rewritten(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        return {**certain(task, row, base), "text": row["target"]}
