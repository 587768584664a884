"""Examples in Arrow record batches: in memory while they are few, else in memory-mapped files.

A memory-mapped file is read page by page as its examples are asked for, so a dataset may be larger than memory and
several processes share one copy of it.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hubtune import temporary
from hubtune.contract import Example

MEMORY_LIMIT = 32_000_000
"""Bytes of examples in memory, beyond which all go to files."""
BATCH_BYTES = 4_000_000
"""Bytes of a record batch, about."""
MOST_TABLES = 64
"""Schemas that examples may have, beyond which further ones are kept as Python objects."""
MANIFEST = "examples.json"
ARRAY = pa.struct([("data", pa.binary()), ("shape", pa.list_(pa.int64()))])
"""How a NumPy array is stored; its dtype is in the metadata of the field."""
NULL = type(None)
SCALARS = {bool, int, float, str, bytes}
Leaf = tuple[tuple[str, ...], Any]
"""The keys above a flat column, and its values as an array, or as a list of Python objects."""


class ExampleStore(Sequence[Example]):
    """A list of dicts that is appended to, closed, and then read.

    Values may be numbers, strings, bytes, None, and lists and dicts of these, or NumPy arrays. Tuples come back as
    lists. Examples with anything else (an open image, a large integer) stay in memory as they are.
    """

    def __init__(self, memory_limit: int = MEMORY_LIMIT) -> None:
        self.memory_limit, self.memory, self.length = memory_limit, 0, 0
        self.tables: list[ExampleTable] = []
        self.scratch: temporary.Folder | None = None
        # Runs of examples that lie behind each other in one table: first example, table, first row.
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
        """Append examples with the same keys and types of values; returns their table and their rows in it."""
        batch = record_batch(examples)
        number = self.table_of(None if batch is None else batch.schema)
        batch = None if self.tables[number].schema is None else batch
        first = self.tables[number].append(examples if batch is None else batch)
        self.memory += 0 if batch is None else batch.nbytes
        if self.scratch is None and self.memory > self.memory_limit:
            self.scratch = temporary.Folder()  # removed with this store
            for other, table in enumerate(self.tables):
                table.write_to(self.scratch.path / file_name(other))
        return number, first + np.arange(len(examples))

    def table_of(self, schema: pa.Schema | None) -> int:
        """The number of the table for a schema, which is added where there is none yet."""
        if len(self.tables) >= MOST_TABLES and not any(same_schema(table.schema, schema) for table in self.tables):
            schema = None
        for number, table in enumerate(self.tables):
            if same_schema(table.schema, schema):
                return number
        self.tables.append(ExampleTable(schema))
        if self.scratch is not None:
            self.tables[-1].write_to(self.scratch.path / file_name(len(self.tables) - 1))
        return len(self.tables) - 1

    def add_runs(self, tables: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Note where examples lie, given the table and the row of each."""
        if not len(tables):
            return
        starts = np.flatnonzero(np.append(True, (np.diff(tables) != 0) | (np.diff(rows) != 1)))
        if self.runs[0]:  # the first may go on where the last run ended
            first, table, row = (column[-1] for column in self.runs)
            if (table, row + self.length - first) == (tables[0], rows[0]):
                starts = starts[1:]
        for column, values in zip(self.runs, (self.length + starts, tables[starts], rows[starts]), strict=True):
            column.extend(values.tolist())

    def close(self) -> None:
        """Finish writing; from here on examples are only read."""
        for table in self.tables:
            table.close()

    def flat_columns(self) -> Iterator[Leaf]:
        """All numbers of the examples, column by column, with the keys above them."""
        for table in self.tables:
            yield from table.flat_columns()

    def save(self, folder: Path) -> None:
        """Write the examples into a folder, for `open`; files are linked where the file system can.

        Raises:
            ValueError: some examples are in memory alone.
        """
        if any(table.schema is None for table in self.tables):
            raise ValueError("examples hold values that Arrow has no type for")
        folder.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(self.tables):
            table.save(folder / file_name(number))
        said = {"length": self.length, "tables": len(self.tables), "runs": [list(column) for column in self.runs]}
        (folder / MANIFEST).write_text(json.dumps(said), encoding="utf-8")

    @staticmethod
    def open(folder: Path) -> ExampleStore:
        """Map saved examples into memory. Raises ValueError or OSError where the files are not whole."""
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        store = ExampleStore()
        store.length, store.runs = said["length"], [array("q", column) for column in said["runs"]]
        store.tables = [ExampleTable.open(folder / file_name(number)) for number in range(said["tables"])]
        return store


