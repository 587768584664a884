"""Values of any structure as flat arrays with offsets, read one by one as what they were.

A value has a form: a number, a text, a list, a dict with certain keys. Values of one form lie behind each other, those inside
of them in arrays of their own: the tokens of all examples in one, and where each example ends in another. What has no flat
form (an open image, say) stays as it is, in memory. A mapping comes back as a dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubtune.arrays import Array, Place

FORMS = 64
"""Forms that values of one place may have before further ones are kept as they are."""
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
    inside: Sequence[Values] = ()
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
    """NumPy's arrays of any shape, or tensors."""

    def __init__(self, place: Place, kind: str, tensor: bool = False) -> None:
        super().__init__(place)
        self.kind, self.tensor, self.inside = kind, tensor, [Values(place)]

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

    def __init__(self, place: Place, length: int) -> None:
        self.length, self.inside = length, [Values(place)]

    def extend(self, values: Sequence[Any]) -> None:
        self.inside[0].extend([*chain.from_iterable(values)])

    def part(self, first: int, last: int) -> Sequence[Any]:
        if not self.length:
            return [()] * (last - first)
        flat = iter(self.inside[0].part(first * self.length, last * self.length))
        return [*zip(*[flat] * self.length, strict=True)]


class Lists(Form):
    """Lists or tuples of any length."""

    def __init__(self, place: Place, kind: Callable[[Sequence[Any]], Any] = list) -> None:
        self.kind, self.arrays, self.inside = kind, [place.array()], [Values(place)]

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
        self.names, self.inside = names, [Values(place) for _ in names]

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


class Values(Sequence[Any]):
    """Values of any form, in order. Where there are several forms: of each value which, and its place among those of its form."""

    def __init__(self, place: Place) -> None:
        self.place, self.length = place, 0
        self.numbers: dict[tuple[Any, ...], int] = {}
        self.forms: list[Form] = []
        self.counts: list[int] = []
        self.which: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[item] for item in range(*index.indices(self.length))]
        index = range(self.length)[index]
        return self.part(index, index + 1)[0]

    def extend(self, values: Sequence[Any]) -> None:
        """Append values."""
        kinds = set(map(type, values))
        if len(kinds) == 1 and (kind := kinds.pop()) in PLAIN and (kind is not int or fits(values)):
            each = [self.number(PLAIN[kind])] * len(values)
        else:
            each = [self.number(form_of(value)) for value in values]
        counts = Counter(each)
        for number in counts:
            among = values if len(counts) == 1 else [value for value, one in zip(values, each, strict=True) if one == number]
            self.forms[number].extend(among)
        if self.which is not None:
            places = {number: count(self.counts[number]) for number in counts}
            self.which[0].extend(each)
            self.which[1].extend([next(places[number]) for number in each])
        for number, more in counts.items():
            self.counts[number] += more
        self.length += len(values)

    def number(self, form: tuple[Any, ...]) -> int:
        """The number of a form; too many, and what has a further one is kept as it is."""
        if form not in self.numbers:
            form = form if len(self.forms) < FORMS else ("object",)
        if form not in self.numbers:
            if len(self.forms) == 1:
                self.which = self.place.array(), self.place.array()
                self.which[0].append(np.zeros(self.length, np.uint8))
                self.which[1].append(np.arange(self.length))
            self.numbers[form] = len(self.forms)
            self.forms.append(MADE[form[0]](self.place, *form[1:]))
            self.counts.append(0)
        return self.numbers[form]

    def part(self, first: int, last: int) -> Sequence[Any]:
        """The values from first to before last, as a list."""
        if first == last:
            return []
        if self.which is None:
            return self.forms[0].part(first, last)
        which, places = (array.values[first:last] for array in self.which)
        streams: dict[int, Any] = {}
        for number in set(which.tolist()):
            start, among = int(places[np.argmax(which == number)]), int((which == number).sum())
            streams[number] = iter(self.forms[number].part(start, start + among))
        return [next(streams[number]) for number in which.tolist()]

    def leaves(self, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Every array of numbers, and every list of what has no flat form, with the keys above it."""
        for form in self.forms:
            if isinstance(form, Numbers):
                yield names, form.arrays[0].values
            elif isinstance(form, Arrays):
                yield names, form.arrays[0].values.view(form.kind)
            elif isinstance(form, Objects):
                yield names, form.kept
            else:
                for name, inner in zip(form.names or ("",) * len(form.inside), form.inside, strict=True):
                    yield from inner.leaves((*names, name))

    def said(self) -> dict[str, Any]:
        """What `open` needs, as JSON. Raises ValueError where something has no flat form."""
        if ("object",) in self.numbers:
            raise ValueError("examples hold what has no flat form")
        return {
            "count": self.length, "which": [array.said() for array in self.which or ()],
            "forms": [[name, among, [array.said() for array in form.arrays], [inner.said() for inner in form.inside]]
                      for name, among, form in zip(self.numbers, self.counts, self.forms, strict=True)],
        }

    def open(self, said: Mapping[str, Any]) -> None:
        """Read what another process has written; raises ValueError or OSError where it is not whole."""
        for name, among, arrays, inside in said["forms"]:
            form = self.forms[self.number(tuple(name))]
            for array, one in zip(form.arrays, arrays, strict=True):
                array.open(one)
            for inner, more in zip(form.inside, inside, strict=True):
                inner.open(more)
            self.counts[-1] = among
        for array, one in zip(self.which or (), said["which"], strict=True):
            array.open(one)
        self.length = said["count"]
