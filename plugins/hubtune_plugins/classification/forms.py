"""Forms of labels: how the cell of a row says which labels it has, found in the training rows and said aloud."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hubtune import DataError, label_text, row_numbers
from hubtune_plugins.classification.cells import looks_like_list, read_list

FormName = Literal["plain", "list", "separator", "positions", "whole"]
WHOLE = re.compile(r"([-+]?\d+)\.0*")
"""A whole number with a decimal point."""
MOST_CLASSES = 20
"""Whole numbers with a decimal point are classes if they have at most this many values, each twice on average."""
SEPARATORS = ("|", ";", ",")
AS_WRITTEN = "For one label a row, as the cell is written: --set task.kind=single_label"


@dataclass(frozen=True)
class LabelForm:
    """How a cell says its labels.

    name: plain: its value is the label. list: a list of them, perhaps as text. separator: they stand in one text.
    positions: 0 or 1 for each class. whole: a class number with a decimal point. separator: what stands between labels.
    names: of positions, in their order; of numbered classes, by number. length: number of positions.
    """

    name: FormName = "plain"
    separator: str = "|"
    names: tuple[str, ...] = ()
    length: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the form for `run.json`."""
        return {"name": self.name, "separator": self.separator, "names": list(self.names), "length": self.length}

    @staticmethod
    def of(record: Mapping[str, Any] | None, options: Any) -> LabelForm:
        """Return the form of a record; of one without it, as hubtune 0.2.0 read labels."""
        if not record:
            separator = getattr(options, "separator", "auto")
            return LabelForm(separator="|" if separator == "auto" else separator)
        return LabelForm(record["name"], record["separator"], tuple(record["names"]), record["length"])

    def one(self, value: Any) -> str:
        """Return the only label of a cell. Raises DataError where it holds another number of them."""
        if isinstance(value, list | tuple):
            if len(value) != 1:
                raise DataError(f"the label {value!r} holds {len(value)} labels, and a row has one here.",
                                hint="For several labels a row: --set task.kind=multi_label")
            value = value[0]
        return self.named(value)

    def several(self, value: Any) -> list[str]:
        """Return the labels of a cell."""
        if self.name == "positions":
            vector = position_values(read_list(value))
            if vector is None or len(vector) != self.length:
                raise DataError(f"the label {value!r} is no list of {self.length} zeros and ones, as those of train are.",
                                hint="If the numbers are names of labels: --set task.label_form=names")
            return [self.names[index] for index, given in enumerate(vector) if given]
        parts = value if isinstance(value, list | tuple) else read_list(value) if self.name == "list" else None
        if parts is None:
            parts = [part.strip() for part in str(value).split(self.separator)]
        return [name for part in parts if (name := self.named(part))]

    def named(self, value: Any) -> str:
        """Return a label by its name. Raises DataError for an object or a list within a list."""
        if isinstance(value, Mapping | list | tuple):
            is_object = isinstance(value, Mapping)
            raise DataError(
                f"the label {str(value)[:80]} is {'an object' if is_object else 'a list'}, not a name or a number.",
                hint="Choose the field that holds the name: --set data.label=COLUMN.FIELD" if is_object
                else 'Write one list for each row, such as ["red", "blue"].')
        text = label_text(value)
        if self.name == "whole" and (match := WHOLE.fullmatch(text)):
            text = match[1].removeprefix("+")
        if self.names and self.name != "positions" and text.isdecimal() and int(text) < len(self.names):
            return self.names[int(text)]
        return text


MOST_REMEMBERED = 100_000
"""Cells of which `remembered` keeps the answer."""


