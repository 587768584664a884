"""How values of one form lie behind each other in flat arrays: numbers, texts, lists with what is inside of them, dicts by key.

A form is what a value is made of. What is inside of it may have any form again, which is for the `store` to tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hubtune.data.arrays import Array, Place

if TYPE_CHECKING:
    from hubtune.data.column_store import Values

SHORT = 4
"""Tuples up to this length have a form for each length."""
PLAIN: dict[type, tuple[Any, ...]] = {
    int: ("int",), float: ("float",), bool: ("bool",), type(None): ("none",), str: ("str",), bytes: ("bytes",), list: ("list",),
}
FLAT = "biufc"
"""Kinds of NumPy's numbers that have a flat form."""


def form_of(value: Any) -> tuple[Any, ...]:
    """What a value is made of, in JSON values: equal for values that may lie in the same arrays."""
    kind = type(value)
    if kind in PLAIN:
        return PLAIN[kind] if kind is not int or fits([value]) else ("object",)
    if kind is tuple:
        return ("tuple", len(value)) if len(value) <= SHORT else ("tuple",)
    if isinstance(value, Mapping) and all(type(name) is str for name in value):
        return ("dict", *value)
    if isinstance(value, np.generic) and value.dtype.kind in FLAT:
        return ("scalar", value.dtype.str)
    if kind is np.ndarray and value.dtype.kind in FLAT:
        return ("array", value.dtype.str)
    if kind.__module__ == "torch" and kind.__name__ == "Tensor" and str(value.dtype) != "torch.bfloat16":
        return ("tensor", value.numpy(force=True).dtype.str)
    return ("object",)


def fits(numbers: Sequence[int]) -> bool:
    """Whether whole numbers have at most 64 bits."""
    return min(numbers, default=0) >= -(2**63) and max(numbers, default=0) < 2**63


class Form:
    """Values of one form, behind each other: `extend` appends, `part` reads a stretch of them."""

    arrays: Sequence[Array] = ()
    holds: int = 0
    """How many places there are for what is inside of a value: one for all entries of a list, one for each key of a dict."""
    inside: Sequence[Values] = ()
    """These places, which the store makes."""
    names: Sequence[str] = ()
    """Of a dict: the keys of what is inside."""

    def __init__(self, place: Place, *said: Any) -> None:
        """said: the rest of what `form_of` says."""

    def extend(self, values: Sequence[Any]) -> None:
        """Append values."""

    def part(self, first: int, last: int) -> Sequence[Any]:
        """The values from first to before last."""
        raise NotImplementedError


class Nothing(Form):
    """None."""

    def part(self, first: int, last: int) -> Sequence[Any]:
        return [None] * (last - first)


class Numbers(Form):
    """Python's numbers, or NumPy's."""

    def __init__(self, place: Place, kind: Any, python: bool = False) -> None:
        self.python, self.arrays = python, [place.array(kind)]

    def extend(self, values: Sequence[Any]) -> None:
        self.arrays[0].extend(values)

    def part(self, first: int, last: int) -> Sequence[Any]:
        found = self.arrays[0].values[first:last]
        return found.tolist() if self.python else list(found)


class Bytes(Form):
    """Bytes, and what is made of them."""

    def __init__(self, place: Place) -> None:
        self.arrays = [place.array(np.uint8), place.array()]
        self.length = 0

    def extend(self, values: Sequence[Any]) -> None:
        self.arrays[0].extend(b"".join(values))
        ends = list(accumulate(map(len, values), initial=self.length))
        self.length = ends[-1]
        self.arrays[1].extend(ends[1:])

    def part(self, first: int, last: int) -> Sequence[Any]:
        data, ends = (array.values for array in self.arrays)
        return [data[start:end].tobytes() for start, end in stretches(ends, first, last)]


class Text(Bytes):
    """Strings."""

    def extend(self, values: Sequence[Any]) -> None:
        super().extend([value.encode("utf-8", "surrogatepass") for value in values])

    def part(self, first: int, last: int) -> Sequence[Any]:
        return [value.decode("utf-8", "surrogatepass") for value in super().part(first, last)]


