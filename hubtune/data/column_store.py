"""Values of any structure as flat arrays with offsets, read one by one as what they were.

A value has a form: a number, a text, a list, a dict with certain keys. Values of one form lie behind each other, those inside
of them in arrays of their own: the tokens of all examples in one, and where each example ends in another. What has no flat
form (an open image, say) stays as it is, in memory. A mapping comes back as a dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from hubtune.data.arrays import Array, Place
from hubtune.data.layouts import MADE, PLAIN, Arrays, Form, Numbers, Objects, fits, form_of

FORMS = 64
"""Forms that values of one place may have before further ones are kept as they are."""


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
            made = MADE[form[0]](self.place, *form[1:])
            made.inside = [Values(self.place) for _ in range(made.holds)]
            self.forms.append(made)
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
