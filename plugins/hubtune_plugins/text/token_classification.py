"""Token classification: a tag for every word, such as names of people and places, or parts of speech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    ClassificationTask,
    Column,
    Example,
    ExampleRNG,
    LabelKind,
    Metric,
    ModelSetup,
    Panel,
    Prediction,
    Row,
    Rows,
    Task,
    UserCall,
    exact,
    hookimpl,
    label_config,
    option,
)
from hubtune_plugins.text import usages
from hubtune_plugins.text.tokens import panels, words
from hubtune_plugins.text.tokens.pieces import IGNORED, PieceTask, piece_batch, piece_targets
from hubtune_plugins.text.tokens.tags import flattened, learnt, listed, scheme_of, tag_scores, tag_table
from hubtune_plugins.text.tokens.windows import padded_windows
from hubtune_plugins.tokenization.texts import pad_token

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenOptions:
    scheme: str = option("auto", "what tags say: words of spans, with B- and I- before the type (bio) or the bare type "
                         "(io), or something about single words", choices=("auto", "bio", "io", "words"))
    stride: int = option(64, "tokens that neighbouring windows of a long row share")


class TokenClassification(PieceTask, ClassificationTask[Any]):
    """A tag per word; those of spans are learnt in IOB2, whatever scheme the data has, and scored as spans.

    A word's tag is learnt and read at its first piece (Devlin et al., arXiv:1810.04805, section 5.3).
    """

    name = "token-classification"
    summary = "a tag for every word: names, parts of speech"
    model = "AutoModelForTokenClassification"
    pipeline_tag = "token-classification"
    fixture = "hubtune_plugins.text.fixtures:TokenTags"
    metric = Metric("f1")
    Options = TokenOptions
    columns = (
        Column("tokens", ("tokens", "words", "token", "text", "sentence", "form", "forms"), kind="words"),
        Column("tags", ("ner_tags", "tags", "labels", "ner", "upos", "pos_tags", "pos", "chunk_tags", "xpos", "label"),
               kind="label", needed="train"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        for split, rows in splits.items():
            words.refuse_untagged(rows, split)
        return words.dataset_info(splits, self.options.scheme)

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        self.scheme = dataset_info.get("scheme") or scheme_of(base.config.id2label.values())
        return pad_token(base) | ModelSetup(label_config(dataset_info.get("labels"), base.config))

    def select_metric(self, base: Base) -> Metric:
        return self.metric if self.scheme != "words" else Metric("accuracy")

    def label_kind(self) -> LabelKind:
        return "single_label"

    def label_counts(self, dataset_info: Mapping[str, Any], base: Base) -> Mapping[str, int]:
        counts = dataset_info.get("counts")
        return {tag: counts.get(tag, 0) for tag in base.config.label2id} if counts else {}

    def class_logits(self, outputs: Any, batch: Batch) -> Tensor:
        return self.asked_logits(outputs, batch)

    def class_targets(self, batch: Batch) -> Tensor:
        return self.asked_targets(batch)

    def class_answers(
        self, predictions: Sequence[Prediction], rows: Rows, base: Base
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        return flattened(*self.compared(predictions, rows, base), base.config.label2id)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        rows = list(rows)
        texts = [listed(row["tokens"]) for row in rows]
        words.refuse_wordless(texts, "the data")
        for row, examples in zip(rows, words.placed(base, texts, self.options.stride), strict=True):
            if row.get("tags") is not None:
                ids = [base.config.label2id[tag] for tag in self.right(row["tags"], base)]
                for example in examples:
                    example["target"] = [IGNORED if word is None else ids[word] for word in example["places"]]
            yield examples

    def right(self, value: Any, base: Base) -> Any:
        """A row's tags as the model writes them."""
        return words.known(learnt(listed(value), self.scheme), base.config.label2id)

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        inputs, targets = padded_windows(base, examples), [example.get("target") for example in examples]
        return piece_batch(inputs, None if None in targets else piece_targets(inputs, targets), len(examples))

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        best = exact(self.logits(outputs, batch)).softmax(-1).max(-1)
        rows = zip(batch.inputs["places"], batch.inputs["attention_mask"].bool(), *best, strict=True)
        return [words.tags_seen(places, values[mask], ids[mask], base.config) for places, mask, values, ids in rows]

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        texts = listed(row["tokens"])
        return self.answer(texts, *words.joined(parts, len(texts), missing=base.config.id2label[0]))

    def answer(self, texts: Any, tags: Any, probabilities: Any) -> Prediction:
        answer = {"tags": tags, "probabilities": probabilities}
        return answer if self.scheme == "words" else {**answer, "spans": words.spans_of(texts, tags, probabilities)}

    def compared(
        self, predictions: Sequence[Prediction], rows: Rows, base: Base
    ) -> tuple[Any, Any]:
        """The right tags and the given ones, row by row."""
        return [self.right(row["tags"], base) for row in rows], [p["tags"] for p in predictions]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return tag_scores(*self.compared(predictions, rows, base), base.config.label2id, self.scheme)

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        return tag_table(*self.compared(predictions, rows, base), base.config.label2id, self.scheme)

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        right, given = self.compared(predictions, rows, base)
        if self.scheme != "words":
            return panels.of_spans(right, given, [listed(row["tokens"]) for row in rows])
        return panels.of_words(*flattened(right, given, base.config.label2id), list(base.config.label2id))

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        return UserCall("pipeline", " ".join(listed(row["tokens"])), {"ignore_labels": []})

    def usage(self, repo: str, base: Base) -> Any:
        more = ', aggregation_strategy="first"' if scheme_of(base.config.id2label.values()) == "bio" else ""
        return usages.piped(self.pipeline_tag, repo, "Ada Lovelace was born in London .", more)


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [TokenClassification]
