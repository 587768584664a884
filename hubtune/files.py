"""What bytes are, said in a hash: of files, of folders, of rows, and as git and the Hub count them. Pure."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex: what the Hub calls the oid of a large file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_sha1_of(path: Path) -> str:
    """The sha1 of a file as a git blob: what the Hub calls the oid of a small file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    digest.update(path.read_bytes())
    return digest.hexdigest()


def of_files(files: Mapping[str, Path]) -> str:
    """One sha256 over names and contents, whatever the order and wherever the files lie."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{sha256_of(files[name])}\n".encode())
    return digest.hexdigest()


def of_rows(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """One sha256 over rows that came from memory."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        digest.update(f"{split}\n".encode())
        for row in splits[split]:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Ask for a file's or a folder's bytes to be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
