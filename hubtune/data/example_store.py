"""Examples in Arrow record batches: in memory while they are small, else in memory-mapped files.

A memory-mapped file is read page by page on access, so a dataset may be larger than memory, and
several processes share one copy of it.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hubtune import temporary
from hubtune.contract import Example
from hubtune.data.arrow_columns import Leaf, flatten, record_batch, value_at

MEMORY_LIMIT = 32_000_000
"""Maximum bytes of examples in memory; beyond it, all of them go to files."""
BATCH_BYTES = 4_000_000
"""Approximate size of a record batch, in bytes."""
MOST_TABLES = 64
"""Maximum number of schemas; examples of further ones are kept as Python objects."""
MANIFEST = "examples.json"


class ExampleStore(Sequence[Example]):
    """A list of dicts that is appended to, closed, and then read.

    Values may be numbers, strings, bytes, None, lists and dicts of these, or NumPy arrays. Tuples
    come back as lists. Examples with other values (an image object, a large integer) stay Python
    objects.
    """

    def __init__(self, memory_limit: int = MEMORY_LIMIT) -> None:
        self.memory_limit, self.memory, self.length = memory_limit, 0, 0
        self.tables: list[ExampleTable] = []
        self.scratch: temporary.Folder | None = None
        # Runs of examples that are contiguous in one table: first example, table, first row.
        self.runs: list[array[int]] = [array("q"), array("q"), array("q")]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(self.length))]
        index = range(self.length)[index]
        run = bisect_right(self.runs[0], index) - 1
        first, table, row = (column[run] for column in self.runs)
        return self.tables[table].read(row + index - first)

    def extend(self, examples: Sequence[Example]) -> None:
        """Append examples."""
        groups: dict[Any, list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            groups[tuple(example), tuple(map(type, example.values()))].append(index)
        placed = np.zeros((2, len(examples)), np.int64)
        for indices in groups.values():
            chosen = [examples[index] for index in indices] if len(groups) > 1 else examples
            placed[0, indices], placed[1, indices] = self.append_group(chosen)
        self.add_runs(*placed)
        self.length += len(examples)

    def append_group(self, examples: Sequence[Example]) -> tuple[int, NDArray[np.int64]]:
        """Append examples with the same keys and types of values; return their table and rows."""
        batch = record_batch(examples)
        number = self.find_table(None if batch is None else batch.schema)
        batch = None if self.tables[number].schema is None else batch
        first = self.tables[number].append(examples if batch is None else batch)
        self.memory += 0 if batch is None else batch.nbytes
        if self.scratch is None and self.memory > self.memory_limit:
            self.scratch = temporary.Folder()  # removed with this store
            for other, table in enumerate(self.tables):
                table.write_to(self.scratch.path / file_name(other))
        return number, first + np.arange(len(examples))

    def find_table(self, schema: pa.Schema | None) -> int:
        """Return the number of the table for a schema, adding one if needed."""
        known = any(same_schema(table.schema, schema) for table in self.tables)
        if len(self.tables) >= MOST_TABLES and not known:
            schema = None
        for number, table in enumerate(self.tables):
            if same_schema(table.schema, schema):
                return number
        self.tables.append(ExampleTable(schema))
        if self.scratch is not None:
            self.tables[-1].write_to(self.scratch.path / file_name(len(self.tables) - 1))
        return len(self.tables) - 1

    def add_runs(self, tables: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Record the positions of examples, given the table and the row of each."""
        if not len(tables):
            return
        starts = np.flatnonzero(np.append(True, (np.diff(tables) != 0) | (np.diff(rows) != 1)))
        if self.runs[0]:  # the first may continue the last run
            first, table, row = (column[-1] for column in self.runs)
            if (table, row + self.length - first) == (tables[0], rows[0]):
                starts = starts[1:]
        runs = (self.length + starts, tables[starts], rows[starts])
        for column, values in zip(self.runs, runs, strict=True):
            column.extend(values.tolist())

    def close(self) -> None:
        """Finish writing; from here on, examples can only be read."""
        for table in self.tables:
            table.close()

    def flat_columns(self) -> Iterator[Leaf]:
        """Yield the numbers of all examples, column by column, with the keys above them."""
        for table in self.tables:
            yield from table.flat_columns()

    def save(self, folder: Path) -> None:
        """Write the examples into a folder, for `open`; files are hard-linked where possible.

        Raises:
            ValueError: some examples exist in memory only.
        """
        if any(table.schema is None for table in self.tables):
            raise ValueError("examples with values that have no Arrow type cannot be saved")
        folder.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(self.tables):
            table.save(folder / file_name(number))
        manifest = {"length": self.length, "tables": len(self.tables),
                    "runs": [list(column) for column in self.runs]}
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    @staticmethod
    def open(folder: Path) -> ExampleStore:
        """Memory-map saved examples.

        Raises:
            ValueError, OSError: the files are incomplete.
        """
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        store = ExampleStore()
        store.length = manifest["length"]
        store.runs = [array("q", column) for column in manifest["runs"]]
        store.tables = [
            ExampleTable.open(folder / file_name(number)) for number in range(manifest["tables"])]
        return store


