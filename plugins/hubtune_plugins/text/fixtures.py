"""Test data of the tasks: small rows that a tiny model can learn, and the right answers.

Every function gives `count` rows by role, the same at every call. Words come round at different paces, so
that no row says what the next one is.
"""

from __future__ import annotations

from typing import Any

from hubtune import Base, Row
from hubtune.testing import TaskFixture
from hubtune_plugins.text import choices
from hubtune_plugins.text.passages import graded
from hubtune_plugins.text.similarity.likeness import KINDS, kind_of
from hubtune_plugins.text.tokens import answers
from hubtune_plugins.text.tokens.tags import iob2, listed


def labelled(count: int, kind: Any) -> Any:
    """Texts whose one telling word says the label: one, several or a number, as `kind` asks for."""
    groups = (("negative", "awful"), ("positive", "lovely"), ("neutral", "square"))
    things = ("film", "room", "soup", "walk", "chair")
    rows = []
    for index in range(count):
        name, word = groups[index % 3]
        label = {"multi_label": [name, "long"] if index % 2 else [name], "regression": index % 3 - 0.5}.get(kind, name)
        rows.append({"text": f"{'What can one say, ' if index % 2 else ''}a {word} {things[index % 5]}", "label": label})
    return rows


def tagged(count: int) -> Any:
    """People and places as spans of one or two words, in IOB2."""
    people, places = ("Ada", "Ada Lovelace", "Tom", "Tom Brown"), ("Rome", "New York", "Paris")
    rows = []
    for index in range(count):
        who, where = people[index % 4].split(), places[index % 3].split()
        does = ["lives", "in"] if index % 2 else ["never", "saw"]
        tags = ["I-person"] * len(who) + ["O", "O"] + ["I-place"] * len(where) + ["O"]
        rows.append({"tokens": [*who, *does, *where, "."], "tags": iob2(tags)})
    return rows


def asked(count: int) -> Any:
    """Questions for a person or a place in a context, the answer as SQuAD writes it."""
    people, places = ("Ada", "Tom Brown", "Mia", "Sam"), ("Rome", "New York", "Paris")
    rows = []
    for index in range(count):
        who, where = people[index % 4], places[index % 3]
        context = f"It was late. {who} lives in {where}, near the river."
        question, answer = (f"Where does {who} live?", where) if index % 2 else (f"Who lives in {where}?", who)
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        rows.append({"question": question, "context": context, "answers": answers})
    return rows


def chosen(count: int) -> Any:
    """The right choice is what people do, the others, two or three, what they cannot do."""
    sensible = ("makes tea.", "opens the door.", "reads a book.", "calls a friend.")
    absurd = ("drinks the moon.", "swims through a wall.", "eats the river.", "flies under a stone.", "melts the moon.")
    rows = []
    for index in range(count):
        choices = [absurd[(index + n) % 5] for n in range(2 + index % 2)]
        choices.insert(index % 3, sensible[index % 4])
        rows.append({"question": f"It is {index % 7 + 3} o'clock. She", "choices": choices, "label": index % 3})
    return rows


def alike(count: int) -> Any:
    """Pairs of sentences about a thing and its state: three points for the same thing, two for the same state."""
    things, states = ("kettle", "train", "garden", "film", "phone"), ("new", "broken", "lovely", "late")
    rows = []
    for index in range(count):
        thing, state = things[index % 5], states[index % 4]
        other, changed = things[(index + index // 7 % 2) % 5], states[(index + index // 3 % 2) % 4]
        score = 3.0 * (thing == other) + 2.0 * (state == changed)
        rows.append({"text": f"The {thing} is {state}.", "text_pair": f"My {other} was {changed}, I think.", "label": score})
    return rows


def repeated(count: int) -> list[Any]:
    """Texts that name their animal twice, so that either name can be found from the other."""
    things, verbs = ("cat", "dog", "bird", "fish"), ("sleeps", "waits", "sings", "swims")
    return [{"text": f"The {things[i % 4]} {verbs[i % 4]}, and the {things[i % 4]} is glad."} for i in range(count)]


def ranked(count: int) -> Any:
    """Passages for a question about a thing and its state: three points for both, one for the thing alone."""
    things, states = ("kettle", "train", "garden", "film", "phone"), ("new", "broken", "lovely", "late")
    rows = []
    for index in range(count):
        thing, state = things[index % 5], states[index % 4]
        grades = [(f"The {thing} is {state}.", 3.0), (f"A {thing} was here.", 1.0), ("Nothing to say.", 0.0),
                  (f"The {things[(index + 2) % 5]} is far away.", 0.0)]
        turned = grades[index % 4:] + grades[: index % 4]
        rows.append({"query": f"Which {thing} is {state}?", "passages": [text for text, _ in turned], "grades": [grade for _, grade in turned]})
    return rows


class Ranking(TaskFixture):
    """Queries with graded passages."""

    def sample(self, task: Any, count: int) -> Any:
        return ranked(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        return {"scores": graded.grades_of(row)}


class Classification(TaskFixture):
    """Labels of texts, of the kind that the task asks for."""

    def sample(self, task: Any, count: int) -> Any:
        return labelled(count, task.options.kind if hasattr(task.options, "kind") else "single_label")

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return task.kind.gold(row["label"], task.names, base.config)


class TokenTags(TaskFixture):
    """Tags of words."""

    def sample(self, task: Any, count: int) -> Any:
        return tagged(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        tags = task.right(row["tags"], base)
        return task.answer(listed(row["tokens"]), tags, [1.0] * len(tags))


class Answers(TaskFixture):
    """Questions about a context."""

    def sample(self, task: Any, count: int) -> Any:
        return asked(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return answers.sure(row)


class Choices(TaskFixture):
    """Questions with a few answers to choose from."""

    def sample(self, task: Any, count: int) -> Any:
        return chosen(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return task.merge([choices.sure(row)], row, base)


class Similarity(TaskFixture):
    """Pairs of texts with a score."""

    def sample(self, task: Any, count: int) -> Any:
        return alike(count)

    def gold(self, task: Any, row: Row, base: Base) -> Any:
        return KINDS[kind_of([row], task.options.kind)].gold(row)


class MaskedTexts(TaskFixture):
    """Texts whose words can be guessed."""

    def sample(self, task: Any, count: int) -> Any:
        return repeated(count)

    def gold(self, task: Any, row: Row, base: Base) -> dict[str, Any]:
        return {"nll": 0.0, "tokens": 1, "hits": 1}
