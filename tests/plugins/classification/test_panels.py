"""Parts of the page of a classification: what they count is what the answers are."""

from __future__ import annotations

from typing import Any

import pytest
from hubtune_plugins.classification import panels

LABELS = ["cat", "dog", "owl"]


def answer(*probabilities: float) -> dict[str, Any]:
    return {"label": LABELS[probabilities.index(max(probabilities))], "probabilities": dict(zip(LABELS, probabilities, strict=True))}


def test_a_confusion_matrix_counts_pairs_and_the_worst_row_is_the_surest_mistake() -> None:
    found = [answer(0.9, 0.05, 0.05), answer(0.6, 0.3, 0.1), answer(0.98, 0.01, 0.01), answer(0.1, 0.1, 0.8)]
    made: Any = panels.one_label(found, [0, 1, 1, 2], [0, 0, 0, 2], LABELS, lambda row: f"data:{row}")
    matrix, calibration, rows = made
    assert set(matrix.cells) == {(0, 0, 1), (1, 0, 2), (2, 2, 1)}
    assert [shown.row for shown in rows.rows][:2] == [2, 1]
    assert rows.rows[0].expected == "dog"
    assert rows.rows[0].given.startswith("cat 0.980")
    assert rows.rows[0].media == "data:2"
    assert calibration.diagonal


def test_calibration_is_how_often_a_probability_came_true() -> None:
    found = [answer(0.9, 0.05, 0.05)] * 10
    (made,) = panels.calibration(found, [0] * 7 + [1] * 3, several=False)
    assert made.lines["model"] == [(pytest.approx(0.9), pytest.approx(0.7))]


def test_a_threshold_trades_precision_for_recall() -> None:
    import numpy as np

    made = panels.thresholds(np.array([[0.9, 0.4], [0.2, 0.6]]), np.array([[1, 1], [0, 0]]))
    recall = dict(made.lines["recall"])
    assert [recall[x] for x in sorted(recall)] == sorted(recall.values(), reverse=True)
    low, high = min(recall), max(x for x in recall if x < 0.9)
    assert recall[low] == 1.0
    assert dict(made.lines["precision"])[low] == 0.5
    assert (recall[high], dict(made.lines["precision"])[high]) == (0.5, 1.0)


def test_numbers_show_the_largest_error_first() -> None:
    (made,) = panels.numbers([1.0, 2.0, 3.0], [1.1, 5.0, 3.0], lambda row: None)
    assert [(shown.row, shown.badness) for shown in made.rows][:1] == [(1, 3.0)]  # type: ignore[attr-defined]


def test_many_labels_are_listed_by_their_most_frequent_mistakes() -> None:
    from hubtune.runs.page import drawn

    labels = [f"label {number}" for number in range(40)]
    made = drawn.panel({"kind": "matrix", "title": "Confusion matrix", "note": "", "labels": labels,
                        "cells": [(0, 0, 9), (0, 1, 1), (2, 3, 5), (3, 3, 5)]}, 0)
    assert made["full"] is None
    assert made["confused"] == [["label 2", "label 3", "5", "100%"], ["label 0", "label 1", "1", "10%"]]
    assert made["title"] == "Most confused of 40 labels"
