"""Arrow columns: convert examples (dicts of Python values or NumPy arrays) to Arrow and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hubtune.contract import Example

ARRAY = pa.struct([("data", pa.binary()), ("shape", pa.list_(pa.int64()))])
"""Storage type of a NumPy array; its dtype is in the metadata of the field."""
SCALARS = {bool, int, float, str, bytes}
Leaf = tuple[tuple[str, ...], Any]
"""The keys above a flat column, and its values as an array, or as a list of Python objects."""


def record_batch(examples: Sequence[Example]) -> pa.RecordBatch | None:
    """Convert examples with the same keys to a record batch; None where Arrow changes values."""
    fields, columns = [], []
    for name in examples[0]:
        values = [example[name] for example in examples]
        is_array = type(values[0]) is np.ndarray
        try:
            made = array_column(values) if is_array else plain_column(values)
        # An integer of more than 64 bits, or half a surrogate pair.
        except (pa.ArrowException, OverflowError, UnicodeError):
            return None
        if made is None or type(name) is not str:
            return None
        column, metadata = made
        fields.append(pa.field(name, column.type, metadata=metadata))
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)) if fields else None


def plain_column(values: list[Any]) -> tuple[pa.Array, None] | None:
    """Convert numbers, strings, bytes, None, and lists and dicts of these; None for mixed types."""
    return (narrow_integers(pa.array(values)), None) if is_uniform(values) else None


def array_column(values: list[NDArray[Any]]) -> tuple[pa.Array, dict[str, str]] | None:
    """Convert NumPy arrays of one dtype and any shapes; None for several dtypes."""
    dtypes = {value.dtype.str for value in values}
    if len(dtypes) > 1 or values[0].dtype.kind not in "biufc":
        return None
    stored = [{"data": value.tobytes(), "shape": list(value.shape)} for value in values]
    return pa.array(stored, ARRAY), {"dtype": dtypes.pop()}


def is_uniform(values: Iterable[Any]) -> bool:
    """Tell whether Arrow preserves the values: one type besides None, also in lists and dicts."""
    found = [value for value in values if value is not None]
    types = set(map(type, found))
    if not types:
        return True
    if types <= {list, tuple}:
        return is_uniform(chain.from_iterable(found))
    if types == {dict}:
        keys = list(found[0])
        same = (all(type(key) is str for key in keys)
                and all(list(value) == keys for value in found))
        return same and all(is_uniform([value[key] for value in found]) for key in keys)
    return len(types) == 1 and types <= SCALARS


def narrow_integers(column: pa.Array) -> pa.Array:
    """Cast integers to fewer bytes where all fit; in lists (such as token ids), to two first."""
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
    """Return the same type with other integers."""
    if pa.types.is_integer(kind):
        return small
    if pa.types.is_list(kind):
        return pa.list_(with_integers(kind.value_type, small))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, with_integers(field.type, small)) for field in kind])
    return kind


def value_at(field: pa.Field, column: pa.Array, row: int) -> Any:
    """Return one value of a column as a Python object."""
    value = column[row].as_py()
    if not field.metadata:
        return value
    flat = np.frombuffer(value["data"], field.metadata[b"dtype"].decode())
    return flat.reshape(value["shape"]).copy()


def flatten(names: tuple[str, ...], field: pa.Field, column: pa.Array) -> Iterator[Leaf]:
    """Yield the numbers of a column without enclosing lists and dicts, with the keys above."""
    if field.metadata:
        dtype = field.metadata[b"dtype"].decode()
        yield from ((names, np.frombuffer(value["data"].as_py(), dtype)) for value in column)
    elif pa.types.is_list(column.type):
        yield from flatten(names, column.type.value_field, column.flatten())
    elif pa.types.is_struct(column.type):
        for inner in column.type:
            yield from flatten((*names, inner.name), inner, column.field(inner.name))
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        yield names, column.drop_null().to_numpy()
