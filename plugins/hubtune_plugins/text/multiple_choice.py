"""Multiple choice: which of a few texts fits best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    Loss,
    Metric,
    Prediction,
    Row,
    Rows,
    Task,
    UserCall,
    hookimpl,
)
from hubtune_plugins.text import choices, usages
from hubtune_plugins.tokenization.texts import SeveralTexts, targets_of, tokenise

if TYPE_CHECKING:
    from torch.nn import Module


class MultipleChoice(SeveralTexts):
    """The model gives each choice a number, beside its question; rows may have different numbers of choices."""

    name = "multiple-choice"
    summary = "which of a few texts continues or answers another"
    model = "AutoModelForMultipleChoice"
    pipeline_tag = "multiple-choice"
    fixture = "hubtune_plugins.text.fixtures:Choices"
    metric = Metric("accuracy")
    shares = ("accuracy",)
    columns = (
        Column("question", ("question", "sent2", "prompt", "sentence", "startphrase", "sent1", "query", "ctx", "premise",
                            "goal", "stem", "text")),
        Column("choices", ("choices", "options", "endings", "answers", "candidates", "alternatives"), kind="texts"),
        Column("context", ("context", "passage", "article", "sent1", "paragraph", "story", "support"), needed="never"),
        Column("label", ("label", "answer", "answerkey", "answer_key", "gold", "correct", "target", "labels"), kind="label",
               needed="train"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        for split, rows in splits.items():
            choices.refuse_unclear(rows, split)
        return {}

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for row in rows:
            firsts, seconds = choices.pairs(row)
            target = {} if row.get("label") is None else {"target": choices.right(row)}
            yield [{"texts": tokenise(base, firsts, seconds), **target}]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        inputs = choices.stacked(base, [example["texts"] for example in examples])
        return Batch(inputs, targets_of(examples), len(examples))

    def forward(self, model: Module, batch: Batch) -> Any:
        """Logits (rows, most choices): minus infinity where a row has fewer."""
        return choices.choice_logits(super().forward(model, batch).logits, batch.inputs["choices"])

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        from torch.nn.functional import cross_entropy

        return Loss(cross_entropy(outputs, batch.targets, reduction="sum"))

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        rows = zip(outputs.softmax(-1).tolist(), batch.inputs["choices"], strict=True)
        return [choices.answer(row[:count]) for row, count in rows]

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        return {**parts[0], "choice": choices.texts_of(row["choices"])[parts[0]["label"]]}

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return choices.scores(predictions, rows)

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        return {"chance": choices.chance(rows)}

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        firsts, seconds = choices.pairs(row)
        return UserCall("choices", {"text": firsts, "text_pair": seconds}, {"truncation": True, "padding": True})

    def usage(self, repo: str, base: Base) -> Any:
        return usages.choosing(repo)


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [MultipleChoice]
