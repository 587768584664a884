"""Kinds of similarity between two texts: a score, that they stand in one row, or a label that they share.

Each kind of rows says what it needs, what its examples carry to be learnt from, how vectors are scored against it, and
what perfect vectors are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hubtune import DataError, Prediction, Row, Rows, column_values, label_text
from hubtune_plugins.classification.kinds import number, refuse_words
from hubtune_plugins.classification.scores import number_scores
from hubtune_plugins.text.similarity.contrast import key
from hubtune_plugins.text.similarity.ranking import ranked_labels, ranked_pairs


class Graded:
    """Two texts and a number; scored by how well the order of the cosines is that of the numbers."""

    needed: tuple[str, ...] = ("text_pair", "label")
    told: str = "label"
    scores: tuple[str, ...] = ("spearman", "pearson")
    ranked: Callable[..., Any] | None = None

    def carried(self, row: Row) -> dict[str, Any]:
        """Return what an example carries to be learnt from."""
        return {"score": number(row["label"])} if row.get("label") is not None else {}

    def score(self, predictions: Sequence[Prediction], rows: Rows, ranks: Any) -> dict[Any, Any]:
        """The `scores`; ranks: what `ranking.remembered` gave, where there is `ranked`."""
        found = number_scores([number(row["label"]) for row in rows], [p["similarity"] for p in predictions])
        return {name: found[name] for name in self.scores}

    def gold(self, row: Row) -> dict[str, Any]:
        """The true score; or vectors that are equal where the texts match, and random else."""
        return {"similarity": number(row["label"])}


class Pairs(Graded):
    """Two texts that belong together; scored by finding the second of a row among all second ones."""

    needed = ("text_pair",)
    told = "text_pair"
    scores: tuple[str, ...] = ("recall@1", "recall@10", "ndcg@10", "mrr")
    ranked = staticmethod(ranked_pairs)

    def carried(self, row: Row) -> dict[str, Any]:
        return {"keys": [key(row["text"]), key(row["text_pair"])]} if "text_pair" in row else {}

    def score(self, predictions: Sequence[Prediction], rows: Rows, ranks: Any) -> dict[Any, Any]:
        known = [scores for p in predictions if (scores := ranks[id(p)][0])]
        return {name: sum(scores[name] for scores in known) / max(1, len(known)) for name in self.scores}

    def gold(self, row: Row) -> dict[str, Any]:
        vector = unit_vector(row["text_pair"])
        return {"similarity": 1.0, "embedding": vector, "embedding_pair": vector}


class Labels(Pairs):
    """A text and its class; scored by finding the other texts of the class among all others."""

    needed = ("label",)
    told = "label"
    scores = ("recall@1", "recall@5", "ndcg@10")
    ranked = staticmethod(ranked_labels)

    def carried(self, row: Row) -> dict[str, Any]:
        return {"keys": [key(label_text(row["label"]))] * 2} if "label" in row else {}

    def gold(self, row: Row) -> dict[str, Any]:
        return {"embedding": unit_vector(label_text(row["label"]))}


KINDS = {"graded": Graded(), "pairs": Pairs(), "labels": Labels()}


def kind_of(rows: Rows, chosen: Any = "auto") -> Any:
    """Return what rows teach: as chosen, else by their columns; None for texts alone."""
    if chosen != "auto":
        return chosen
    pair, label = (rows[0].get(role) is not None for role in ("text_pair", "label"))
    return ("graded" if label else "pairs") if pair else "labels" if label else None


def checked(rows: Rows, split: str, chosen: Any) -> Any:
    """The kind of rows, once it is sure that they can be learnt from and scored."""
    kind = kind_of(rows, chosen)
    missing = [role for role in (KINDS[kind].needed if kind else ("label",)) if rows[0].get(role) is None]
    if missing:
        raise DataError(
            f"{split} has texts and nothing that says which are alike: no {' and no '.join(missing)}.",
            hint="Needed are two texts and a score, two texts that belong together, or a text and a label: "
            f"--set data.{missing[0]}=COLUMN",
        )
    if kind == "graded":
        try:
            refuse_words(column_values(rows, "label"), split)
        except DataError as error:
            raise DataError(error.message, hint="A score is a number. For pairs that all belong together: "
                            "--set task.kind=pairs") from None
    return kind


def refuse_flat(rows: Rows, kind: Any) -> None:
    """Refuse training rows in which nothing differs, and labels of which none has two texts."""
    role = KINDS[kind].told
    values = column_values(rows, role, make=label_text)
    first = values[0]
    if all(value == first for value in values):
        raise DataError(f"every row of train has the same {role}, {values[0]!r}: nothing to tell apart.",
                        hint=f"Is this the right column? Choose another with: --set data.{role}=COLUMN")
    if kind == "labels" and len(set(values)) == len(values):
        raise DataError(f"no two of the {len(values)} rows of train share a label, such as {values[0]!r}.",
                        hint="A label needs two texts. For two texts a row: --set data.text_pair=COLUMN")


def unit_vector(text: str) -> list[float]:
    """A random vector of length 1, the same for equal texts."""
    from random import Random

    draw = Random(text)
    vector = [draw.gauss(0, 0.1) for _ in range(100)]
    length = sum(value**2 for value in vector) ** 0.5
    return [value / length for value in vector]