class Arrays(Bytes):
    """NumPy's arrays of any shape, or tensors; inside are their shapes."""

    holds = 1

    def __init__(self, place: Place, kind: str, tensor: bool = False) -> None:
        super().__init__(place)
        self.kind, self.tensor = kind, tensor

    def extend(self, values: Sequence[Any]) -> None:
        self.inside[0].extend([tuple(value.shape) for value in values])
        super().extend([np.asarray(value.numpy(force=True) if self.tensor else value).tobytes() for value in values])

    def part(self, first: int, last: int) -> Sequence[Any]:
        shapes = self.inside[0].part(first, last)
        found = [np.frombuffer(data, self.kind).reshape(shape).copy()
                 for data, shape in zip(super().part(first, last), shapes, strict=True)]
        if self.tensor:
            import torch

            return [torch.from_numpy(value) for value in found]
        return found


class Tuples(Form):
    """Tuples of one length."""

    holds = 1

    def __init__(self, place: Place, length: int) -> None:
        self.length = length

    def extend(self, values: Sequence[Any]) -> None:
        self.inside[0].extend([*chain.from_iterable(values)])

    def part(self, first: int, last: int) -> Sequence[Any]:
        if not self.length:
            return [()] * (last - first)
        flat = iter(self.inside[0].part(first * self.length, last * self.length))
        return [*zip(*[flat] * self.length, strict=True)]


class Lists(Form):
    """Lists or tuples of any length."""

    holds = 1

    def __init__(self, place: Place, kind: Callable[[Sequence[Any]], Any] = list) -> None:
        self.kind, self.arrays = kind, [place.array()]

    def extend(self, values: Sequence[Any]) -> None:
        ends = list(accumulate(map(len, values), initial=len(self.inside[0])))
        self.arrays[0].extend(ends[1:])
        self.inside[0].extend([*chain.from_iterable(values)])

    def part(self, first: int, last: int) -> Sequence[Any]:
        where = stretches(self.arrays[0].values, first, last)
        flat, begin = self.inside[0].part(where[0][0], where[-1][1]), where[0][0]
        return [self.kind(flat[start - begin : end - begin]) for start, end in where]


class Dicts(Form):
    """Dicts with the same keys in the same order."""

    def __init__(self, place: Place, *names: str) -> None:
        self.names, self.holds = names, len(names)

    def extend(self, values: Sequence[Any]) -> None:
        for name, inner in zip(self.names, self.inside, strict=True):
            inner.extend([value[name] for value in values])

    def part(self, first: int, last: int) -> Sequence[Any]:
        columns = [inner.part(first, last) for inner in self.inside]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else [
            {} for _ in range(first, last)]


class Objects(Form):
    """What has no flat form."""

    def __init__(self, place: Place) -> None:
        self.kept: list[Any] = []

    def extend(self, values: Sequence[Any]) -> None:
        self.kept.extend(values)

    def part(self, first: int, last: int) -> Sequence[Any]:
        return self.kept[first:last]


def stretches(ends: NDArray[Any], first: int, last: int) -> list[tuple[int, int]]:
    """Where the values from first to before last begin and end."""
    if last - first == 1:
        return [(int(ends[first - 1]) if first else 0, int(ends[first]))]
    found = ends[max(0, first - 1) : last].tolist()
    return [*zip(found if first else [0, *found], found[1:] if first else found, strict=False)]


MADE: dict[str, Callable[..., Form]] = {
    "int": lambda place: Numbers(place, None, python=True), "float": lambda place: Numbers(place, np.float64, python=True),
    "bool": lambda place: Numbers(place, np.bool_, python=True), "scalar": Numbers, "none": Nothing, "str": Text,
    "bytes": Bytes, "list": Lists, "dict": Dicts, "array": Arrays, "object": Objects,
    "tensor": lambda place, kind: Arrays(place, kind, tensor=True),
    "tuple": lambda place, *length: Tuples(place, *length) if length else Lists(place, tuple),
}
