"""Compressed files (.gz, .bz2, .xz, .zst, .zip): copies without compression, in a temporary folder."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hubtune import environment, guest, temporary
from hubtune.data.files.limits import MAX_RATIO, MAX_UNPACKED
from hubtune.data.files.text import current
from hubtune.errors import DataError

BLOCK = 1 << 20
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
SUFFIXES = (*OPENERS, ".zst", ".zip")
ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
held: list[temporary.Folder] = []
"""Folders of copies, which rows may refer to until the API call or the process ends."""


def new_folder() -> Path:
    """Create a temporary folder that lasts until the API call ends; outside of one, the process."""
    folder = temporary.Folder()
    held.append(folder)

    def forget() -> None:
        held.remove(folder)
        folder.remove()

    guest.defer(forget)
    return folder.path


def is_packed(path: Path) -> bool:
    """Tell whether a file is compressed, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def unpack(path: Path) -> Path:
    """Return an unpacked copy: a file named as `path` without its last suffix, or a zip's folder.

    A zip with one file gives that file. Files that are not compressed are returned as they are.

    Raises:
        DataError: broken, encrypted, or far larger than text becomes.
    """
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    if suffix in ARCHIVES or (is_packed(path) and inner in (".tar", *SUFFIXES)):
        raise DataError(f"an archive of this kind is not read ({inner}{suffix}).", where=path.name,
                        hint="Unpack it, and give the file or the folder in it.")
    if not is_packed(path):
        return path
    made = current().copies
    if path not in made:
        try:
            made[path] = unpack_zip(path) if suffix == ".zip" else unpack_file(path, suffix)
        except (EOFError, OSError, RuntimeError, ValueError, NotImplementedError, zlib.error,
                lzma.LZMAError, zipfile.BadZipFile) as error:
            if problem := environment.explain(error):
                raise problem from error
            raise DataError(
                f"it cannot be unpacked: {' '.join(str(error).split())[:200] or 'it is broken'}.",
                where=path.name, hint="Pack it again, or give the unpacked file.") from error
    return made[path]


def unpack_file(path: Path, suffix: str) -> Path:
    """Unpack one compressed file; without a suffix of its own, it is named by its content."""
    with (opener(path, suffix)(path, "rb")) as packed:
        head = packed.read(BLOCK)
        name = path.stem if Path(path.stem).suffix else path.stem + suffix_of(head)
        copy = new_folder() / name
        with copy.open("wb") as file:
            file.write(head)
            copy_bounded(packed, file, path, len(head))
    return copy


def unpack_zip(path: Path) -> Path:
    """Unpack the visible files of a zip archive into a folder of its name."""
    folder = new_folder() / path.stem
    with zipfile.ZipFile(path) as archive:
        members = [(item, safe_path(item.filename)) for item in archive.infolist()
                   if not item.is_dir()]
        visible = [(item, inside) for item, inside in members if inside is not None]
        if any(item.flag_bits & 1 for item, _ in visible):
            raise DataError("it is encrypted.", where=path.name, hint="Unpack it with its password.")
        if not visible:
            raise DataError("there is no file in it.", where=path.name)
        total = 0
        for item, inside in visible:
            copy = folder / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(item) as packed, copy.open("xb") as file:
                total += copy_bounded(packed, file, path, total)
    return folder / visible[0][1] if len(visible) == 1 else folder


def safe_path(name: str) -> PurePosixPath | None:
    """Return the path of a zip's file within a folder; None for a hidden one or one outside."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or any(part.startswith((".", "__MACOSX", "/")) or ":" in part for part in parts):
        return None
    return PurePosixPath(*parts)


def copy_bounded(packed: IO[bytes], file: IO[bytes], path: Path, total: int) -> int:
    """Copy the rest of a compressed file, and return its size; refuse one that grows without end.

    total: bytes that were unpacked before.
    """
    size, limit = 0, max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)
    while block := packed.read(BLOCK):
        size += len(block)
        if total + size > limit:
            raise DataError(
                f"it becomes more than {limit:,} bytes, {MAX_RATIO} for each of its own; text "
                "becomes 3 to 30.", where=path.name, hint="Unpack it and look at what is in it.")
        file.write(block)
    return size


def opener(path: Path, suffix: str) -> Callable[..., Any]:
    """Return the function that opens a compressed file."""
    if suffix in OPENERS:
        return OPENERS[suffix]
    try:
        found: Callable[..., Any] = importlib.import_module("compression.zstd").open
    except ImportError:  # before Python 3.14
        raise DataError("Zstandard (.zst) is read with Python 3.14 and later.", where=path.name,
                        hint=f"Unpack it: zstd -d {path.name}") from None
    return found


def suffix_of(head: bytes) -> str:
    """Return the suffix that content without a name should have, by its first bytes."""
    for start, suffix in ((b"PAR1", ".parquet"), (b"PK\x03\x04", ".zip"), (b"\x1f\x8b", ".gz"),
                          (b"BZh", ".bz2"), (b"\xfd7zXZ\0", ".xz"), (b"\x28\xb5\x2f\xfd", ".zst")):
        if head.startswith(start):
            is_book = suffix == ".zip" and (b"xl/" in head or b"[Content_Types].xml" in head)
            return ".xlsx" if is_book else suffix
    text = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    return {b"{": ".jsonl", b"[": ".json"}.get(text[:1], ".csv")
