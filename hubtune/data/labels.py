"""One ordered label space from raw values, refused where two spellings or two splits disagree. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.errors import DataError, listing


def label_text(value: Any) -> str:
    """A raw label as a string: 1 and 1.0 are "1", true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def label_config(labels: Sequence[str] | None, config: Any) -> dict[str, Any]:
    """A model's `num_labels`, `id2label` and `label2id` for these labels, or for its own where there are none.

    A head that is trained on the same labels already keeps its order.
    """
    old = list((getattr(config, "id2label", None) or {}).values())
    names = old if not labels or set(old) == set(labels) else list(labels)
    return {"num_labels": len(names), "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)}}


def label_id(value: Any, config: Any) -> int:
    """The id that a model gives to a raw label. Raises DataError for one that it does not have."""
    known: dict[str, int] = config.label2id
    name = label_text(value)
    if name not in known:
        raise DataError(f"the label {name!r} is none of the model's: {listing(list(map(repr, known)), 20)}.")
    return known[name]


def natural(label: str) -> tuple[tuple[int, float, str], ...]:
    """A sort key under which `star 2` comes before `star 10`, and `-1` before `0`."""
    if re.fullmatch(r"-?\d+(\.\d+)?", label):
        return ((0, float(label), ""),)
    parts = re.findall(r"\d+|\D+", label)
    return tuple((0, float(part), "") if part.isdecimal() else (1, 0.0, part.casefold()) for part in parts)


def spelling(label: str) -> str:
    """What two near-equal labels have in common: no case, no outer or double spaces, one unicode form."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def row_numbers(indices: Sequence[int]) -> str:
    """`rows 3, 17 and 4 more`: counted from 1, as a reader of the file counts them without its header."""
    word = "row" if len(indices) == 1 else "rows"
    return f"{word} {listing([index + 1 for index in indices])}"


def label_space(splits: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    """The labels of the training split in natural order.

    splits: the labels of every row (a sequence, as a row may have several), by split. Raises DataError for
    near-equal spellings, for fewer than two labels, and for a label that the training split does not have.
    """
    seen = {split: Counter(label for labels in rows for label in labels) for split, rows in splits.items()}
    counts = sum(seen.values(), Counter())
    by_spelling = defaultdict(list)
    for label in counts:
        by_spelling[spelling(label)].append(label)
    twins = [sorted(labels) for labels in by_spelling.values() if len(labels) > 1]
    if twins:
        shown = "; ".join(" and ".join(f"'{label}' ({counts[label]} rows)" for label in labels) for labels in twins)
        raise DataError(
            f"labels that differ only in case, spaces or unicode form: {shown}.",
            hint="Spell each label one way in the data, and run the same command again.",
        )
    known = set(seen["train"])
    for split, rows in splits.items():
        names = sorted(set(seen[split]) - known, key=natural)
        if names:
            strange = [index for index, labels in enumerate(rows) if not known.issuperset(labels)]
            raise DataError(
                f"the {split} split has labels that the train split never shows: "
                f"{listing([repr(name) for name in names])} in {row_numbers(strange)} of {split}.",
                hint="Add rows with these labels to train, or take them out of the other split.",
            )
    if len(known) < 2:
        raise DataError(
            f"there is only one label, {listing([repr(name) for name in known]) or 'none at all'}: nothing to tell apart.",
            hint="Is this the right column? Choose another with: --set data.label=COLUMN",
        )
    return sorted(known, key=lambda label: (natural(label), label))  # `1` and `01` have one natural key
