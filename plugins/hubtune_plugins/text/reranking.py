"""Reranking: a cross-encoder reads a query beside each of its passages, and puts the passages in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune import Base, Batch, Column, Loss, Metric, ModelSetup, UserCall, exact, hookimpl, label_config, option
from hubtune_plugins.text import usages
from hubtune_plugins.text.passages import crossencoder, graded, losses, mining, scores
from hubtune_plugins.text.passages.graded import Row, Rows
from hubtune_plugins.text.similarity.ranking import remembered
from hubtune_plugins.tokenization.texts import SeveralTexts, pad, pad_token, tokenise


@dataclass(frozen=True)
class RerankingOptions:
    loss: str = option("auto", "how scores are compared with grades; auto: listwise for lists of passages, binary for pairs",
                       choices=("auto", *losses.LOSSES))
    hard_negatives: str = option("", "an embedding model that finds negatives for rows with only a positive passage")
    negatives: int = option(7, "how many passages it finds for a row")


class Reranking(SeveralTexts):
    """A score for each passage of a query from a model that reads both together (Nogueira and Cho, arXiv:1901.04085).

    Rows have a query with a list of passages and their grades, a query with one passage and its grade, or a query with
    positive passages and negatives. Negatives that are not there can be found by an embedding model before training. Rows of the
    same query are scored as one ranking.
    """

    name = "reranking"
    summary = "passages in the order in which they answer a query, by a cross-encoder"
    model = "AutoModelForSequenceClassification"
    pipeline_tag = "text-ranking"
    fixture = "hubtune_plugins.text.fixtures:Ranking"
    metric = Metric("ndcg@10")
    base_files = (crossencoder.SETTINGS, crossencoder.MODULES)
    Options = RerankingOptions
    columns = (
        Column("query", ("query", "question", "anchor", "sentence1", "text1", "q")),
        Column("passages", ("passages", "documents", "docs", "candidates", "passage", "document", "doc", "sentence2",
                            "text2", "answer"), kind="any", needed="never"),
        Column("grades", ("grades", "labels", "relevance", "scores", "grade", "label", "score"), kind="label", needed="never"),
        Column("positive", ("positive", "positives", "pos"), kind="any", needed="never"),
        Column("negatives", ("negatives", "negative", "neg"), kind="any", needed="never", gaps=True),
    )

    @property
    def added_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("negatives",) if self.options.hard_negatives else ()

    def add_columns(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        return {"negatives": mining.hard_negatives(rows, self.options.hard_negatives, self.options.negatives)}

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        return graded.dataset_info(splits, self.options.loss, bool(self.options.hard_negatives))

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        self.info = dataset_info
        self.ranks: dict[int, Any] = {}
        self.activation = crossencoder.activation_for(dataset_info.get("loss"), base)
        config = crossencoder.config_for(self.activation, base.config)
        return pad_token(base) | ModelSetup({**label_config(["LABEL_0"], base.config), **config})

    def select_metric(self, base: Base) -> Metric:
        return Metric(self.info.get("metric", self.metric.name))

    def encode(self, rows: Rows, base: Base) -> Iterator[list[dict[str, Any]]]:
        for row in rows:
            passages, grades = graded.encodable(row)
            target = {} if grades is None else {"target": grades}
            yield [{"texts": tokenise(base, [row["query"]] * len(passages), passages), **target}]

    def collate(self, examples: Sequence[Mapping[str, Any]], base: Base, rngs: Any) -> Batch:
        """The pairs of all queries behind each other, (pairs, longest); `passages`: how many are each query's."""
        counts = [len(example["texts"]) for example in examples]
        inputs = pad(base, [text for example in examples for text in example["texts"]])
        targets = losses.targets_of(examples, counts)
        alone = self.info.get("loss") == "binary"  # then each passage is learnt alone, else each query
        return Batch({**inputs, "passages": counts}, targets, len(examples), {"loss": float(sum(counts) if alone else len(counts))})

    def forward(self, model: Any, batch: Batch) -> Any:
        """Logits (queries, most passages): minus infinity where a query has fewer."""
        logits = exact(super().forward(model, batch).logits)[:, 0]
        return losses.padded_rows(logits, batch.inputs["passages"], float("-inf"))

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        return Loss(losses.LOSSES[self.info["loss"]](outputs, batch.targets, self.info["highest"]))

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[dict[str, Any]]:
        found = crossencoder.activated(outputs, self.activation).tolist()
        return [{"scores": row[:count]} for row, count in zip(found, batch.inputs["passages"], strict=True)]

    def merge(self, parts: Sequence[dict[str, Any]], row: Row, base: Base) -> dict[str, Any]:
        return {**parts[0], **graded.ranking(row, parts[0]["scores"])}

    def score(self, predictions: Sequence[dict[str, Any]], rows: Rows, base: Base) -> dict[str, float]:
        graded.refuse_unsaid(rows, "the data")
        self.ranks = remembered(self.ranks, predictions, rows, scores.query_scores)
        return {**scores.means([self.ranks[id(one)][0] for one in predictions]), **scores.correlation(predictions, rows)}

    def show(self, prediction: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in prediction.items() if name != "scores"}

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        passages = graded.passages_of(row)[:8]
        asked = {"text": [row["query"]] * len(passages), "text_pair": passages}
        return UserCall("processor", asked, {"truncation": True, "padding": True}) if passages else None

    def usage(self, repo: str, base: Base) -> str:
        return usages.reranking(repo, self.activation == crossencoder.SIGMOID)


@hookimpl
def hubtune_tasks() -> list[type[Reranking]]:
    return [Reranking]
