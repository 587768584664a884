"""Xet's content-addressed storage: xorbs, which hold chunks, and files, which are ranges of chunks.

Formats as in the Xet Protocol Specification 1.1, sections xorb and shard. Hashes are taken from the client: what a file's
chunks give is compared with its sha256, and nothing is kept under a name that it does not have.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from hubtune.testing.hub.refusals import NoSuchEntry, Unacceptable
from hubtune.testing.hub.storage.blobs import Blobs, write_atomically

_HASH = re.compile(r"[0-9a-f]{64}")
_RECORD = 48
"""Bytes of every record of a shard, and of its header."""
_BOOKEND = b"\xff" * 32
"""In place of the hash in the record that ends a section of a shard."""
_VERIFIED, _HAS_SHA256 = 1 << 31, 1 << 30
"""Flags of a file in a shard: records for verification follow, and one with the sha256."""


@dataclass(frozen=True)
class Term:
    """A range of chunks of a xorb, and the bytes that they give."""

    xorb: str
    first: int
    end: int
    size: int


@dataclass(frozen=True)
class XetFile:
    """A file as a sequence of terms; `hash` is Xet's."""

    hash: str
    sha256: str
    terms: tuple[Term, ...]


class Xet:
    """All xorbs and files, whatever their repo."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("xorbs", "files", "sha256"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def xorb(self, name: str) -> Path:
        """Return where a xorb lies."""
        path = self._folder / "xorbs" / _checked(name)
        if not path.exists():
            raise NoSuchEntry(f"No xorb {name} was uploaded.")
        return path

    def add_xorb(self, name: str, content: bytes) -> bool:
        """Keep a xorb; False: it was there."""
        if not chunks(content):
            raise Unacceptable("A xorb holds chunks.")
        path = self._folder / "xorbs" / _checked(name)
        known = path.exists()
        write_atomically(path, content)
        return not known

    def add_file(self, file: XetFile, blobs: Blobs) -> None:
        """Keep a file, and its content among a repo's, if it has the sha256 that the client names."""
        with blobs.upload() as incoming:
            for term in file.terms:
                content = self.xorb(term.xorb).read_bytes()
                for begin, end in chunks(content)[term.first : term.end]:
                    incoming.write(unpacked(content[begin:end]))
            blobs.keep(incoming, file.sha256, sum(term.size for term in file.terms))
        write_atomically(self._folder / "files" / f"{file.hash}.json", json.dumps(asdict(file)).encode())
        write_atomically(self._folder / "sha256" / file.sha256, file.hash.encode())

    def file(self, name: str) -> XetFile:
        """The file of a Xet hash."""
        try:
            told = json.loads((self._folder / "files" / f"{_checked(name)}.json").read_text("utf-8"))
        except FileNotFoundError:
            raise NoSuchEntry(f"No file {name} was uploaded.") from None
        return XetFile(told["hash"], told["sha256"], tuple(Term(**term) for term in told["terms"]))

    def hash_of(self, sha256: str) -> str | None:
        """The Xet hash of a file that was uploaded by Xet; None for any other."""
        path = self._folder / "sha256" / sha256
        return path.read_text("ascii") if path.exists() else None


def chunks(xorb: bytes) -> list[tuple[int, int]]:
    """Return where each chunk of a xorb begins and ends, header included. What is no chunk ends them: a footer may follow."""
    found, at = list[tuple[int, int]](), 0
    while at + 8 <= len(xorb) and xorb[at] == 0:
        end = at + 8 + int.from_bytes(xorb[at + 1 : at + 4], "little")
        found.append((at, end))
        at = end
    if at > len(xorb):
        raise Unacceptable("The xorb ends within a chunk.")
    return found


def unpacked(chunk: bytes) -> bytes:
    """Return the bytes of a chunk: stored, LZ4, or LZ4 of every fourth byte in turn."""
    scheme, size, packed = chunk[4], int.from_bytes(chunk[5:8], "little"), chunk[8:]
    if scheme == 0:
        return packed
    if scheme not in (1, 2):
        raise Unacceptable(f"A chunk cannot be compressed by scheme {scheme}.")
    content = bytes(pa.decompress(packed, decompressed_size=size, codec="lz4", asbytes=True))
    if scheme == 1:
        return content
    mixed, ends = bytearray(size), [0, *accumulate((size - lane + 3) // 4 for lane in range(4))]
    for lane in range(4):
        mixed[lane::4] = content[ends[lane] : ends[lane + 1]]
    return bytes(mixed)


def files(shard: bytes) -> Iterator[XetFile]:
    """The files that a shard describes."""
    at = _RECORD
    while shard[at : at + 32] != _BOOKEND:
        if len(shard) < at + _RECORD:
            raise Unacceptable("The shard ends within its files.")
        name, flags, count = _text(shard[at : at + 32]), *struct.unpack_from("<II", shard, at + 32)
        terms = []
        for number in range(count):
            entry = at + _RECORD * (1 + number)
            _, size, first, end = struct.unpack_from("<IIII", shard, entry + 32)
            terms.append(Term(_text(shard[entry : entry + 32]), first, end, size))
        at += _RECORD * (1 + count * (2 if flags & _VERIFIED else 1))
        if not flags & _HAS_SHA256:
            raise Unacceptable(f"The shard has no sha256 for file {name}.")
        yield XetFile(name, _text(shard[at : at + 32]), tuple(terms))
        at += _RECORD


def _text(raw: bytes) -> str:
    """A hash as the API writes it: four numbers of 64 bits, each little-endian."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def _checked(name: str) -> str:
    if not _HASH.fullmatch(name):
        raise Unacceptable(f"'{name}' is not a hash.")
    return name
