"""Retrieval metrics per query, so that averages over some of the queries are right, too.

Ours, because scikit-learn's `ndcg_score` only gives the mean; a test holds them against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubtune import Prediction, Rows, label_text

DEPTH = 10
CHUNK = 256


def ranking_scores(queries: Any, documents: Any, relevant: Any, own: Any = None) -> Any:
    """For each query: recall@1, 5 and 10 (is a relevant document among the first k?), nDCG@10 and reciprocal rank.

    queries (n, size), documents (m, size): unit vectors. relevant: per query the indices of its documents; None for a
    query without any. own: per query a document that does not count, such as the query itself. A tie counts against.
    """
    import numpy as np

    gains = 1 / np.log2(np.arange(2, DEPTH + 2))
    scores: list[Any] = []
    for start in range(0, len(queries), CHUNK):
        for row in queries[start : start + CHUNK] @ documents.T:
            wanted, query = relevant[len(scores)], len(scores)
            if own is not None:
                row[own[query]] = -np.inf
                wanted = wanted[wanted != own[query]]
            if not len(wanted):
                scores.append({})
                continue
            best = np.sort(row[wanted])[::-1][:DEPTH]
            ranks = 1 + np.arange(len(best)) + (np.delete(row, wanted) >= best[:, None]).sum(1)
            scores.append({
                **{f"recall@{k}": float(ranks[0] <= k) for k in (1, 5, 10)},
                "ndcg@10": float(gains[ranks[ranks <= DEPTH] - 1].sum() / gains[: len(best)].sum()),
                "mrr": float(1 / ranks[0]),
            })
    return scores


def ranked_pairs(predictions: Sequence[Prediction], rows: Rows) -> Any:
    """Each text against the different second texts; what any row pairs it with is relevant."""
    import numpy as np

    documents = {row["text_pair"]: index for index, row in reversed(list(enumerate(rows)))}
    place = {index: number for number, index in enumerate(documents.values())}
    relevant: dict[Any, Any] = {}
    for row in rows:
        relevant.setdefault(row["text"], set()).add(place[documents[row["text_pair"]]])
    found = {text: np.array(sorted(places)) for text, places in relevant.items()}
    return ranking_scores(
        np.array([p["embedding"] for p in predictions], dtype="float32"),
        np.array([predictions[index]["embedding_pair"] for index in documents.values()], dtype="float32"),
        [found[row["text"]] for row in rows],
    )


def ranked_labels(predictions: Sequence[Prediction], rows: Rows) -> Any:
    """Each text against all others; those of its label are relevant. A label's only text counts nowhere."""
    import numpy as np

    labels = np.array([label_text(row["label"]) for row in rows])
    members = {label: np.flatnonzero(labels == label) for label in set(labels.tolist())}
    vectors = np.array([p["embedding"] for p in predictions], dtype="float32")
    return ranking_scores(vectors, vectors, [members[label] for label in labels.tolist()], own=range(len(rows)))


def remembered(known: Any, predictions: Sequence[Prediction], rows: Rows, ranked: Any) -> Any:
    """{id of a prediction: (its scores, the prediction)}: as known, or where one is new, as `ranked` among all rows.

    A query's rank is found once: resampled rows are resampled queries over the same documents. Resampled documents
    would be found as their own copies.
    """
    if all(id(prediction) in known for prediction in predictions):
        return known
    return {id(p): (scores, p) for p, scores in zip(predictions, ranked(predictions, rows), strict=True)}
