"""Tensors of many examples in flat files, mapped into memory: what is kept of a backbone's outputs, split by split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubtune.acceleration.backbone import Refused
from hubtune.contract import Batch
from hubtune.files import flush


@dataclass(frozen=True)
class Field:
    """A tensor that the backbone returns. used: whether the head looks at it. long: whether its second dimension is the
    tokens. shape: of one example, or of one token of it."""

    name: str
    used: bool
    long: bool
    shape: tuple[int, ...]
    dtype: torch.dtype


class Split:
    """The features of one split, in flat files: `RUN/features/train.pooler_output`."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.folder, self.name = folder, name
        self.table = np.zeros((count, 3), dtype=np.int64)  # of each example: its place, its first token's, and its tokens
        self.flat: dict[str, Any] = {}

    def path(self, field: str) -> Path:
        """The file of a field, or of the table."""
        return self.folder / f"{self.name}.{field or 'output'}"

    def write(self, batches: Iterator[tuple[list[int], list[int], Mapping[str, Tensor]]], fields: Sequence[Field]) -> None:
        """Append what every batch gave: its examples, their tokens, and the used tensors."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = token = 0
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(self.path(field.name).open("wb")) for field in fields]
            for items, lengths, tensors in batches:
                for item, length in zip(items, lengths, strict=True):
                    self.table[item] = place, token, length
                    place, token = place + 1, token + length
                for field, file in zip(fields, files, strict=True):
                    value = tensors[field.name]
                    if field.long:
                        tokens = torch.arange(value.shape[1])[None, :] < torch.tensor(lengths)[:, None]
                        value = value[tokens.to(value.device)]
                    value.detach().cpu().numpy().astype(kind_of(field), copy=False).tofile(file)
        np.save(self.path("table.npy"), self.table)
        for name in ("table.npy", *(field.name for field in fields)):
            flush(self.path(name))

    def open(self, fields: Sequence[Field]) -> None:
        """Map the files into memory; raises ValueError or OSError where they are not whole."""
        self.table = np.load(self.path("table.npy"))
        tokens = int(self.table[:, 2].sum())
        for field in fields:
            shape = (tokens if field.long else len(self.table), *field.shape)
            self.flat[field.name] = mapped(self.path(field.name), kind_of(field), shape)

    def read(self, field: Field, items: Sequence[int], width: int) -> Tensor:
        """A field of some examples: (examples, ...), or (examples, width, ...) with zeros where there is padding."""
        flat, table = self.flat[field.name], self.table[list(items)]
        if not field.long:
            return torch.from_numpy(np.array(flat[table[:, 0]]))
        found = np.zeros((len(items), width, *field.shape), flat.dtype)
        for place, (_, start, length) in enumerate(table.tolist()):
            kept = min(length, width)
            found[place, :kept] = flat[start : start + kept]
        return torch.from_numpy(found)


def kind_of(field: Field) -> type[np.floating[Any]]:
    """The numbers that are kept of a field."""
    return np.float64 if field.dtype == torch.float64 else np.float32


def width_of(batch: Batch) -> int | None:
    """The length that a batch of texts is padded to."""
    for name in ("input_ids", "attention_mask"):
        value = batch.inputs.get(name)
        if isinstance(value, Tensor) and value.ndim == 2:
            return value.shape[1]
    return None


def lengths_of(batch: Batch, needed: bool) -> list[int]:
    """The tokens of each example without its padding, where it can be told; zeros where nobody needs them."""
    width, mask = width_of(batch), batch.inputs.get("attention_mask")
    if width is None or not needed:
        return [0] * batch.size
    if not isinstance(mask, Tensor) or mask.shape != (batch.size, width):
        return [width] * batch.size
    if bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise Refused("its texts are not padded on the right")
    return [max(1, int(length)) for length in mask.sum(1).tolist()]


def mapped(path: Path, dtype: type[np.floating[Any]], shape: tuple[int, ...]) -> Any:
    """Map a file of numbers into memory. Raises ValueError or OSError if it is too short."""
    if not np.prod(shape):
        return np.zeros(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)
