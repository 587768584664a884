"""Hashes of files, folders and rows, also as git and the Hub compute them; and flushing to disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


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
        digest.update(f"{name}\0{file_sha256(files[name])}\n".encode())
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


def flush(path: Path) -> None:
    """Write a file's or a folder's buffers to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
