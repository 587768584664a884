"""The tokenizer beside the model: that it knows the rows' words, and that the embedding has a row for each token."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hubtune.contract import Base
from hubtune.data.dataset import EncodedDataset
from hubtune.errors import ModelError, listing

if TYPE_CHECKING:
    from torch.nn import Module

MOST_UNKNOWN, MUCH_UNKNOWN = 0.5, 0.1
"""Share of unknown tokens in the rows above which a model is refused, and warned of."""
LOOKED_AT = 2000
"""Examples of a split in which unknown tokens are counted."""
SHOWN = 4
TEXTS = ("input_ids",)
"""Keys of an example with the token ids of a text."""
TOKENS = (*TEXTS, "decoder_input_ids", "labels")
"""Keys with ids that may be of tokens; labels may be of classes, which are fewer than tokens."""
Numbers = Sequence[int] | NDArray[np.int64]


def tokenizer_of(base: Base) -> Any | None:
    """Return the tokenizer of a model, which may be a part of its processor; None without one."""
    for part in (base.processor, getattr(base.processor, "tokenizer", None)):
        if hasattr(part, "get_vocab") and hasattr(part, "all_special_tokens"):
            return part
    return None


def check_words(base: Base) -> None:
    """Refuse a tokenizer without a vocabulary: transformers makes one where its files are missing.

    Raises:
        ModelError: it has no tokens but special ones.
    """
    tokenizer = tokenizer_of(base)
    if tokenizer is None:
        return
    words = len(tokenizer) - len(set(tokenizer.all_special_tokens))
    if words <= 0:
        raise ModelError(
            f"its tokenizer knows no words, only {len(tokenizer)} special tokens "
            f"({listing(tokenizer.all_special_tokens, SHOWN)}): its files (tokenizer.json, or "
            "vocab.txt and the like) are missing or empty.", where=base.repo,
            hint="Fetch the model as a whole, with its tokenizer; or save the tokenizer of the "
            "model it was made from into its folder.")


def num_embeddings(model: Any) -> int | None:
    """Return the rows of a model's embedding of tokens; None where its inputs are no tokens."""
    import torch

    try:
        embedding = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return embedding.num_embeddings if isinstance(embedding, torch.nn.Embedding) else None


def tokens_beyond(base: Base, rows: int) -> dict[int, str]:
    """Return the tokens by id, in order, for which an embedding of so many rows has none."""
    tokenizer = tokenizer_of(base)
    if tokenizer is None:
        return {}
    found = {int(number): str(token) for token, number in tokenizer.get_vocab().items()
             if number >= rows}
    pad = getattr(base.config.get_text_config(), "pad_token_id", None)
    if isinstance(pad, int) and pad >= rows:
        found.setdefault(pad, "the pad token of config.json")
    return dict(sorted(found.items()))


def check_embedding(
    base: Base, model: Module, encoded: Mapping[str, EncodedDataset], numbers: Numbers,
    resize: bool, warn: Callable[[str], None],
) -> int | None:
    """Compare the tokens of rows, padding and special uses with the rows of the embedding.

    Tokens that only the tokenizer has are no error: those of T5 and Pegasus have sentinels for
    which small models have no row.

    Args:
        numbers: the row in the data, from 0, of each row of train.
        resize: enlarge the embedding where it is too small.

    Returns:
        The rows that the embedding needs, if it is to be enlarged; else None.

    Raises:
        ModelError: tokens in use have no row, and the embedding is not to be enlarged.
    """
    rows = num_embeddings(model)
    beyond = tokens_beyond(base, rows) if rows is not None else {}
    if not beyond:
        return None
    if resize:
        return max(beyond) + 1
    used = {number: beyond[number] for number in ids_in_use(base, model) if number in beyond}
    place = first_use(encoded, beyond, numbers)
    if not used and not place:
        words = {number: token for number, token in beyond.items()
                 if token not in tokenizer_of(base).all_special_tokens}  # type: ignore[union-attr]
        if words:
            warn(f"{len(words):,} tokens of the tokenizer have no row in the embedding of {rows:,}: "
                 f"{describe(words)}. No row of the data has them.")
        return None
    raise ModelError(
        f"its embedding has {rows:,} rows, and {len(beyond):,} tokens have ids beyond them: "
        f"{describe({**used, **beyond})}{place}.", where=base.repo,
        hint="The tokenizer is of another model, or tokens were added to it alone. Take the "
        "tokenizer that belongs to the model, or enlarge the embedding with new rows: "
        "--set model.resize_embeddings=true")


