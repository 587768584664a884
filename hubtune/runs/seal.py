"""Seal of a run: hashes of the saved files and of the recorded figures, taken when training ends.

What is published is compared with it first, so that nothing is sent that training did not write.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hubtune.errors import SealError, listing
from hubtune.files import FILE, entries, file_sha256
from hubtune.hub.forms import CODE_WEIGHTS
from hubtune.hub.origin import SMALL

MODEL = "model"
"""The folder of a run that is published."""
CARD = "README.md"
"""The card, which is rendered again when it is published."""
PROOF_FILES = "proof.safetensors", "proof"
"""A file and a folder of a run with the trained model's answers."""
UNSEALED = frozenset({"state", "published", "seal"})
"""Parts of `run.json` that change after training, and those that hold the hashes."""


@dataclass(frozen=True)
class Publishable:
    """The files of a run's `model/` that are published.

    hashes: sha256 by path. left_out: further entries, which hubtune did not write. is_sealed: the
    files were compared with a seal; False for a run of a version without seals.
    """

    hashes: Mapping[str, str]
    left_out: tuple[str, ...]
    is_sealed: bool


def make(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seal of a run's folder and of its record, for `run.json`."""
    proof = [name for name in PROOF_FILES if (folder / name).is_file()]
    proof += [f"proof/{name}" for name in entries(folder / "proof")]
    return {
        "files": hash_folder(folder / MODEL),
        "proof": {name: file_sha256(folder / name) for name in proof},
        "record": hash_record(record),
    }


def hash_folder(folder: Path) -> dict[str, str]:
    """Return the sha256 of every regular file in a folder, by its path."""
    return {name: file_sha256(folder / name)
            for name, kind in sorted(entries(folder).items()) if kind == FILE}


def hash_record(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of every part of a record, of its canonical JSON."""
    parts = json.loads(json.dumps(record))
    return {name: hashlib.sha256(canonical(value)).hexdigest()
            for name, value in parts.items() if name not in UNSEALED}


def finite(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return metrics by split, null where one is not finite, which JSON has no number for."""
    return {split: {name: value if math.isfinite(value) else None for name, value in found.items()}
            for split, found in metrics.items()}


def canonical(value: Any) -> bytes:
    """Return JSON that is the same for equal values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def check(folder: Path, record: Mapping[str, Any]) -> Publishable:
    """Compare a run with its seal; return what may be published of it.

    Args:
        record: the contents of its `run.json`, as they are in the file.

    Raises:
        SealError: a file or a figure was changed since training ended.
    """
    model = folder / MODEL
    if model.is_symlink() or not model.is_dir():
        raise seal_error(folder, [f"{MODEL}: {'a symbolic link' if model.is_symlink() else 'missing'}"])
    found = entries(model)
    sealed = record.get("seal")
    if not sealed:
        return without_seal(folder, found)
    try:
        hashes, proof, parts = (dict(sealed[name]) for name in ("files", "proof", "record"))
    except (KeyError, TypeError, ValueError):
        raise seal_error(folder, ["run.json: its seal is incomplete"]) from None
    changes = [f"run.json: '{name}' {change}" for name, change in changed_parts(record, parts)]
    changes += changed_files(folder, {f"{MODEL}/{name}": digest for name, digest in hashes.items()})
    changes += changed_files(folder, proof)
    if changes:
        raise seal_error(folder, changes)
    chosen = {name: digest for name, digest in hashes.items() if name != CARD and is_publishable(name)}
    return Publishable(chosen, summarize(set(found) - set(chosen) - {CARD}), True)


def changed_parts(record: Mapping[str, Any], sealed: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the parts of a record that differ from the sealed ones, and how."""
    now = hash_record(record)
    return [(name, "was changed" if name in now and name in sealed else
             "was added" if name in now else "is missing")
            for name in sorted(now.keys() | sealed.keys()) if now.get(name) != sealed.get(name)]


def changed_files(folder: Path, sealed: Mapping[str, str]) -> list[str]:
    """Describe the sealed files of a run that are not what they were: `model/config.json: changed`."""
    changes = {name: change_of(folder, name, digest) for name, digest in sorted(sealed.items())}
    if changes.get(f"{MODEL}/{CARD}") == "missing":  # it is rendered again
        del changes[f"{MODEL}/{CARD}"]
    return [f"{name}: {change}" for name, change in changes.items() if change]


def change_of(folder: Path, name: str, digest: str) -> str:
    """Return what became of a sealed file; empty if it is what it was."""
    link = next((part for part in parents(name) if (folder / part).is_symlink()), None)
    if link is not None:
        return "replaced by a symbolic link" if link == name else f"behind the symbolic link {link}"
    path = folder / name
    try:
        if not path.exists():
            return "missing"
        if not path.is_file():
            return "replaced by something that is no file"
        return "" if file_sha256(path) == digest else "changed"
    except OSError as error:
        return f"cannot be read ({error.strerror or type(error).__name__})"


def parents(name: str) -> list[str]:
    """Return a path and the folders that it is in: `a`, `a/b`, `a/b/c`."""
    parts = PurePosixPath(name).parts
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def without_seal(folder: Path, found: Mapping[str, str]) -> Publishable:
    """Return what is published of a run that an earlier version of hubtune wrote, without a seal.

    Raises:
        SealError: the run has recorded answers, which only versions with seals write.
    """
    if (folder / "proof").exists():
        raise seal_error(folder, ["run.json: its seal is missing"])
    chosen = {name: file_sha256(folder / MODEL / name) for name, kind in found.items()
              if kind == FILE and name != CARD and is_publishable(name) and has_known_suffix(name)}
    return Publishable(chosen, summarize(set(found) - set(chosen) - {CARD}), False)


def is_publishable(name: str) -> bool:
    """Return whether a file may be published: none that is hidden, outside the folder, or a pickle."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts
    return inside and not any(part.startswith(".") for part in parts) and not name.endswith(CODE_WEIGHTS)


def has_known_suffix(name: str) -> bool:
    """Return whether hubtune writes files with such names: weights, configuration, tokenizer, code."""
    return name.endswith((*SMALL, ".safetensors", ".py"))


def summarize(names: set[str]) -> tuple[str, ...]:
    """Return the names of entries for a message, those of a folder as one: `notes/ (12 files)`."""
    tops: dict[str, list[str]] = {}
    for name in sorted(names):
        tops.setdefault(name.split("/")[0], []).append(name)
    return tuple(
        printable(top if inside == [top] else f"{top}/ ({len(inside)} files)" if len(inside) > 1 else inside[0])
        for top, inside in tops.items())


def printable(name: str) -> str:
    """Return a file's name without control characters."""
    return name if name.isprintable() else ascii(name)


def seal_error(folder: Path, changes: list[str]) -> SealError:
    """Return the error for a run that is not as training left it."""
    again = shlex.join(["hubtune", "train", str(folder / "recipe.toml"), "--out", "NEW-FOLDER"])
    return SealError(
        "the run was changed since its training ended, so nothing of it is sent: "
        + listing(map(printable, changes), 40),
        where=str(folder),
        hint=f"Put back what was changed, from a copy; or train again: {again}",
    )
