"""Save and resume, atomically: written aside, flushed, hashed, renamed; a broken one is passed over.

Tensors are safetensors and the rest is JSON: nothing that runs code when it is read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from hubtune.errors import ResumeError, TrainingError
from hubtune.fingerprint import sha256_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

KEPT = 2
"""Checkpoints that stay: the newest, and one before it should the newest be broken."""
MANIFEST = "manifest.json"


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
    for group, tensors in checkpoint.tensors.items():
        save_file({key: value.detach().contiguous().cpu().clone() for key, value in tensors.items()},
                  aside / f"{group}.safetensors")
    (aside / "state.json").write_text(json.dumps(checkpoint.state), encoding="utf-8")
    hashes = {path.name: sha256_of(path) for path in sorted(aside.iterdir())}
    (aside / MANIFEST).write_text(json.dumps(hashes), encoding="utf-8")
    for path in (*aside.iterdir(), aside):
        flush(path)
    place = folder / name
    old = folder / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    aside.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    flush(folder)
    return place


def refuse_full_disk(folder: Path, parameters: int, trainable: int) -> None:
    """Refuse to start where the result, the best weights and the checkpoints (weights and AdamW's two) do not fit."""
    needed = 4 * (parameters + trainable + 3 * trainable * (KEPT + 1))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingError(
            f"the disk has {free / 1e9:.1f} GB left, and this run needs {needed / 1e9:.1f} GB.", where=str(folder),
            hint="Make room, choose another --out, or train fewer weights: --strategy lora",
        )


def flush(path: Path) -> None:
    """Ask for a file's or a folder's bytes to be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(place: Path) -> Checkpoint | None:
    """A checkpoint, or None when it is not whole."""
    try:
        hashes = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if any(sha256_of(place / name) != digest for name, digest in hashes.items()):
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
    """Delete all but the newest checkpoints."""
    for place in steps(folder)[keep:]:
        shutil.rmtree(place, ignore_errors=True)


def moving(model: Module, learned: frozenset[str]) -> dict[str, Tensor]:
    """What training changes: the parameters that learn and the buffers. The rest is the base's, by its commit."""
    kept: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if name in learned}
    saved = set(model.state_dict())  # other buffers, such as position ids, are made again at load
    return kept | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def put_back(model: Module, tensors: Mapping[str, Tensor], learned: frozenset[str]) -> None:
    """Copy saved values into the model's own tensors."""
    import torch

    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wanted = moving(model, learned)
    strange = sorted(set(tensors) ^ set(wanted))
    strange += sorted(name for name, value in tensors.items() if name in wanted and value.shape != wanted[name].shape)
    if strange:
        raise ResumeError(f"the checkpoint and the model differ in their weights: {', '.join(strange[:4])}.",
                          hint="It was made by another version of the strategy; train anew with --overwrite.")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by name and JSON."""
    import torch

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
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **plain}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
