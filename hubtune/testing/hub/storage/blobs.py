"""File contents on disk, found by their hash: git's sha1 for regular files, sha256 for large ones."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hubtune.testing.hub.refusals import Unacceptable

LARGE_FILE = 10 * 1024 * 1024
_LARGE_ENDINGS = """
7z arrow bin bz2 ckpt flac ftz gguf gz h5 jpeg jpg joblib mlmodel model mp3 mp4 msgpack npy npz ogg onnx ot parquet pb
pickle pkl png pt pth rar safetensors tar tflite tgz wasm wav webp xz zip zst
"""
LARGE_PATTERNS = [f"*.{ending}" for ending in _LARGE_ENDINGS.split()] + ["*tfevents*"]
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One file of a tree: its git object id, its size and, for a large file, the sha256 of its content."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        """What a client compares its own copy with."""
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        """Length of the text that git keeps in place of a large file."""
        return len(_pointer(self.etag, self.size))


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Return whether the Hub keeps this file outside git. An empty file never is: there is nothing to upload."""
    if size == 0:
        return False
    name = path.rsplit("/", 1)[-1]
    return size >= LARGE_FILE or b"\0" in sample or any(fnmatch.fnmatch(name, pattern) for pattern in LARGE_PATTERNS)


def git_sha1(content: bytes) -> str:
    """The id git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def large_entry(sha256: str, size: int) -> Entry:
    """The entry of a large file, whose git object is the pointer and not the content."""
    return Entry(git_sha1(_pointer(sha256, size)), size, sha256)


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Upload:
    """A file on its way in: hashed while it is written, kept only if it turns out to be what was promised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = path.open("wb")

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def close(self) -> str:
        """The sha256 of everything written."""
        self._file.close()
        return self._hash.hexdigest()


class Blobs:
    """The contents one repo holds. Files are written aside and renamed, so a name never shows half a content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("git", "lfs", "incoming"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def path(self, entry: Entry) -> Path:
        """Return where the content of this entry lies."""
        return self.large(entry.sha256) if entry.sha256 else self._folder / "git" / entry.oid

    def large(self, sha256: str) -> Path:
        """Return where a large file of this hash lies, or would lie."""
        return self._folder / "lfs" / sha256

    def put(self, content: bytes) -> Entry:
        """Keep a regular file."""
        entry = Entry(git_sha1(content), len(content))
        if not self.path(entry).exists():
            write_atomically(self.path(entry), content)
        return entry

    @property
    def incoming(self) -> Path:
        """Where unfinished things lie."""
        return self._folder / "incoming"

    @contextmanager
    def upload(self) -> Iterator[Upload]:
        """A place to write a large file to; `keep` it before leaving, or it is gone."""
        incoming = Upload(self.incoming / uuid.uuid4().hex)
        try:
            yield incoming
        finally:
            incoming.close()
            incoming.path.unlink(missing_ok=True)

    def keep(self, incoming: Upload, sha256: str, size: int) -> Entry:
        """Accept an upload, if its content is what was announced."""
        actual = incoming.close()
        if (actual, incoming.size) != (sha256, size):
            seen = f"sha256 {actual} and {incoming.size} bytes"
            raise Unacceptable(f"The content sent has {seen}; announced were sha256 {sha256} and {size} bytes.")
        os.replace(incoming.path, self.large(sha256))
        return large_entry(sha256, size)

    def add(self, path: str, source: Path | bytes) -> Entry:
        """Keep a file of this machine, as a regular or as a large one: as the Hub would decide."""
        if isinstance(source, bytes):
            size, sample = len(source), source[:512]
        else:
            with source.open("rb") as file:
                size, sample = source.stat().st_size, file.read(512)
        if not is_large(path, size, sample):
            return self.put(source if isinstance(source, bytes) else source.read_bytes())
        with self.upload() as incoming:
            for chunk in _chunks(source):
                incoming.write(chunk)
            return self.keep(incoming, incoming.close(), incoming.size)


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a reader or a crash sees the old content or the new one."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    aside.write_bytes(content)
    os.replace(aside, path)


def remove(folder: Path) -> None:
    """Take a folder away: first its name, in one step, and then its files."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    os.replace(folder, aside)
    shutil.rmtree(aside)
