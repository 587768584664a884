"""Text classification: one label, several labels or a number per text, or per pair of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    ModelSetup,
    Row,
    Rows,
    Task,
    UserCall,
    hookimpl,
)
from hubtune_plugins.classification.labelled import Labelled, LabelOptions
from hubtune_plugins.text import usages
from hubtune_plugins.tokenization.texts import pad, pad_token, tokenise


@dataclass(frozen=True)
class ClassificationOptions(LabelOptions):
    """Options of labels."""


class TextClassification(Labelled):
    """One label per text, several labels, or a number; of one text or of two."""

    name = "text-classification"
    summary = "a label, several labels or a number for a text or a pair of texts"
    model = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    fixture = "hubtune_plugins.text.fixtures:Classification"
    Options = ClassificationOptions
    columns: ClassVar[tuple[Column, ...]] = (
        Column("text", ("text", "sentence", "sentence1", "text1", "premise", "question1", "review", "content", "comment",
                        "tweet", "message", "sms", "body", "utterance", "query", "question", "document", "title")),
        Column("text_pair", ("text_pair", "sentence2", "text2", "hypothesis", "question2"), needed="never"),
        Column("label", ("label", "labels", "class", "category", "intent", "target", "score", "rating", "stars",
                         "sentiment", "label_name", "y"), kind="label", needed="train"),
    )

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        return pad_token(base) | super().model_config(dataset_info, base)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        texts = [row["text"] for row in rows]
        pairs = [row["text_pair"] for row in rows] if texts and "text_pair" in rows[0] else None
        for row, example in zip(rows, tokenise(base, texts, pairs) if texts else (), strict=True):
            yield [self.with_target(example, row, base)]

    def num_tokens(self, example: Example) -> int:
        return len(example["input_ids"])

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        return self.batch(pad(base, examples), examples)

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        pair = row.get("text_pair")
        asked = row["text"] if pair is None else {"text": row["text"], "text_pair": pair}
        return UserCall("pipeline", asked, {"top_k": None, "truncation": True})

    def usage(self, repo: str, base: Base) -> str:
        if self.label_kind() == "multi_label":
            return usages.several_labels(repo, self.options.threshold)
        return super().usage(repo, base).replace('day")', 'day", truncation=True)')


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [TextClassification]
