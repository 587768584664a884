"""Many rows, some at a time: of `datasets`, reading one row takes a hundred times as long as reading it among others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from hubtune.contract.types import Row, Rows

ROW_BATCH_SIZE = 1024
"""Rows that are read together."""


class RowBatch(list[Row]):
    """Some of many rows. numbers: which of them, from 0."""

    def __init__(self, rows: Iterable[Row], numbers: Sequence[int]) -> None:
        super().__init__(rows)
        self.numbers = numbers


def enumerate_rows(rows: Rows) -> Iterator[tuple[int, Row]]:
    """Rows with their numbers in the data, from 0: `encode` is given some of them at a time."""
    return zip(rows.numbers if isinstance(rows, RowBatch) else range(len(rows)), rows, strict=True)


def row_batches(rows: Rows, numbers: Sequence[int] | None = None) -> Iterator[RowBatch]:
    """All rows, or those of some numbers, a piece at a time."""
    if hasattr(rows, "select"):  # of `datasets`
        numbers = range(len(rows)) if numbers is None else numbers
        for start in range(0, len(numbers), ROW_BATCH_SIZE):
            chosen = numbers[start : start + ROW_BATCH_SIZE]
            columns: Any = rows[slice(chosen.start, chosen.stop) if isinstance(chosen, range) else chosen]  # type: ignore[index]
            yield RowBatch([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], chosen)
        return
    found = iter(rows) if numbers is None else (rows[number] for number in numbers)
    first = 0
    while piece := list(islice(found, ROW_BATCH_SIZE)):
        last = first + len(piece)
        yield RowBatch(piece, range(first, last) if numbers is None else numbers[first:last])
        first = last


class BatchedRows(Sequence[Row]):
    """Rows that are read a piece at a time when they are gone through."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return [self.rows[one] for one in range(len(self))[index]] if isinstance(index, slice) else self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return chain.from_iterable(row_batches(self.rows))


class Cells(Sequence[Any]):
    """What `make` makes of every row: made anew whenever they are gone through, and not kept."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self.rows, self.make = rows, make

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return [*map(self.make, self.rows[index])] if isinstance(index, slice) else self.make(self.rows[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self.make, self.rows)


def column_values(rows: Rows, *roles: str, make: Callable[..., Any] = lambda value: value) -> Sequence[Any]:
    """The values of a column, or what `make` makes of the values of some: not kept, but read whenever they are gone through, so
    that a column may be larger than memory."""
    inner = rows.rows if isinstance(rows, BatchedRows) else rows
    chosen = BatchedRows(inner.select_columns([*roles])) if hasattr(inner, "select_columns") else rows
    return Cells(chosen, lambda row: make(*(row[role] for role in roles)))
