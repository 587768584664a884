"""Row batches: reading rows of `datasets` one by one takes a hundred times as long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from hubtune.contract.types import Row, Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROW_BATCH_SIZE = 1024
"""Number of rows that are read together."""


class RowBatch(list[Row]):
    """Some rows of a larger sequence. numbers: their positions in it, from 0."""

    def __init__(self, rows: Iterable[Row], numbers: Sequence[int]) -> None:
        super().__init__(rows)
        self.numbers = numbers


def enumerate_rows(rows: Rows) -> Iterator[tuple[int, Row]]:
    """Yield rows with their numbers in the data, from 0, also where `rows` is a batch of them."""
    return zip(rows.numbers if isinstance(rows, RowBatch) else range(len(rows)), rows, strict=True)


def row_batches(rows: Rows, numbers: Sequence[int] | None = None) -> Iterator[RowBatch]:
    """Yield all rows, or those with the given numbers, in batches."""
    if hasattr(rows, "select"):  # of `datasets`
        numbers = range(len(rows)) if numbers is None else numbers
        for start in range(0, len(numbers), ROW_BATCH_SIZE):
            chosen = numbers[start : start + ROW_BATCH_SIZE]
            index = slice(chosen.start, chosen.stop) if isinstance(chosen, range) else chosen
            columns: Any = rows[index]  # type: ignore[index]
            values = zip(*columns.values(), strict=True)
            yield RowBatch([dict(zip(columns, row, strict=True)) for row in values], chosen)
        return
    found = iter(rows) if numbers is None else (rows[number] for number in numbers)
    first = 0
    while batch := list(islice(found, ROW_BATCH_SIZE)):
        last = first + len(batch)
        yield RowBatch(batch, range(first, last) if numbers is None else numbers[first:last])
        first = last


@dataclass(frozen=True)
class RowOrigin:
    """The place in the data of the rows of a split, for messages.

    numbers: the number in the data, from 0, of each row; None: all rows are there.
    lines: returns the lines of the file, from 1, of rows of the data; none where there are none.
    """

    numbers: Sequence[int] | NDArray[np.int64] | None = None
    lines: Callable[[Sequence[int]], list[int]] = lambda numbers: []

    def numbers_of(self, indices: Iterable[int]) -> list[int]:
        """Return the numbers in the data, from 0, of rows of the split."""
        return [int(index if self.numbers is None else self.numbers[index]) for index in indices]

    def lines_of(self, numbers: Sequence[int]) -> list[int]:
        """Return the lines of the file of rows of the data."""
        return self.lines(numbers)


def column_batches(rows: Rows, size: int = 8 * ROW_BATCH_SIZE) -> Iterator[dict[str, list[Any]]]:
    """Yield the values of some rows at a time, by column: faster than as rows."""
    if hasattr(rows, "select"):  # of `datasets`
        for start in range(0, len(rows), size):
            yield rows[start : start + size]  # type: ignore[misc]
        return
    for batch in row_batches(rows):
        yield {name: [row[name] for row in batch] for name in batch[0]}


class BatchedRows(Sequence[Row]):
    """Rows that are read in batches when iterated over. origin: their place in the data."""

    def __init__(self, rows: Rows, origin: RowOrigin | None = None) -> None:
        self.rows, self.origin = rows, origin

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.rows[one] for one in range(len(self))[index]]
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return chain.from_iterable(row_batches(self.rows))


class LazyColumn(Sequence[Any]):
    """`make(row)` for every row, computed on each access and not stored."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self.rows, self.make = rows, make
        self.origin: RowOrigin | None = getattr(rows, "origin", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        rows = self.rows[index]
        return [*map(self.make, rows)] if isinstance(index, slice) else self.make(rows)

    def __iter__(self) -> Iterator[Any]:
        return map(self.make, self.rows)


class DatasetColumn(Sequence[Any]):
    """The values of a column of a `datasets.Dataset`, read in batches on each iteration."""

    def __init__(self, rows: Any, role: str, origin: RowOrigin | None = None) -> None:
        self.rows, self.role, self.origin = rows, role, origin

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index][self.role]

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(batch[self.role] for batch in column_batches(self.rows))


def column_values(
    rows: Rows, *roles: str, make: Callable[..., Any] = lambda value: value
) -> Sequence[Any]:
    """Return the values of a column, or `make` of the values of several.

    Values are read again on each iteration, so that a column may be larger than memory.
    """
    inner: Any = rows.rows if isinstance(rows, BatchedRows) else rows
    chosen = rows
    if len(roles) == 1 and hasattr(inner, "select"):
        column = DatasetColumn(inner.select_columns([*roles]), roles[0], getattr(rows, "origin", None))
        return LazyColumn(column, make)
    if hasattr(inner, "select_columns"):
        chosen = BatchedRows(inner.select_columns([*roles]), getattr(rows, "origin", None))
    return LazyColumn(chosen, lambda row: make(*(row[role] for role in roles)))
