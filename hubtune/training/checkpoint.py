"""Save and resume, atomically: written aside, flushed, hashed, renamed; a broken one is passed over.

Tensors are safetensors and the rest is JSON: nothing that runs code when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hubtune.devices import sharding
from hubtune.errors import ResumeError, TrainingError
from hubtune.files import file_sha256, flush

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

KEPT = 2
"""Checkpoints that stay: the newest, and one before it should the newest be broken."""
MANIFEST = "manifest.json"
AT_ONCE = 4 << 20
"""Bytes that are hashed and written in one go: few enough to be in the cache still when they are written."""
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.bool: "BOOL", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}
"""How safetensors spells the types of numbers."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by group, and JSON."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def write(folder: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint; it is there whole or not at all, whenever the machine stops."""
    aside = folder / f".{name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        hashes = {"state.json": write_file(aside / "state.json", [json.dumps(checkpoint.state).encode()])}
        for group, tensors in checkpoint.tensors.items():
            hashes[f"{group}.safetensors"] = write_file(aside / f"{group}.safetensors", as_safetensors(tensors))
        write_file(aside / MANIFEST, [json.dumps(hashes).encode()])
        flush(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # where the disk is full, this is in the way of everything else
        raise
    place = folder / name
    old = folder / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    aside.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    flush(folder)
    return place


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write a file through to the disk; returns the sha256 of what was written."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            for start in range(0, len(part), AT_ONCE):
                piece = part[start : start + AT_ONCE]
                digest.update(piece)
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def as_safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, in parts: tensors are not copied, and other threads run while parts are written."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that each is aligned
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": [*tensors[name].shape], "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def disk_bytes(parameters: int, trainable: int) -> int:
    """What a run writes at most: the result, the best weights and the checkpoints (weights and AdamW's two)."""
    return 4 * (parameters + trainable + 3 * trainable * (KEPT + 1))


def refuse_full_disk(folder: Path, parameters: int, trainable: int) -> None:
    """Refuse to start where all that a run writes does not fit."""
    needed = disk_bytes(parameters, trainable)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingError(
            f"the disk has {free / 1e9:.1f} GB left, and this run needs {needed / 1e9:.1f} GB.", where=str(folder),
            hint="Make room, choose another --out, or train fewer weights: --strategy lora",
        )


def read(place: Path) -> Checkpoint | None:
    """A checkpoint, or None when it is not whole."""
    try:
        hashes = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if any(file_sha256(place / name) != digest for name, digest in hashes.items()):
            return None
        tensors = {Path(name).stem: load_file(place / name) for name in hashes if name.endswith(".safetensors")}
        return Checkpoint(tensors, json.loads((place / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def steps(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None when there is none."""
    return next((found for place in steps(folder) if (found := read(place)) is not None), None)


def prune(folder: Path, keep: int = KEPT) -> None:
    """Delete all but the newest checkpoints, and what a crash left of others."""
    for place in (*steps(folder)[keep:], *folder.glob(".*.partial"), *folder.glob(".*.old")):
        shutil.rmtree(place, ignore_errors=True)


def moving(model: Module, learned: frozenset[str]) -> dict[str, Tensor]:
    """What training changes: the parameters that learn and the buffers. The rest is the base's, by its commit."""
    kept: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if name in learned}
    saved = set(model.state_dict())  # other buffers, such as position ids, are made again at load
    return kept | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def put_back(model: Module, tensors: Mapping[str, Tensor], learned: frozenset[str]) -> None:
    """Copy saved values into the model's own tensors."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wanted = moving(model, learned)
    strange = sorted(set(tensors) ^ set(wanted))
    strange += sorted(name for name, value in tensors.items() if name in wanted and value.shape != wanted[name].shape)
    if strange:
        raise ResumeError(f"the checkpoint and the model differ in their weights: {', '.join(strange[:4])}.",
                          hint="It was made by another version of the strategy; train anew with --overwrite.")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(sharding.distribute_like(value, own[name]))


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by name and JSON."""
    saved = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, values in saved["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    return tensors, plain


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Give an optimizer of the same groups its state back."""
    saved = optimizer.state_dict()
    parameters = list(sharding.optimizer_parameters(optimizer))
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **plain}.items():
        index, _, key = name.partition(".")
        own = parameters[int(index)]
        beside = isinstance(value, Tensor) and value.shape == own.shape
        state.setdefault(int(index), {})[key] = sharding.distribute_like(value, own) if beside else value
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
