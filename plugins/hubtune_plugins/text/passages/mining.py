"""Hard negatives: passages that an embedding model finds near a query and that do not answer it (Xiong et al., arXiv:2007.00808)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune_plugins.text.passages.graded import Rows, texts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 1024
"""Queries whose cosines with all passages are held at once."""


def hard_negatives(rows: Rows, model: str, count: int) -> list[list[str]]:
    """For each row, the `count` passages nearest to its query among the positive ones of all rows, best first.

    What any row gives as positive for the same query is left out. A row keeps the negatives that it has.

    Args:
        rows: rows with a `query` and `positive`, and maybe `negatives`.
        model: the embedding model, a folder or a repository of the Hub.
    """
    import numpy as np

    positives: dict[str, set[str]] = {}
    for row in rows:
        positives.setdefault(row["query"], set()).update(texts_of(row["positive"]))
    passages = list(dict.fromkeys(text for texts in positives.values() for text in sorted(texts)))
    place = {text: index for index, text in enumerate(passages)}
    queries = list(positives)
    vectors = embeddings([*queries, *passages], model)
    documents = vectors[len(queries):].T
    found: dict[str, list[str]] = {}
    for start in range(0, len(queries), CHUNK):
        for query, row in zip(queries[start : start + CHUNK], vectors[start : start + CHUNK] @ documents, strict=False):
            row[[place[text] for text in positives[query]]] = -np.inf
            nearest = np.argsort(-row, kind="stable")[: min(count, len(passages) - len(positives[query]))]
            found[query] = [passages[index] for index in nearest]
    return [texts_of(row.get("negatives")) or found[row["query"]] for row in rows]


def embeddings(texts: Sequence[str], model: str) -> NDArray[Any]:
    """Unit vectors of texts, (texts, size)."""
    import numpy as np

    from hubtune import load

    answers = load(model, task="sentence-similarity").predict([{"text": text} for text in texts])
    return np.array([answer["embedding"] for answer in answers], dtype="float32")
