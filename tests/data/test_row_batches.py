"""Rows that are read a piece at a time are the same rows, whatever they come from."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from hubtune import column_values, enumerate_rows, label_space
from hubtune.data.row_batches import ROW_BATCH_SIZE, BatchedRows, row_batches

ROWS: list[dict[str, Any]] = [{"text": f"row {row}", "label": row % 3, "other": [row, None]} for row in range(2 * ROW_BATCH_SIZE + 5)]
ORDER = [5, 2000, 3, *range(100, 90, -1)]
MADE = {"list": ROWS, "datasets": Dataset.from_list(ROWS), "chosen": Dataset.from_list([*ROWS[::-1]]).select(range(len(ROWS) - 1, -1, -1))}


@pytest.mark.parametrize("kind", MADE)
def test_pieces_are_the_rows(kind: str) -> None:
    rows = MADE[kind]
    assert [row for piece in row_batches(rows) for row in piece] == ROWS
    assert [len(piece) for piece in row_batches(rows)] == [ROW_BATCH_SIZE, ROW_BATCH_SIZE, 5]
    assert [pair for piece in row_batches(rows, ORDER) for pair in enumerate_rows(piece)] == [(row, ROWS[row]) for row in ORDER]
    assert list(BatchedRows(rows)) == ROWS
    assert (BatchedRows(rows)[7], BatchedRows(rows)[-2:], len(BatchedRows(rows))) == (ROWS[7], ROWS[-2:], len(ROWS))
    assert list(enumerate_rows(BatchedRows(rows)))[ROW_BATCH_SIZE] == (ROW_BATCH_SIZE, ROWS[ROW_BATCH_SIZE])


@pytest.mark.parametrize("kind", MADE)
def test_columns_are_read_whenever_they_are_gone_through(kind: str) -> None:
    labels = column_values(BatchedRows(MADE[kind]), "label", make=lambda label: [str(label)])
    for _ in range(2):
        assert list(labels) == [[str(row["label"])] for row in ROWS]
    assert (len(labels), labels[4], labels[2:4]) == (len(ROWS), ["1"], [["2"], ["0"]])
    assert label_space({"train": labels, "validation": labels}) == ["0", "1", "2"]
    both = column_values(MADE[kind], "text", "label", make=lambda text, label: f"{text}/{label}")
    assert list(both)[-1] == f"row {len(ROWS) - 1}/{(len(ROWS) - 1) % 3}"


def test_no_rows_have_no_pieces() -> None:
    assert list(row_batches([])) == []
    assert list(BatchedRows(Dataset.from_dict({"text": []}))) == []
