"""Hashes of files, folders and rows, also as git and the Hub compute them; and flushing to disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hubtune.errors import HubtuneError, ModelError

LARGEST_JSON = 64 * 2**20
"""Bytes of a JSON file of a model at most: the largest tokenizers have 30 MB."""
FILE, LINK = "file", "link"
"""Kinds of what lies in a folder."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex: the Hub's oid of a large file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1(path: Path) -> str:
    """Return the sha1 of a file as a git blob: the Hub's oid of a small file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    digest.update(path.read_bytes())
    return digest.hexdigest()


def hash_files(files: Mapping[str, Path]) -> str:
    """Return one sha256 over names and contents, independent of order and location."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{file_sha256(files[name])}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def hash_rows(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """Return one sha256 over rows in memory."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        digest.update(f"{split}\n".encode())
        for row in splits[split]:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
            digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def read_json(
    path: Path, where: str, hint: str, kind: type[HubtuneError] = ModelError
) -> dict[str, Any]:
    """Read a JSON object, within bounds of size and nesting.

    Args:
        where, hint, kind: of the error: the file as the user knows it, and what to do.

    Raises:
        HubtuneError: of `kind`: the file is missing, too large, or holds anything else.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise kind(f"it has {path.stat().st_size:,} bytes; {LARGEST_JSON:,} are the most that "
                       "is read.", where=where, hint=hint)
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise kind(f"it cannot be read: {error.strerror or type(error).__name__}.", where=where,
                   hint=hint) from None
    except RecursionError:
        raise kind("its values are nested too deeply.", where=where, hint=hint) from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise kind(f"it is not valid JSON: {reason}.", where=where, hint=hint) from None
    if not isinstance(found, dict):
        raise kind(f"it must hold a JSON object, not a {type(found).__name__}.", where=where,
                   hint=hint)
    return found


def entries(folder: Path) -> dict[str, str]:
    """Return the kind (file, link or another) of everything below a folder, by its path.

    Symbolic links are listed, not followed.
    """
    found: dict[str, str] = {}
    folders = [] if os.path.islink(folder) or not os.path.isdir(folder) else [""]
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(folder / inside) as listed:
                here = list(listed)
        except OSError:
            found[inside] = "folder that cannot be read"
            continue
        if inside and not here:
            found[inside] = "folder"
        for entry in here:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                found[name] = LINK
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            else:
                found[name] = FILE if entry.is_file(follow_symlinks=False) else "device"
    return found


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is whole at any time; an error leaves the old one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Write a file's or a folder's buffers to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
