"""Label space: ordered label names from raw values, with checks of spellings and splits."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubtune.errors import DataError, listing


def label_text(value: Any) -> str:
    """Convert a raw label to a string: 1 and 1.0 become "1", true becomes "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def label_config(
    labels: Sequence[str] | None, config: Any, any_spelling: bool = False
) -> dict[str, Any]:
    """Return `num_labels`, `id2label` and `label2id` for these labels, or for the model's own.

    A head that was trained on the same labels keeps its order.

    Args:
        labels: names in the order of a new head; None: the model's own.
        any_spelling: labels that differ only in case, spaces or unicode form are the same, and
            the model's spelling is returned; `spelled_as` maps the data's labels to it.
    """
    old = list((getattr(config, "id2label", None) or {}).values())
    same = not labels or set(old) == set(labels)
    if labels and any_spelling and not same:
        same = len(spelled_as(labels, old)) == len(old) == len(labels)
    names = old if same else list(labels or ())
    return {"num_labels": len(names), "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)}}


def spelled_as(labels: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Map labels to the known ones that differ from them only in case, spaces or unicode form.

    Labels without a known one are left out, and so are those that are not one to one.
    """
    ours, theirs = by_spelling(labels), by_spelling(known)
    return {names[0]: theirs[spelling][0] for spelling, names in ours.items()
            if len(names) == 1 and len(theirs.get(spelling, ())) == 1}


def by_spelling(labels: Iterable[str]) -> dict[str, list[str]]:
    """Group labels by their normalized spelling."""
    found: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        found[normalize_spelling(label)].append(label)
    return found


def label_id(value: Any, config: Any) -> int:
    """Return the model's id of a raw label. Raises DataError for a label that it does not have."""
    known: dict[str, int] = config.label2id
    name = label_text(value)
    if name not in known:
        raise DataError(
            f"unknown label {name!r}; the model's labels: {listing(list(map(repr, known)), 20)}.")
    return known[name]


def natural_sort_key(label: str) -> tuple[tuple[int, float, str], ...]:
    """Return a sort key under which `star 2` comes before `star 10`, and `-1` before `0`."""
    if re.fullmatch(r"-?\d+(\.\d+)?", label):
        return ((0, float(label), ""),)
    parts = re.findall(r"\d+|\D+", label)
    return tuple((0, float(part), "") if part.isdecimal() else (1, 0.0, part.casefold())
                 for part in parts)


def normalize_spelling(label: str) -> str:
    """Normalize case, whitespace and unicode form, to compare near-equal labels."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def row_numbers(indices: Sequence[int], rows: Any = None) -> str:
    """Format row numbers, from 1 and without the header: `rows 3, 17 and 4 more`.

    Args:
        indices: positions in `rows`, from 0.
        rows: as `validate_data` is given them, or a column of them; where these are a part of the
            data, the data's own numbers are shown, and the lines of its file where these are known:
            `rows 3, 17 (lines 4, 21)`. None: indices are the data's own.
    """
    origin = getattr(rows, "origin", None)
    numbers = list(indices) if origin is None else origin.numbers_of(indices)
    word = "row" if len(numbers) == 1 else "rows"
    text = f"{word} {listing([number + 1 for number in numbers])}"
    lines = [] if origin is None else origin.lines_of(numbers[:8])
    if lines:
        more = ", ..." if len(numbers) > len(lines) else ""
        line = "line" if len(numbers) == 1 else "lines"
        text += f" ({line} {', '.join(map(str, lines))}{more})"
    return text


def label_space(splits: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    """Return the labels of the training split in natural order.

    Args:
        splits: the labels of every row (a sequence, as a row may have several), by split.

    Raises:
        DataError: near-equal spellings, fewer than two labels, or a label that only other splits
            have; all of these at once.
    """
    seen = {split: Counter(label for labels in rows for label in labels)
            for split, rows in splits.items()}
    counts = sum(seen.values(), Counter())
    known = set(seen["train"])
    problems = [spelling_problem(twins, counts, splits, mend)
                for mend, twins in near_equal(counts).items() if twins]
    spellings = set(map(normalize_spelling, known))
    for split, rows in splits.items():
        names = sorted((name for name in set(seen[split]) - known
                        if normalize_spelling(name) not in spellings), key=natural_sort_key)
        if names:
            strange = set(names)
            found = [index for index, labels in enumerate(rows) if not strange.isdisjoint(labels)]
            problems.append(DataError(
                f"the {split} split has labels that do not occur in the train split: "
                f"{listing([repr(name) for name in names])} in {row_numbers(found, rows)} of {split}.",
                hint="Add rows with these labels to train, or remove them from the other split."))
    if len(known) < 2:
        problems.append(DataError(
            f"classification needs at least two labels; found "
            f"{listing([repr(name) for name in known]) or 'none'}.",
            hint="Is this the right column? Choose another with: --set data.label=COLUMN"))
    if problems:
        raise DataError.of(problems)
    # `1` and `01` have the same natural key
    return sorted(known, key=lambda label: (natural_sort_key(label), label))


def near_equal(counts: Mapping[str, int]) -> dict[str, list[list[str]]]:
    """Return labels that differ only in spelling, by the operation of `data.clean` that mends them.

    Each list begins with the most frequent spelling.
    """
    found: dict[str, list[list[str]]] = {"strip-labels": [], "merge-label-case": []}
    for labels in by_spelling(counts).values():
        if len(labels) > 1:
            ordered = sorted(labels, key=lambda label: (-counts[label], label))
            blank = len({label.strip() for label in labels}) == 1
            found["strip-labels" if blank else "merge-label-case"].append(ordered)
    return found


def spelling_problem(
    twins: Sequence[Sequence[str]], counts: Mapping[str, int],
    splits: Mapping[str, Sequence[Sequence[str]]], mend: str,
) -> DataError:
    """Return the error for labels in several spellings, with the rows of the rarer ones."""
    shown = "; ".join(" and ".join(f"'{label}' ({counts[label]} rows)" for label in sorted(labels))
                      for labels in twins)
    rarer = {label for labels in twins for label in labels[1:]}
    where = []
    for split, rows in splits.items():
        found = [index for index, labels in enumerate(rows) if not rarer.isdisjoint(labels)]
        if found:
            where.append(f"{row_numbers(found, rows)} of {split}")
    # Both at once where one spelling has blanks and another other letters.
    names = ["strip-labels", mend] if any(
        label != label.strip() for labels in twins for label in labels) else [mend]
    names = list(dict.fromkeys(names))
    return DataError(
        f"labels that differ only in case, spaces or unicode form: {shown}. "
        f"The rarer spellings are in {'; '.join(where)}.",
        hint="Spell each label one way in the data, and run the same command again.", mend=names)
