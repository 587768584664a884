"""Arrow tables of text columns: in memory while small, else in a file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hubtune.data.files.packed import new_folder

IN_MEMORY = 1 << 25
"""Bytes of a table from which on it is kept in a file."""


class ArrowTable:
    """Rows of strings, collected batch by batch, as a `datasets.Dataset`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.schema = pa.schema([(name, pa.string()) for name in names])
        self.rows = self.size = 0
        self.batches: list[Any] = []
        self.path: Path | None = None
        self.writer: Any = None

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows, each with a string per column."""
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        batch = pa.record_batch(columns, schema=self.schema)
        self.rows, self.size = self.rows + len(rows), self.size + batch.nbytes
        if self.writer is None and self.size > IN_MEMORY:
            self.path = new_folder() / "rows.arrow"
            self.writer = pa.ipc.new_stream(str(self.path), self.schema)
            for earlier in self.batches:
                self.writer.write_batch(earlier)
            self.batches = []
        if self.writer is None:
            self.batches.append(batch)
        else:
            self.writer.write_batch(batch)

    def dataset(self) -> Any:
        """Return all rows; nothing can be added afterwards."""
        from datasets import Dataset

        if self.path is None:
            return Dataset(pa.Table.from_batches(self.batches, self.schema))
        self.writer.close()
        return Dataset.from_file(str(self.path))