class ExampleTable:
    """Examples of one schema. schema: None for examples that are kept as Python objects."""

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
        """Append a record batch, or Python objects; returns the row of the first."""
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
        """Join the pending batches, since many small ones are slow to read and take more room."""
        whole = pa.Table.from_batches(self.pending, self.schema).combine_chunks().to_batches() if self.pending else []
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
            self.batches = mapped_batches(self.path)
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
        """All numbers, column by column."""
        if self.schema is None:
            yield (), self.objects
            return
        for columns in self.columns:
            for field, column in zip(self.schema, columns, strict=True):
                yield from flattened((field.name,), field, column)

    def save(self, path: Path) -> None:
        """Link or write the file of these examples."""
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
        """Map a saved file into memory."""
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        table = ExampleTable(reader.schema)
        table.path = path
        table.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        table.length = sum(batch.num_rows for batch in table.batches)
        table.close()
        return table


def file_name(number: int) -> str:
    """The file of a table."""
    return f"{number}.arrow"


def mapped_batches(path: Path | None) -> list[pa.RecordBatch]:
    """The record batches of a file, as views of its memory map."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def same_schema(one: pa.Schema | None, other: pa.Schema | None) -> bool:
    """Whether examples of both may lie in one table."""
    return one is other or (one is not None and other is not None and one.equals(other, check_metadata=True))


# ------------------------------------------------------------------------------------- Python values and Arrow columns


def record_batch(examples: Sequence[Example]) -> pa.RecordBatch | None:
    """Turn examples with the same keys into a record batch; None where Arrow would not give them back as they are."""
    fields, columns = [], []
    for name in examples[0]:
        values = [example[name] for example in examples]
        try:
            made = array_column(values) if type(values[0]) is np.ndarray else plain_column(values)
        except (pa.ArrowException, OverflowError, UnicodeError):  # an integer of more than 64 bits, half a surrogate pair
            return None
        if made is None or type(name) is not str:
            return None
        column, metadata = made
        fields.append(pa.field(name, column.type, metadata=metadata))
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)) if fields else None


def plain_column(values: list[Any]) -> tuple[pa.Array, None] | None:
    """Numbers, strings, bytes, None and lists and dicts of these; None where they are of several types."""
    return (narrowed(pa.array(values)), None) if is_uniform(values) else None


def array_column(values: list[NDArray[Any]]) -> tuple[pa.Array, dict[str, str]] | None:
    """NumPy arrays of one dtype and of any shapes."""
    dtypes = {value.dtype.str for value in values}
    if len(dtypes) > 1 or values[0].dtype.kind not in "biufc":
        return None
    stored = [{"data": value.tobytes(), "shape": list(value.shape)} for value in values]
    return pa.array(stored, ARRAY), {"dtype": dtypes.pop()}


def is_uniform(values: Iterable[Any]) -> bool:
    """Whether Arrow gives values back as they are: of one type but for None, as are the values inside of them."""
    found = [value for value in values if value is not None]
    types = set(map(type, found))
    if not types:
        return True
    if types <= {list, tuple}:
        return is_uniform(chain.from_iterable(found))
    if types == {dict}:
        keys = list(found[0])
        same = all(type(key) is str for key in keys) and all(list(value) == keys for value in found)
        return same and all(is_uniform([value[key] for value in found]) for key in keys)
    return len(types) == 1 and types <= SCALARS


def narrowed(column: pa.Array) -> pa.Array:
    """The same values with integers of fewer bytes, where all fit; those of lists, which token ids are, best in two."""
    for small in (pa.uint16(), pa.int32()) if pa.types.is_nested(column.type) else (pa.int32(),):
        wanted = with_integers(column.type, small)
        if wanted == column.type:
            return column
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid:
            continue
    return column


def with_integers(kind: pa.DataType, small: pa.DataType) -> pa.DataType:
    """A type with other integers."""
    if pa.types.is_integer(kind):
        return small
    if pa.types.is_list(kind):
        return pa.list_(with_integers(kind.value_type, small))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, with_integers(field.type, small)) for field in kind])
    return kind


def value_at(field: pa.Field, column: pa.Array, row: int) -> Any:
    """One value of a column as Python has it."""
    value = column[row].as_py()
    if not field.metadata:
        return value
    return np.frombuffer(value["data"], field.metadata[b"dtype"].decode()).reshape(value["shape"]).copy()


def flattened(names: tuple[str, ...], field: pa.Field, column: pa.Array) -> Iterator[Leaf]:
    """The numbers of a column, without the lists and dicts around them, with the keys above."""
    if field.metadata:
        yield from ((names, np.frombuffer(value["data"].as_py(), field.metadata[b"dtype"].decode())) for value in column)
    elif pa.types.is_list(column.type):
        yield from flattened(names, column.type.value_field, column.flatten())
    elif pa.types.is_struct(column.type):
        for inner in column.type:
            yield from flattened((*names, inner.name), inner, column.field(inner.name))
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        yield names, column.drop_null().to_numpy()
