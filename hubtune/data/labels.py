"""Label space: ordered label names from raw values, with checks of spellings and splits."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.errors import DataError, listing


def label_text(value: Any) -> str:
    """Convert a raw label to a string: 1 and 1.0 become "1", true becomes "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def label_config(labels: Sequence[str] | None, config: Any) -> dict[str, Any]:
    """Return `num_labels`, `id2label` and `label2id` for these labels, or for the model's own.

    A head that was trained on the same labels keeps its order.
    """
    old = list((getattr(config, "id2label", None) or {}).values())
    names = old if not labels or set(old) == set(labels) else list(labels)
    return {"num_labels": len(names), "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)}}


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


def row_numbers(indices: Sequence[int]) -> str:
    """Format row numbers, from 1 and without the header: `rows 3, 17 and 4 more`."""
    word = "row" if len(indices) == 1 else "rows"
    return f"{word} {listing([index + 1 for index in indices])}"


def label_space(splits: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    """Return the labels of the training split in natural order.

    Args:
        splits: the labels of every row (a sequence, as a row may have several), by split.

    Raises:
        DataError: near-equal spellings, fewer than two labels, or a label that only other splits
            have.
    """
    seen = {split: Counter(label for labels in rows for label in labels)
            for split, rows in splits.items()}
    counts = sum(seen.values(), Counter())
    by_spelling = defaultdict(list)
    for label in counts:
        by_spelling[normalize_spelling(label)].append(label)
    twins = [sorted(labels) for labels in by_spelling.values() if len(labels) > 1]
    if twins:
        shown = "; ".join(" and ".join(f"'{label}' ({counts[label]} rows)" for label in labels)
                          for labels in twins)
        raise DataError(
            f"labels that differ only in case, spaces or unicode form: {shown}.",
            hint="Spell each label one way in the data, and run the same command again.",
        )
    known = set(seen["train"])
    for split, rows in splits.items():
        names = sorted(set(seen[split]) - known, key=natural_sort_key)
        if names:
            strange = [index for index, labels in enumerate(rows) if not known.issuperset(labels)]
            raise DataError(
                f"the {split} split has labels that do not occur in the train split: "
                f"{listing([repr(name) for name in names])} in {row_numbers(strange)} of {split}.",
                hint="Add rows with these labels to train, or remove them from the other split.",
            )
    if len(known) < 2:
        raise DataError(
            f"classification needs at least two labels; found "
            f"{listing([repr(name) for name in known]) or 'none'}.",
            hint="Is this the right column? Choose another with: --set data.label=COLUMN",
        )
    # `1` and `01` have the same natural key
    return sorted(known, key=lambda label: (natural_sort_key(label), label))
