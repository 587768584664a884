"""Rows as a query, its passages and their grades, in each of the forms that data sets use."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune import DataError, label_text
from hubtune_plugins.classification.kinds import number
from hubtune_plugins.tokenization.texts import refuse

Row = Mapping[str, Any]
Rows = Sequence[Row]
NOTHING = "Name the columns: --set data.passages=COLUMN --set data.grades=COLUMN, or --set data.positive=COLUMN"


def texts_of(cell: Any) -> list[str]:
    """The texts of a cell: a list, a list written as JSON, or a single text."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return [cell]
    if cell is None:
        return []
    return [label_text(text) for text in cell] if isinstance(cell, list | tuple) else [label_text(cell)]


def passages_of(row: Row) -> list[str]:
    """The passages of a row: those that are graded, or the positive ones and then the negatives."""
    if row.get("passages") is not None:
        return texts_of(row["passages"])
    return [*texts_of(row.get("positive")), *texts_of(row.get("negatives"))]


def encodable(row: Row) -> tuple[list[str], list[float] | None]:
    """The passages of a row and their grades; refused where there are no passages."""
    passages = passages_of(row)
    if not passages:
        raise DataError(f"the query {row['query']!r} has no passages to put in order.", hint=NOTHING)
    return passages, grades_of(row)


def grades_of(row: Row) -> list[float] | None:
    """The grade of each passage of a row, 0 for what does not answer the query; None where the row does not say.

    Raises DataError for grades that are not numbers from 0, or not as many as there are passages.
    """
    if row.get("passages") is None:
        return [1.0] * len(texts_of(row.get("positive"))) + [0.0] * len(texts_of(row.get("negatives")))
    if row.get("grades") is None:
        return None
    cell = row["grades"]
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = json.loads(cell)
    grades = [number(grade) for grade in (cell if isinstance(cell, list | tuple) else [cell])]
    count = len(passages_of(row))
    if len(grades) != count:
        raise DataError(f"{len(grades)} grades for {count} passages of the query {row['query']!r}.",
                        hint="Each passage needs one grade.")
    if not all(math.isfinite(grade) and grade >= 0 for grade in grades):
        raise DataError(f"a grade is a number from 0 (does not answer the query), not {min(grades):g}.")
    return grades


def has_order(grades: Sequence[float]) -> bool:
    """Return whether some passage of a query has a better grade than another."""
    return len(set(grades)) > 1


def ranking(row: Row, scores: Sequence[float]) -> dict[str, Any]:
    """Return what the user sees of a row: the score of its one passage, or all its passages, the best first, each with its place."""
    passages = passages_of(row)
    if isinstance(row.get("passages"), str) and len(passages) == 1:
        return {"score": scores[0]}
    order = sorted(range(len(passages)), key=lambda place: -scores[place])
    return {"ranking": [{"index": place, "score": scores[place], "passage": passages[place]} for place in order]}


def checked(rows: Rows, split: str) -> tuple[list[list[float]], bool]:
    """The grades of every row of a split, and whether each row has one passage; refused where rows cannot be learnt from."""
    refuse_unsaid(rows, split)
    found: list[list[float]] = []
    wrong: list[int] = []
    single = True
    for index, row in enumerate(rows):
        try:
            found.append(grades_of(row) or [])
        except (DataError, ValueError):
            wrong.append(index)
        single = single and row.get("passages") is not None and len(passages_of(row)) == 1
    refuse(wrong, rows, split, "rows have grades that are not one number from 0 for each passage",
           hint="Grades are numbers from 0, in a list as long as that of the passages.")
    return found, single


def refuse_unsaid(rows: Rows, split: str) -> None:
    """Refuse rows without passages, or without anything that says which of them answer the query."""
    first = rows[0]
    if first.get("passages") is None and first.get("positive") is None:
        raise DataError(f"{split} has queries and no passages.", hint=NOTHING)
    if first.get("passages") is not None and first.get("grades") is None:
        raise DataError(f"{split} has passages and nothing that says which of them answer the query.", hint=NOTHING)


def dataset_info(splits: Mapping[str, Rows], loss: str, mined: bool) -> dict[str, Any]:
    """Return what the splits teach: the loss, the highest grade and the metric that decides.

    Args:
        loss: the loss that the user chose, or `auto`.
        mined: whether rows get negatives before training.
    """
    found = {split: checked(rows, split) for split, rows in splits.items()}
    grades, single = found["train"]
    every = {grade for row in grades for grade in row}
    if len(every) < 2 and not mined:
        raise DataError(f"every passage of train has the grade {every.pop():g}: nothing to tell apart.", hint=(
            "Give passages that do not answer the query too (--set data.negatives=COLUMN), or let an embedding model find them: "
            "--set task.hard_negatives=MODEL"))
    if single and loss in ("listwise", "margin"):
        raise DataError(f"the loss {loss!r} compares the passages of a row, and every row of train has one passage.",
                        hint="Learn from each passage alone (--set task.loss=binary), or give lists of passages.")
    return {"loss": loss if loss != "auto" else "binary" if single else "listwise", "highest": max(every),
            "metric": "spearman" if single and not mostly_ranked(splits["train"], grades) else "ndcg@10"}


def mostly_ranked(rows: Rows, grades: Sequence[Sequence[float]]) -> bool:
    """Return whether most rows belong to queries of which one passage has a better grade than another."""
    queries: dict[str, list[float]] = {}
    for row, (grade,) in zip(rows, grades, strict=True):
        queries.setdefault(row["query"], []).append(grade)
    return sum(len(found) for found in queries.values() if has_order(found)) > len(grades) / 2
