"""Question answering: the span of a text that answers a question about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    option,
)
from hubtune_plugins.text import usages
from hubtune_plugins.text.tokens import answers
from hubtune_plugins.text.tokens.windows import padded_windows
from hubtune_plugins.tokenization.texts import TextTask, targets_of


@dataclass(frozen=True)
class AnsweringOptions:
    stride: int = option(128, "tokens that neighbouring windows of a long context share")
    max_answer_length: int = option(30, "tokens of an answer at most")
    unanswerable: bool = option(False, "some questions have no answer in their context: no answers in training, and an "
                                "empty one where that is likelier than any span")
    null_threshold: float = option(0.0, "how much likelier, as a difference of log-probabilities, no answer must be")


class QuestionAnswering(TextTask):
    """The likeliest span of the context: its first and its last token are learnt (Devlin et al., arXiv:1810.04805)."""

    name = "question-answering"
    summary = "the span of a context that answers a question"
    model = "AutoModelForQuestionAnswering"
    pipeline_tag = "question-answering"
    fixture = "hubtune_plugins.text.fixtures:Answers"
    metric = Metric("f1")
    shares = ("exact_match",)
    Options = AnsweringOptions
    columns = (
        Column("question", ("question", "query", "questions")),
        Column("context", ("context", "passage", "paragraph", "document", "article", "text")),
        Column("answers", ("answers", "answer", "answer_text"), kind="any", needed="train"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        for split, rows in splits.items():
            answers.refuse_misplaced(rows, split, self.options.unanswerable)
        return {}

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        return answers.windowed(base, list(rows), self.options.stride)

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        inputs, targets = padded_windows(base, examples), targets_of(examples)
        if targets is not None:
            targets = targets + inputs["attention_mask"].argmax(1, keepdim=True)  # of models that pad on the left
        return Batch(inputs, targets, len(examples))

    def logs(self, outputs: Any, batch: Batch) -> Any:
        return answers.span_logs(outputs, batch.inputs["attention_mask"], batch.inputs["places"])

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        from torch.nn.functional import nll_loss

        both = zip(self.logs(outputs, batch), batch.targets.T, strict=True)
        first, last = (nll_loss(logs, targets, reduction="sum") for logs, targets in both)
        return Loss((first + last) / 2)

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        rows = zip(batch.inputs["places"], batch.inputs["attention_mask"].bool(), *self.logs(outputs, batch), strict=True)
        most = self.options.max_answer_length
        return [answers.likeliest(places, start[mask], end[mask], most) for places, mask, start, end in rows]

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        return answers.best_of(parts, row["context"], self.options.null_threshold if self.options.unanswerable else None)

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return answers.squad_scores(predictions, rows)

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        asked = {"text": row["question"], "text_pair": row["context"]}
        return UserCall("processor", asked, {"truncation": "only_second"})

    def usage(self, repo: str, base: Base) -> Any:
        return usages.answering(repo)


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [QuestionAnswering]
