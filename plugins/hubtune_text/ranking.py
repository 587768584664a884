"""Retrieval metrics per query, so that averages over some of the queries are right, too.

Ours, because scikit-learn's `ndcg_score` only gives the mean; a test holds them against it.
"""

DEPTH = 10
CHUNK = 256


def ranking_scores(queries, documents, relevant, own=None):
    """For each query: recall@1, 5 and 10 (is a relevant document among the first k?), nDCG@10 and reciprocal rank.

    queries (n, size), documents (m, size): unit vectors. relevant: per query the indices of its documents; None for a
    query without any. own: per query a document that does not count, such as the query itself. A tie counts against.
    """
    import numpy as np

    gains = 1 / np.log2(np.arange(2, DEPTH + 2))
    scores = []
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