def remembered(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that computes `make` once for each text: a column of labels repeats few of them."""
    known: dict[str, Any] = {}

    def call(value: Any) -> Any:
        if type(value) is not str:
            return make(value)
        if value not in known:
            if len(known) >= MOST_REMEMBERED:
                return make(value)
            known[value] = make(value)
        return known[value]

    return call


@dataclass(frozen=True)
class Found:
    """The kind and form of the labels, and a sentence for each decision."""

    kind: str
    form: LabelForm
    notes: tuple[str, ...] = ()


def find(values: Sequence[Any], options: Any, names: Sequence[str]) -> Found:
    """Return what the labels of the training rows are.

    Args:
        values: the cells of all training rows.
        options: `kind` (auto: as the cells look), `separator` and `label_form`.
        names: of `data.label_names`.

    Raises:
        DataError: cells that can be read in several ways, or not at all.
    """
    seen = summary(values)
    wanted = options.kind
    if wanted == "regression":
        return Found(wanted, LabelForm())
    if wanted in ("auto", "multi_label"):
        found = find_lists(seen, values, options, names) or find_separator(seen, options, names, wanted)
        if found:
            return found
        if wanted == "multi_label":
            return Found(wanted, LabelForm("plain", "|" if options.separator == "auto" else options.separator, tuple(names)))
    return find_single(seen, len(values), wanted, names)


@dataclass(frozen=True)
class Cells:
    """The distinct cells of a column: scalars with their counts, and whether there are lists. first: index of each."""

    scalars: Counter[Any]
    has_lists: bool


def summary(values: Iterable[Any]) -> Cells:
    """Go through the cells once."""
    scalars: Counter[Any] = Counter()
    has_lists = False
    for value in values:
        if isinstance(value, list | tuple):
            has_lists = True
        elif not isinstance(value, dict):
            # True == 1 == 1.0: the type is part of the key
            scalars[value if isinstance(value, str) else (type(value).__name__, value)] += 1
    return Cells(scalars, has_lists)


# ----------------------------------------------------------------------------------- several labels


def find_lists(seen: Cells, values: Sequence[Any], options: Any, names: Sequence[str]) -> Found | None:
    """Return the form of cells that are lists, or texts that hold lists; None where they are not."""
    texts = [cell for cell in seen.scalars if looks_like_list(cell)]
    as_text = not seen.has_lists and any(read_list(cell) is not None for cell in texts)
    if not seen.has_lists and not as_text:
        return None
    odd = [index for index, value in enumerate(values) if read_list(value) is None]
    if odd and (as_text or options.kind == "auto"):
        raise DataError(
            f"some labels are lists and others are not, such as {values[odd[0]]!r}: {row_numbers(odd, values)} of train.",
            hint=f"Write every label as a list, or none. {AS_WRITTEN}")
    lists = [read_list(value) or [] for value in values] if odd == [] else [value for value in map(read_list, values) if value]
    example = next((cell for cell in texts), None)
    if options.label_form != "names" and (length := vector_length(lists, options.label_form)):
        return positions(length, names, example)
    refuse_vectors(values, lists)
    form = LabelForm("list", names=tuple(names))
    if as_text:
        return Found("multi_label", form, (
            f"labels: the cells hold lists as text, such as {example}: several labels a row. {AS_WRITTEN}",))
    ones = all(len(found) == 1 for found in lists)
    note = f"labels: lists of names: several labels a row. {'Each holds one. ' if ones else ''}{AS_WRITTEN if ones else ''}"
    return Found("multi_label", form, (note.strip(),))


def position_values(values: Sequence[Any] | None) -> list[int] | None:
    """Return a list of zeros and ones as such; None for any other list."""
    if values is None or not all(str(value).lower() in ("0", "1", "0.0", "1.0", "true", "false") for value in values):
        return None
    return [int(str(value).lower() in ("1", "1.0", "true")) for value in values]


def vector_length(lists: Sequence[Sequence[Any]], wanted: str) -> int:
    """Return the length of 0/1 vectors, which all lists have; 0 where the lists are something else."""
    lengths = {len(found) for found in lists}
    fits = len(lengths) == 1 and all(position_values(found) is not None for found in lists)
    length = lengths.pop() if fits else 0
    if wanted == "positions" and not length:
        raise DataError("the labels are not lists of zeros and ones of one length, as task.label_form=positions says.",
                        hint="For names or ids of labels: --set task.label_form=names")
    return length if length > 1 or wanted == "positions" else 0  # [0] and [1] are ids


def positions(length: int, names: Sequence[str], example: str | None) -> Found:
    """Return 0/1 vectors as labels, one for each position."""
    if names and len(names) != length:
        raise DataError(f"the labels are lists of {length} zeros and ones, and there are {len(names)} names for them: "
                        f"{', '.join(names)}.", hint="Name every position, in their order: --set 'data.label_names=[...]'")
    called = tuple(names or (f"label_{index}" for index in range(length)))
    text = f" as text ({example})" if example else ""
    naming = "" if names else " Name them with: --set 'data.label_names=[...]'."
    return Found("multi_label", LabelForm("positions", names=called, length=length), (
        f"labels: 0/1 vectors of {length} positions{text}: several labels a row, one for each position "
        f"({', '.join(called[:8])}{', ...' if length > 8 else ''}).{naming} "
        "If the numbers are names of labels: --set task.label_form=names",))


def refuse_vectors(values: Sequence[Any], lists: Sequence[Sequence[Any]]) -> None:
    """Refuse lists of names that look like vectors: a label twice in a row, or fractions."""
    twice = [index for index, found in enumerate(lists) if len(set(map(str, found))) < len(found)]
    if twice and all(position_values(found) is not None for found in lists):
        lengths = sorted({len(found) for found in lists})
        few = f"{lengths[0]} positions" if len(lengths) == 1 else f"{', '.join(map(str, lengths))} positions"
        raise DataError(
            f"labels that are lists of zeros and ones, of {few}, are no names of labels where they repeat one, such as "
            f"{list(lists[twice[0]])}: {row_numbers(twice, values)} of train.",
            hint="Give every row one position for each class, and leave task.label_form out.")
    soft = [index for index, found in enumerate(lists)
            if any(isinstance(part, float) and not part.is_integer() for part in found)]
    if soft:
        raise DataError(f"a list of fractions, such as {list(lists[soft[0]])}, names no labels: "
                        f"{row_numbers(soft, values)} of train.", hint="Write 0 or 1 for each class, or names of labels.")


def find_separator(seen: Cells, options: Any, names: Sequence[str], wanted: str) -> Found | None:
    """Return the form of texts in which several labels stand; None where no part recurs as a label."""
    cells = [cell for cell in seen.scalars if isinstance(cell, str)]
    for separator in SEPARATORS if options.separator == "auto" else (options.separator,):
        joined = [cell for cell in cells if separator in cell.strip()]
        if joined and (wanted == "multi_label" or recur(cells, joined, separator)):
            form = LabelForm("separator", separator, tuple(names))
            alone = "" if wanted == "multi_label" else ", which recur in other cells"
            return Found("multi_label", form, (
                f"labels: '{separator}' stands between several labels of a row: {joined[0]!r} is "
                f"{' and '.join(repr(label) for label in form.several(joined[0]))}{alone}. {AS_WRITTEN}",))
    return None


def recur(cells: Sequence[str], joined: Sequence[str], separator: str) -> bool:
    """Tell if the parts of cells are labels: most of them stand alone in a cell, or in several different ones."""
    split = {cell: {part.strip() for part in cell.split(separator)} for cell in joined}
    alone = {cell.strip() for cell in cells} - set(map(str.strip, joined))
    places = Counter(part for parts in split.values() for part in parts)
    parts = set(places)
    known = {part for part in parts if part in alone or places[part] > 1}
    every = all(parts & known for parts in split.values())
    return "" not in parts and every and 2 * len(known) >= len(parts)


# --------------------------------------------------------------------------------------- one label


def find_single(seen: Cells, count: int, wanted: str, names: Sequence[str]) -> Found:
    """Return the form of cells with one label or number each."""
    kind, form, notes = "single_label", LabelForm(names=tuple(names)), []
    cells = [cell if isinstance(cell, str) else cell[1] for cell in seen.scalars]
    if cells and all(isinstance(cell, float) or (isinstance(cell, str) and is_number(cell)) for cell in cells):
        pointed = any(isinstance(cell, float) or "." in cell for cell in cells)
        whole = pointed and all(is_whole(cell) for cell in cells)
        few = len(cells) <= MOST_CLASSES and 2 * len(cells) <= count
        if whole and (few or wanted == "single_label"):
            form = LabelForm("whole", names=tuple(names))
            shown = ", ".join(map(str, sorted({int(float(cell)) for cell in cells})))
            notes.append(f"labels: whole numbers with few values ({shown}): {len(cells)} classes. "
                         "To learn them as numbers: --set task.kind=regression")
        elif wanted == "auto" and all(isinstance(cell, float) or "." in cell for cell in cells):
            kind, form = "regression", LabelForm()
            notes.append("labels: numbers with a decimal point: learnt as numbers (regression). "
                         "To learn them as classes: --set task.kind=single_label")
    joint = next((separator for separator in SEPARATORS[:2] for cell in cells if isinstance(cell, str) and separator in cell), None)
    if wanted == "auto" and joint:
        notes.append(f"labels: some hold '{joint}' and stay whole, as their parts do not recur. "
                     "For several labels a row: --set task.kind=multi_label")
    if names and kind == "single_label":
        refuse_unnamed(cells, form)
    return Found(kind, form, tuple(notes))


def is_number(text: str) -> bool:
    """Tell if a text is a finite number in digits."""
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text) is not None


def is_whole(cell: Any) -> bool:
    """Tell if a number is whole, as a float, or as text with or without a decimal point."""
    if isinstance(cell, str):
        return re.fullmatch(r"[-+]?\d+(\.0*)?", cell) is not None
    return bool(cell == cell and float(cell).is_integer())


def refuse_unnamed(cells: Sequence[Any], form: LabelForm) -> None:
    """Refuse names for labels that are no numbers from 0, or more than there are names."""
    texts = {label_text(cell) for cell in cells}
    unknown = sorted(text for text in texts if form.named(text) not in form.names)
    if unknown:
        raise DataError(
            f"data.label_names names the classes 0 to {len(form.names) - 1}, and the labels hold {', '.join(unknown[:8])}.",
            hint="Give a name for every number, or leave data.label_names out where labels are words.")
