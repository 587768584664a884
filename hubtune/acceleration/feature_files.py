"""Feature files: the kept tensors of many examples in flat, memory-mapped files, by split."""

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
    """A tensor of the backbone's output.

    Attributes:
        used: the head reads it.
        long: its second dimension counts tokens.
        shape: of one example, or of one token of it.
    """

    name: str
    used: bool
    long: bool
    shape: tuple[int, ...]
    dtype: torch.dtype


class Split:
    """The features of one split, in flat files: `RUN/features/train.pooler_output`."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.folder, self.name = folder, name
        # Of each example: its place, its first token's, and its tokens.
        self.table = np.zeros((count, 3), dtype=np.int64)
        self.flat: dict[str, Any] = {}

    def path(self, field: str) -> Path:
        """Return the file of a field, or of the table."""
        return self.folder / f"{self.name}.{field or 'output'}"

    def write(self, batches: Iterator[tuple[list[int], list[int], Mapping[str, Tensor]]],
              fields: Sequence[Field]) -> None:
        """Append batches: their examples, the tokens of each, and the used tensors."""
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
                        places = torch.arange(value.shape[1])
                        tokens = places[None, :] < torch.tensor(lengths)[:, None]
                        value = value[tokens.to(value.device)]
                    array = value.detach().cpu().numpy()
                    array.astype(storage_dtype(field), copy=False).tofile(file)
        np.save(self.path("table.npy"), self.table)
        for name in ("table.npy", *(field.name for field in fields)):
            flush(self.path(name))

    def open(self, fields: Sequence[Field]) -> None:
        """Memory-map the files.

        Raises:
            ValueError, OSError: the files are incomplete.
        """
        self.table = np.load(self.path("table.npy"))
        tokens = int(self.table[:, 2].sum())
        for field in fields:
            shape = (tokens if field.long else len(self.table), *field.shape)
            self.flat[field.name] = map_file(self.path(field.name), storage_dtype(field), shape)

    def read(self, field: Field, items: Sequence[int], width: int) -> Tensor:
        """Return a field of some examples: (examples, ...), or zero-padded (examples, width, ...).
        """
        flat, table = self.flat[field.name], self.table[list(items)]
        if not field.long:
            return torch.from_numpy(np.array(flat[table[:, 0]]))
        found = np.zeros((len(items), width, *field.shape), flat.dtype)
        for place, (_, start, length) in enumerate(table.tolist()):
            kept = min(length, width)
            found[place, :kept] = flat[start : start + kept]
        return torch.from_numpy(found)


def storage_dtype(field: Field) -> type[np.floating[Any]]:
    """Return the number format in which a field is stored."""
    return np.float64 if field.dtype == torch.float64 else np.float32


def padded_width(batch: Batch) -> int | None:
    """Return the length that a batch of texts is padded to."""
    for name in ("input_ids", "attention_mask"):
        value = batch.inputs.get(name)
        if isinstance(value, Tensor) and value.ndim == 2:
            return value.shape[1]
    return None


def token_counts(batch: Batch, needed: bool) -> list[int]:
    """Return the number of tokens of each example without padding; zeros if not needed."""
    width, mask = padded_width(batch), batch.inputs.get("attention_mask")
    if width is None or not needed:
        return [0] * batch.size
    if not isinstance(mask, Tensor) or mask.shape != (batch.size, width):
        return [width] * batch.size
    if bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise Refused("its texts are not padded on the right")
    return [max(1, int(length)) for length in mask.sum(1).tolist()]


def map_file(path: Path, dtype: type[np.floating[Any]], shape: tuple[int, ...]) -> Any:
    """Memory-map a file of numbers. Raises ValueError or OSError if it is too short."""
    if not np.prod(shape):
        return np.zeros(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)