def describe(tokens: Mapping[int, str]) -> str:
    """List tokens with their ids."""
    return listing([f"{token!r} ({number})" for number, token in tokens.items()], SHOWN)


def ids_in_use(base: Base, model: Module) -> set[int]:
    """Return the ids that batches hold whatever the rows are: padding, and marks of a text."""
    names = ["pad", "bos", "eos", "cls", "sep", "unk"]
    if type(model).__name__.endswith("ForMaskedLM"):
        names.append("mask")
    tokenizer, config = tokenizer_of(base), base.config.get_text_config()
    found = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
    found |= {getattr(config, name, None) for name in ("pad_token_id", "decoder_start_token_id")}
    return {number for number in found if isinstance(number, int)}


def first_use(
    encoded: Mapping[str, EncodedDataset], beyond: Mapping[int, str], numbers: Numbers
) -> str:
    """Name the first row that has one of these tokens; empty where none has."""
    for split, data in encoded.items():
        for item, example in enumerate(data.examples):
            for number in token_ids(example):
                if number in beyond:
                    row = int(data.owner[item])
                    row = int(numbers[row]) if split == "train" else row
                    return f"; {beyond[number]!r} is in row {row + 1} of {split}"
    return ""


def token_ids(example: Any, names: Collection[str] = TOKENS) -> Iterator[int]:
    """Yield the token ids of an example, and of the texts inside it. names: of its sequences of ids."""
    if isinstance(example, Mapping):
        for name, value in example.items():
            if name in names and is_ids(value):
                yield from (int(number) for number in value)
            elif isinstance(value, list | tuple | Mapping):
                yield from token_ids(value, names)
    elif isinstance(example, Sequence) and not isinstance(example, str):
        for part in example:
            if isinstance(part, Mapping | list | tuple):
                yield from token_ids(part, names)


def is_ids(value: Any) -> bool:
    """Tell whether a value is a sequence of whole numbers."""
    return len(value) == 0 or isinstance(value[0], int | np.integer) if hasattr(
        value, "__len__") and not isinstance(value, str | Mapping) else False


def check_known(
    base: Base, encoded: Mapping[str, EncodedDataset], warn: Callable[[str], None]
) -> None:
    """Refuse a tokenizer that does not know the words of the rows.

    Raises:
        ModelError: most tokens of a split are unknown ones.
    """
    tokenizer = tokenizer_of(base)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if tokenizer is None or unknown is None or unknown in other_special_ids(tokenizer):
        return
    special = set(tokenizer.all_special_ids) - {unknown}
    for split, data in encoded.items():
        counts: Counter[bool] = Counter()
        for example in itertools.islice(data.examples, LOOKED_AT):
            counts.update(number == unknown for number in token_ids(example, TEXTS)
                          if number not in special)
        share = counts[True] / max(1, counts.total())
        if share <= MUCH_UNKNOWN:
            continue
        said = (f"its tokenizer does not know {share:.0%} of the tokens in {split}: they all become "
                f"{tokenizer.unk_token!r}")
        if share > MOST_UNKNOWN:
            raise ModelError(
                f"{said}.", where=base.repo, hint="Its files may be incomplete, or the texts are in "
                "a language or script that it was not made for: take a model for that language.")
        warn(f"{said}, which the model cannot tell apart.")


def other_special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of special tokens with a meaning of their own, besides the unknown token."""
    names = ("bos", "eos", "pad", "cls", "sep", "mask")
    return {number for name in names
            if (number := getattr(tokenizer, f"{name}_token_id", None)) is not None}