class ExampleTable:
    """Examples of one schema. schema: None for examples kept as Python objects."""

    def __init__(self, schema: pa.Schema | None) -> None:
        self.schema, self.length = schema, 0
        self.objects: list[Example] = []
        self.batches: list[pa.RecordBatch] = []
        self.pending: list[pa.RecordBatch] = []
        self.path: Path | None = None
        self.writer: Any = None
        self.starts: list[int] = []
        self.columns: list[list[pa.Array]] = []

    def append(self, examples: Any) -> int:
        """Append a record batch, or Python objects; return the row of the first."""
        first = self.length
        self.length += len(examples)
        if self.schema is None:
            self.objects += examples
        else:
            self.pending.append(examples)
            if sum(batch.nbytes for batch in self.pending) > BATCH_BYTES:
                self.flush()
        return first

    def flush(self) -> None:
        """Combine the pending batches, since many small ones are slow to read and take memory."""
        whole = []
        if self.pending:
            table = pa.Table.from_batches(self.pending, self.schema)
            whole = table.combine_chunks().to_batches()
        self.pending = []
        for batch in whole:
            self.writer.write_batch(batch) if self.writer else self.batches.append(batch)

    def write_to(self, path: Path) -> None:
        """Move the batches to a file, and write further ones there."""
        if self.schema is None:
            return
        self.path, self.writer = path, pa.ipc.new_file(str(path), self.schema)
        for batch in self.batches:
            self.writer.write_batch(batch)
        self.batches = []

    def close(self) -> None:
        """Finish writing and make the batches readable."""
        self.flush()
        if self.writer:
            self.writer.close()
            self.batches = map_batches(self.path)
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)]).tolist()
        self.columns = [batch.columns for batch in self.batches]

    def read(self, row: int) -> dict[str, Any]:
        """Read one example."""
        if self.schema is None:
            return dict(self.objects[row])
        number = bisect_right(self.starts, row) - 1
        row -= self.starts[number]
        return {field.name: value_at(field, column, row)
                for field, column in zip(self.schema, self.columns[number], strict=True)}

    def flat_columns(self) -> Iterator[Leaf]:
        """Yield all numbers, column by column."""
        if self.schema is None:
            yield (), self.objects
            return
        for columns in self.columns:
            for field, column in zip(self.schema, columns, strict=True):
                yield from flatten((field.name,), field, column)

    def save(self, path: Path) -> None:
        """Hard-link or write the file of these examples."""
        path.unlink(missing_ok=True)
        try:
            if self.path is None:
                raise OSError("in memory")
            os.link(self.path, path)
        except OSError:
            with pa.ipc.new_file(str(path), self.schema) as writer:
                for batch in self.batches:
                    writer.write_batch(batch)

    @staticmethod
    def open(path: Path) -> ExampleTable:
        """Memory-map a saved file."""
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        table = ExampleTable(reader.schema)
        table.path = path
        table.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        table.length = sum(batch.num_rows for batch in table.batches)
        table.close()
        return table


def file_name(number: int) -> str:
    """Return the file name of a table."""
    return f"{number}.arrow"


def map_batches(path: Path | None) -> list[pa.RecordBatch]:
    """Return the record batches of a file as views of its memory map."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def same_schema(one: pa.Schema | None, other: pa.Schema | None) -> bool:
    """Tell whether examples of both schemas may share a table."""
    if one is None or other is None:
        return one is other
    return bool(one.equals(other, check_metadata=True))
