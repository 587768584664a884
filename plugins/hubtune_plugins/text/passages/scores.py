"""Ranking metrics, query by query, so that averages over some of the queries are right, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any

from hubtune_plugins.classification.scores import number_scores
from hubtune_plugins.text.passages.graded import Rows, grades_of, has_order, passages_of
from hubtune_plugins.text.similarity.ranking import DEPTH

QueryScores = tuple[dict[str, float], float]
"""The scores of a row's query, none where it has no order, and the row's share in them."""
NAMES = (f"ndcg@{DEPTH}", f"mrr@{DEPTH}", "map")


def list_scores(scores: Sequence[float], grades: Sequence[float]) -> dict[str, float]:
    """nDCG@10, MRR@10 and average precision of one ranking. A tie counts against.

    The gain of nDCG is the grade itself, as in trec_eval and scikit-learn, and not 2^grade - 1: grades need not be whole
    numbers. For MRR and MAP a passage is relevant where its grade is above 0.
    """
    ranked = [grade for _, grade in sorted(zip(scores, grades, strict=True), key=lambda pair: (-pair[0], pair[1]))]
    hits = [rank for rank, grade in enumerate(ranked, 1) if grade > 0]
    return dict(zip(NAMES, (
        discounted(ranked) / discounted(sorted(grades, reverse=True)),
        1 / hits[0] if hits[0] <= DEPTH else 0.0,
        sum(count / rank for count, rank in enumerate(hits, 1)) / len(hits),
    ), strict=True))


def discounted(gains: Sequence[float]) -> float:
    """The discounted sum of the first gains (DCG@10)."""
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains[:DEPTH], 1))


def query_scores(predictions: Sequence[Mapping[str, Any]], rows: Rows) -> list[QueryScores]:
    """For each row, the scores of its query and the row's share in them, 1 / (rows of the query).

    The passages of all rows with the same query make one ranking; a passage that is there twice counts once, with its best
    grade. No scores where no passage of the query is better than another.
    """
    queries: dict[str, dict[str, tuple[float, float]]] = {}
    members: dict[str, int] = {}
    for prediction, row in zip(predictions, rows, strict=True):
        found = queries.setdefault(row["query"], {})
        members[row["query"]] = members.get(row["query"], 0) + 1
        for passage, score, grade in zip(passages_of(row), prediction["scores"], grades_of(row) or [], strict=True):
            found[passage] = max(found.get(passage, (grade, score)), (grade, score))
    ranked = {query: list_scores([score for _, score in found.values()], [grade for grade, _ in found.values()])
              if has_order([grade for grade, _ in found.values()]) else {} for query, found in queries.items()}
    return [(ranked[row["query"]], 1 / members[row["query"]]) for row in rows]


def means(shares: Sequence[QueryScores]) -> dict[str, float]:
    """The mean over queries of what `query_scores` gave for some rows; 0 where no query has an order."""
    known = [(scores, share) for scores, share in shares if scores]
    total = sum(share for _, share in known)
    return {name: sum(share * scores[name] for scores, share in known) / total if known else 0.0 for name in NAMES}


def correlation(predictions: Sequence[Mapping[str, Any]], rows: Rows) -> dict[str, float]:
    """Spearman's correlation of scores and grades over all rows, where each has one passage; else nothing."""
    if any(len(prediction["scores"]) != 1 for prediction in predictions):
        return {}
    found = number_scores([grade for row in rows for grade in grades_of(row) or []], [prediction["scores"][0] for prediction in predictions])
    return {"spearman": found["spearman"]}
