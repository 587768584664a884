"""Checkpoints: written aside, flushed, hashed and renamed atomically; broken ones are skipped.

Tensors are safetensors and the rest is JSON: nothing that runs code when it is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hubtune.devices import processes, sharding
from hubtune.errors import ResumeError, TrainingError
from hubtune.files import file_sha256, flush
from hubtune.record import migrate_checkpoint

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

KEPT = 2
"""Checkpoints to keep: the newest, and the one before in case the newest is broken."""
MANIFEST = "manifest.json"
AT_ONCE = 4 << 20
"""Bytes hashed and written at a time: few enough to stay in the processor's cache."""
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.bool: "BOOL", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16",
    torch.int8: "I8", torch.uint8: "U8",
}
"""Names of number formats in safetensors."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run: tensors by group, and JSON."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def write(folder: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint atomically, even if the machine stops."""
    return commit(folder, name, stage(folder, name, checkpoint))


def stage(folder: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Write the files of a checkpoint aside, for `commit`; returns their folder.

    The tensors are no longer needed then. The system may still hold the files in memory.
    """
    aside = folder / f".{name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        state = json.dumps(checkpoint.state).encode()
        hashes = {"state.json": write_file(aside / "state.json", [state])}
        for group, tensors in checkpoint.tensors.items():
            name_of_group = f"{group}.safetensors"
            hashes[name_of_group] = write_file(aside / name_of_group, serialize(tensors))
        write_file(aside / MANIFEST, [json.dumps(hashes).encode()])
    except BaseException:
        # Where the disk is full, this is in the way of everything else.
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def commit(folder: Path, name: str, aside: Path) -> Path:
    """Flush a staged checkpoint to the disk, and rename it to its place."""
    for path in aside.iterdir():
        flush(path)
    flush(aside)
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
    """Write a file; return its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            for start in range(0, len(part), AT_ONCE):
                piece = part[start : start + AT_ONCE]
                digest.update(piece)
                file.write(piece)
    return digest.hexdigest()


def serialize(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file in chunks, without copying tensors."""
    # So that each is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": [*tensors[name].shape],
                        "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def disk_bytes(parameters: int, trainable: int) -> int:
    """Return the maximum bytes of a run: result, best weights and checkpoints (with moments).

    While the newest of each is written, as many as are kept and one more are on the disk.
    """
    best, checkpoints = (KEPT + 2) * trainable, 3 * (KEPT + 1) * trainable
    return 4 * (parameters + best + checkpoints)


def refuse_full_disk(folder: Path, parameters: int, trainable: int) -> None:
    """Refuse to start if the files of a run do not fit on the disk."""
    needed = disk_bytes(parameters, trainable)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingError(
            f"the disk has {free / 1e9:.1f} GB left, and this run needs {needed / 1e9:.1f} GB.",
            where=str(folder),
            hint="Free some space, choose another --out, or train fewer weights: --strategy lora",
        )


def read(place: Path) -> Checkpoint | None:
    """Read a checkpoint; None if it is incomplete."""
    try:
        hashes = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if any(file_sha256(place / name) != digest for name, digest in hashes.items()):
            return None
        tensors = {Path(name).stem: load_file(place / name)
                   for name in hashes if name.endswith(".safetensors")}
        return Checkpoint(tensors, json.loads((place / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest complete checkpoint; None without one."""
    found = map(read, list_checkpoints(folder))
    return next((checkpoint for checkpoint in found if checkpoint is not None), None)


def to_resume(folder: Path, steps: int) -> Checkpoint | None:
    """Return the checkpoint to resume a run of so many steps from, the same in every process.

    None where the run stopped before its first one.
    """
    found = processes.broadcast(newest(folder) if processes.is_first() else None)
    if processes.is_first():
        delete_later_best(folder, found.state["progress"]["step"] if found else 0)
    if found is not None and found.state["steps"] != steps:
        raise processes.collective_error(ResumeError(
            f"the checkpoint belongs to a run of {found.state['steps']} steps, not {steps}.",
            hint="Train again with --overwrite."))
    if found is not None and "learner" in found.state:  # of hubtune 0.1
        old = found.tensors.get("vocabularies", {})
        ids = {f"embedding_pruning.{name}": value for name, value in old.items()}
        tensors = {**found.tensors, "accelerators": ids}
        found = Checkpoint(tensors, migrate_checkpoint(found.state))
    return found


def delete_later_best(folder: Path, step: int) -> None:
    """Delete best weights of steps that a resumed run has yet to make.

    They may turn out otherwise, such as on a GPU, and older best weights may then stay the best.
    """
    for place in folder.glob("best-*"):
        if place.name > best_name(step):
            shutil.rmtree(place, ignore_errors=True)


def best_name(step: int) -> str:
    """Return the name of the checkpoint that holds the best weights, those of a step."""
    return f"best-{step:09d}"


def find_best(folder: Path, step: int) -> Path:
    """Return the checkpoint of the best weights, those of a step."""
    place = folder / best_name(step)
    return place if place.is_dir() else folder / "best"  # as hubtune up to 0.2.0 named it


def prune(folder: Path, keep: int = KEPT) -> None:
    """Delete what no run needs: older checkpoints, and remains of interrupted writes.

    Of the best weights, the newest stay, and the newest that each checkpoint knows of: a run may be
    resumed from an older checkpoint than the newest best weights.
    """
    newest, older = list_checkpoints(folder)[:keep], list_checkpoints(folder)[keep:]
    best = sorted(folder.glob("best-*"), reverse=True)
    ends = [f"best-{place.name.removeprefix('step-')}" for place in newest]
    needed = {next((place for place in best if place.name <= end), None) for end in ends}
    partial = (*folder.glob(".*.partial"), *folder.glob(".*.old"))
    for place in (*older, *(place for place in best[1:] if place not in needed), *partial):
        shutil.rmtree(place, ignore_errors=True)


def trained_tensors(model: Module, learned: frozenset[str]) -> dict[str, Tensor]:
    """Return what training changes: trained parameters and buffers.

    The rest is the base model's.
    """
    kept: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if name in learned}
    saved = set(model.state_dict())  # other buffers, such as position ids, are made again at load
    return kept | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def restore_tensors(model: Module, tensors: Mapping[str, Tensor], learned: frozenset[str]) -> None:
    """Copy saved values into the model's own tensors."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wanted = trained_tensors(model, learned)
    strange = sorted(set(tensors) ^ set(wanted))
    strange += sorted(name for name, value in tensors.items()
                      if name in wanted and value.shape != wanted[name].shape)
    if strange:
        raise ResumeError(
            f"the checkpoint and the model differ in their weights: {', '.join(strange[:4])}.",
            hint="Another version of the strategy wrote it; train again with --overwrite.")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(sharding.distribute_like(value, own[name]))


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors by name, and JSON."""
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


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor],
                      plain: Mapping[str, Any]) -> None:
    """Restore the state of an optimizer with the same groups."""
    saved = optimizer.state_dict()
    parameters = list(sharding.optimizer_parameters(optimizer))
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **plain}.items():
        index, _, key = name.partition(".")
        own = parameters[int(index)]
        beside = isinstance(value, Tensor) and value.shape == own.shape
        if beside:
            value = sharding.distribute_like(value, own)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
