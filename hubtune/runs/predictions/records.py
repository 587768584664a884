"""The rows of a file of predictions: their number, the columns that are kept, and the prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from hubtune.contract import Prediction
from hubtune.errors import RecipeError
from hubtune.runs.predictions import parts
from hubtune.runs.predictions.cells import PLAIN, cells

PROBABILITIES = "probabilities"
"""Entry of a prediction with the probability of each label."""


def require_probabilities(predictions: Sequence[Prediction], task: str) -> None:
    """Refuse a column per label where a task's predictions have no probabilities by label."""
    if not all(isinstance(found.get(PROBABILITIES), dict) for found in predictions):
        raise RecipeError(f"'{task}' gives no probability for each label.",
                          hint="Leave --probabilities out.")


@dataclass(frozen=True)
class Records:
    """The rows of some parts, which are read again at each iteration.

    paths: of the parts. probabilities: each label's probability is an entry of its own.
    """

    paths: Sequence[Path]
    probabilities: bool

    def kept_schema(self) -> pa.Schema:
        """Return the columns kept of the data in all parts, with types that hold all values."""
        return unify(parts.kept_schema(path) for path in self.paths)

    def batches(self, kept: pa.Schema) -> Iterator[tuple[pa.Table, list[dict[str, Any]]]]:
        """Yield part by part the columns that are kept, and the entries of the predictions.

        An entry with the name of a column that is kept is called `predicted_NAME`.
        """
        first = 0
        for path in self.paths:
            table, predictions = parts.read(path)
            entries = [self.entries(first + place, found, kept.names)
                       for place, found in enumerate(predictions)]
            first += len(predictions)
            yield conform(table, kept, len(predictions)), entries

    def rows(self, kept: pa.Schema, as_cells: bool) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of each part. as_cells: values that fit in the cells of a sheet alone."""
        for table, entries in self.batches(kept):
            columns = table.to_pylist() if table.num_columns else [{} for _ in entries]
            if as_cells:
                columns = [{name: cell(value) for name, value in row.items()} for row in columns]
                entries = [cells(found) for found in entries]
            yield [{**number_first(found), **row, **found}
                   for row, found in zip(columns, entries, strict=True)]

    def entries(self, number: int, prediction: Prediction, taken: Sequence[str]) -> dict[str, Any]:
        """Return the number of a row and the entries of its prediction."""
        found = {"row": number, **prediction}
        if self.probabilities:
            by_label = found.pop(PROBABILITIES)
            found |= {f"probability_{label}": value for label, value in by_label.items()}
        return {f"predicted_{name}" if name in taken else name: value for name, value in found.items()}


def number_first(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with the row's number, which stands before the columns of the data."""
    return dict(list(entries.items())[:1])


def cell(value: Any) -> Any:
    """Return a value of the data as a cell: lists and objects as JSON."""
    if isinstance(value, PLAIN):
        return value
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


def unify(schemas: Any) -> pa.Schema:
    """Return a schema for all of some; a column whose types do not fit together is one of texts."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            types[field.name] = common_type(types.get(field.name, field.type), field.type)
    return pa.schema(list(types.items()))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of two; a text where none does."""
    if one == other:
        return one
    try:
        return pa.unify_schemas([pa.schema([("value", one)]), pa.schema([("value", other)])],
                                promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()


def conform(table: pa.Table, schema: pa.Schema, rows: int) -> pa.Table:
    """Return a table with the columns of a schema; columns that it lacks hold nulls."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(rows, field.type))
            continue
        column = table[field.name]
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException:
            columns.append(pa.array([None if value is None else str(cell(value))
                                     for value in column.to_pylist()], pa.string()))
    return pa.Table.from_arrays(columns, schema=schema)
