"""Sentence similarity: one vector per text, near to another where the texts mean the same or belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    Column,
    ContrastiveTask,
    DataError,
    Example,
    ExampleRNG,
    Loss,
    Metric,
    ModelSetup,
    Prediction,
    Rows,
    SamplingTask,
    Task,
    hookimpl,
    option,
)
from hubtune_plugins.text.similarity.contrast import partner, step_loss, told
from hubtune_plugins.text.similarity.embeddings import POOLED, Embedding, padded_texts
from hubtune_plugins.text.similarity.likeness import KINDS, checked, kind_of, refuse_flat
from hubtune_plugins.text.similarity.ranking import remembered
from hubtune_plugins.tokenization.texts import tokenise

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimilarityOptions:
    kind: str = option("auto", "pairs of texts with a score, pairs that belong together, or texts with a label",
                       choices=("auto", "graded", "pairs", "labels"))
    pooling: str = option("auto", "what makes the vector; auto: as in modules.json, else mean, and last for causal models",
                          choices=("auto", *POOLED))
    prompts: str = option("auto", "text before each text; auto: those of the model, query and document for pairs",
                          choices=("auto", "none"))
    temperature: float = option(0.05, "what cosines are divided by in the loss")


class SentenceSimilarity(Embedding, ContrastiveTask[Any], SamplingTask[Any]):
    """One vector per text; the cosine of two says how alike the texts are.

    graded: two texts and a number; CoSENT, a loss over the order of all pairs of a step (Su, kexue.fm/archives/8847).
    pairs: a query and what answers it; all other second texts of a step are negatives (Henderson et al.,
    arXiv:1705.00652). labels: a text and its class; another text of the class, drawn anew in every epoch, makes the
    pair. What is known to match is never a negative.

    Retrieval is `pairs` of a question and a passage. Recommendation is `pairs` of an item (or a user's last items, as
    one text) and the item that was chosen next; both rank by the vectors' cosines.
    """

    name = "sentence-similarity"
    summary = "vectors of texts, for similarity, search, retrieval and recommendation"
    model = "AutoModel"
    pipeline_tag = "sentence-similarity"
    fixture = "hubtune_plugins.text.fixtures:Similarity"
    metric = Metric("spearman")
    Options = SimilarityOptions
    columns = (
        Column("text", ("text", "sentence1", "anchor", "query", "question", "question1", "text1", "premise", "sentence",
                        "sentence_a", "utterance", "content", "passage", "document")),
        Column("text_pair", ("text_pair", "sentence2", "positive", "passage", "answer", "question2", "text2", "hypothesis",
                             "sentence_b", "response", "document", "context"), needed="never"),
        Column("label", ("score", "similarity", "similarity_score", "relatedness_score", "label", "labels", "intent",
                         "category", "class", "label_name"), kind="label", needed="never"),
    )
    kind: str | None = None
    """Kind of similarity in the rows: of the run, or those that were encoded last; None where none said it."""

    ranks: Mapping[int, Any] = MappingProxyType({})
    """Score and prediction, by the id of the prediction."""

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        kinds = {split: checked(rows, split, self.options.kind) for split, rows in splits.items()}
        refuse_flat(splits["train"], kinds["train"])
        return {"kind": kinds["train"]}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        if self.options.temperature <= 0:
            raise DataError(f"task.temperature is more than 0, not {self.options.temperature}.", hint="Usual is 0.05.")
        self.kind = dataset_info.get("kind") or (None if self.options.kind == "auto" else self.options.kind)
        return super().model_config(dataset_info, base)

    def select_metric(self, base: Base) -> Metric:
        return Metric(KINDS[self.kind or "graded"].scores[0])

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        if not len(rows):
            return
        kind = kind_of(rows, self.options.kind)
        self.kind = kind or self.kind
        sides = ["text", "text_pair"] if kind != "labels" and "text_pair" in rows[0] else ["text"]
        encoded = [tokenise(base, self.read([row[side] for row in rows], side, self.is_asymmetric), None) for side in sides]
        for row, *texts in zip(rows, *encoded, strict=True):
            yield [{"texts": texts, **(KINDS[kind].carried(row) if kind else {})}]

    def num_tokens(self, example: Example) -> int:
        return 2 * self.length(example)

    def sampling_key(self, example: Example) -> int | None:
        """The label, of a text that has one."""
        return example["keys"][0] if len(example["texts"]) == 1 and "keys" in example else None

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        """The texts of all examples in one batch: (examples * 2, longest), an example's two after each other."""
        texts = [example["texts"] for example in examples]
        if rngs is not None and self.sampling_key(examples[0]) is not None:
            texts = [[*example["texts"], partner(example, draw)] for example, draw in zip(examples, rngs, strict=True)]
        return Batch(padded_texts(base, texts), told(examples, texts), len(examples))

    def contrastive_loss(self, embeddings: Tensor, batches: Sequence[Batch]) -> Loss:
        import torch

        targets = torch.cat([batch.targets for batch in batches])
        return Loss(step_loss(embeddings, targets, self.options.temperature) * len(targets))

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        """Correlations, or retrieval among the rows: each text against all second texts, or against all other texts."""
        kind = KINDS[checked(rows, "the data", self.options.kind)]
        if kind.ranked:
            self.ranks = remembered(self.ranks, predictions, rows, kind.ranked)
        return kind.score(predictions, rows, self.ranks)


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [SentenceSimilarity]
