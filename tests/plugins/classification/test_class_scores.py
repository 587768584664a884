"""Scores of classes: one definition of the macro mean, in the scores and in the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hubtune_plugins.classification.scores import class_scores, class_table, several_scores


@pytest.mark.parametrize(("gold", "found"), [
    ([0, 0, 0], [0, 0, 0]), ([0, 0, 1], [0, 1, 1]), ([0, 0, 1], [0, 0, 0]), ([1, 1], [2, 2]), ([0, 1, 2, 3], [0, 1, 2, 2]),
])
def test_the_macro_mean_is_over_labels_that_occur_in_either(gold: list[int], found: list[int]) -> None:
    from sklearn.metrics import f1_score

    wanted = f1_score(gold, found, average="macro", zero_division=0.0)  # by default over the labels that occur
    assert class_scores(gold, found, 4)["f1_macro"] == pytest.approx(wanted)
    table = class_table(gold, found, list("abcd"))
    assert table["macro avg"]["f1-score"] == pytest.approx(wanted)
    assert {name for name in table if len(name) == 1} == {"abcd"[index] for index in {*gold, *found}}


@pytest.mark.parametrize(("gold", "found", "macro"), [
    ([[0], [0, 1]], [[0], [0, 1]], 1.0), ([[0], [0]], [[0], [0]], 1.0), ([[0], []], [[1], []], 0.0), ([[0, 1], [1]], [[1], [1]], 0.5), ([[]], [[]], 0.0),
])
def test_several_labels_have_the_same_definition(gold: list[Any], found: list[Any], macro: float) -> None:
    scored = several_scores(gold, found, 3)
    assert scored["f1_macro"] == pytest.approx(macro)

    def rows(ids: list[Any]) -> Any:
        return np.array([[int(index in row) for index in range(3)] for row in ids])

    table = class_table(rows(gold), rows(found), list("abc"))
    assert (table["macro avg"]["f1-score"] if table else 0.0) == pytest.approx(macro)


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("count", [1, 6, 200])
def test_counts_give_the_bits_of_scikit_learn(classes: int, count: int) -> None:
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    rng = np.random.default_rng(classes * count)
    gold, found = rng.integers(0, classes, (2, count)).tolist()
    scored = class_scores(gold, found, classes)
    _, _, f1, support = precision_recall_fscore_support(gold, found, labels=range(classes), zero_division=0.0)
    assert scored["f1_weighted"] == float((f1 * support).sum() / support.sum())
    assert scored["f1_macro"] == float(f1[sorted({*gold, *found})].mean())

    truth, guess = rng.integers(0, 2, (2, count, classes))
    several = several_scores(*([np.flatnonzero(row).tolist() for row in rows] for rows in (truth, guess)), classes)
    assert several["f1_micro"] == float(f1_score(truth, guess, average="micro", zero_division=0.0))
    each = f1_score(truth, guess, average=None, zero_division=0.0)
    assert several["f1_macro"] == float(each[truth.any(0) | guess.any(0)].mean())


@pytest.mark.parametrize("several", [False, True])
def test_the_table_is_that_of_scikit_learn(several: bool) -> None:
    from sklearn.metrics import classification_report

    random = np.random.default_rng(0)
    for _ in range(40):
        count, classes = int(random.integers(1, 60)), int(random.integers(2, 8))
        names = [f"class {index}" for index in range(classes)]
        if several:
            gold, found = ((random.random((count, classes)) < random.random()).astype(int) for _ in range(2))
            seen = np.flatnonzero(gold.any(0) | found.any(0))
        else:
            gold, found = random.integers(0, classes, count), random.integers(0, classes, count)
            seen = np.union1d(gold, found)
        expected: Any = {}
        if len(seen):
            expected = classification_report(gold, found, labels=seen.tolist(), target_names=[names[index] for index in seen],
                                             output_dict=True, zero_division=0.0)
        table = class_table(gold, found, names)
        assert list(table) == list(expected)
        assert table == expected
