"""Locations of files: paths, patterns such as `d*.csv`, and standard input."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from hubtune import environment
from hubtune.data.files.packed import suffix_of
from hubtune.errors import DataError, did_you_mean, listing

STDIN = "stdin"
"""The name, without a suffix, of the file that standard input is kept in."""
DESCRIPTOR = re.compile(r"-|/dev/stdin|(?:/dev/fd|/proc/self/fd)/(?P<number>\d+)")
SPECIAL = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
           (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


def is_stdin(source: object) -> bool:
    """Tell whether a source is standard input or another open descriptor: `-`, `/dev/fd/63`."""
    return isinstance(source, str) and DESCRIPTOR.fullmatch(source) is not None


def save_stdin(source: str, folder: Path) -> Path:
    """Copy standard input into a file of a folder, named by what it holds.

    Raises:
        DataError: it is a terminal, closed or empty.
    """
    hint = "Pipe rows into it: cat rows.csv | hubtune ... --data -"
    with open_descriptor(source) as given:
        if given.isatty():
            raise DataError("standard input is a terminal, not rows.", hint=hint)
        head = given.read(1 << 16)
        if not head:
            raise DataError("standard input is empty.", hint=hint)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{STDIN}{suffix_of(head)}"
        try:
            with path.open("wb") as file:
                file.write(head)
                shutil.copyfileobj(given, file, 1 << 20)
        except OSError as error:
            path.unlink(missing_ok=True)
            if problem := environment.explain(error):
                raise problem from error
            raise DataError(f"standard input cannot be kept in {folder}: {error.strerror}.") from error
    return path


def kept_stdin(folder: Path) -> Path | None:
    """Return the file of a folder that standard input was kept in; None without one."""
    return next((path for path in sorted(folder.glob(f"{STDIN}.*"))), None)


def open_descriptor(source: str) -> IO[bytes]:
    """Open a descriptor of this process for reading. Raises DataError if it is closed."""
    match = DESCRIPTOR.fullmatch(source)
    number = int((match and match["number"]) or 0)
    try:
        if number == 0 and sys.stdin is not None and hasattr(sys.stdin, "buffer"):
            number = sys.stdin.fileno()
        return cast(IO[bytes], os.fdopen(os.dup(number), "rb"))
    except (OSError, ValueError):
        raise DataError(f"there is nothing to read: {source} is closed.",
                        hint="Pipe rows into it, or give --data a file.") from None


def find(source: str) -> list[Path]:
    """Return the files that a path or a pattern names, or the folder; empty without any.

    Raises:
        DataError: what cannot be read as rows, such as a pipe, or a pattern without a file.
    """
    path = Path(source).expanduser()
    if exists(path):
        return [path]
    if not glob.has_magic(source):
        return []
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not files:
        parent = path.parent
        names = [] if glob.has_magic(str(parent)) or not parent.is_dir() else [
            item.name for item in parent.iterdir()]
        near = did_you_mean(path.name, names)
        raise DataError(f"no file fits the pattern '{source}'.{near}",
                        hint=f"Files there: {listing(sorted(names)) or 'none'}.")
    if len(files) == 1:
        return files
    folders = [found.name for found in files if found.is_dir()]
    if folders:
        raise DataError(f"'{source}' fits folders, too: {listing(folders)}.",
                        hint="Give one folder, or a pattern of files.")
    return [found for found in files if exists(found)]


def exists(path: Path) -> bool:
    """Tell whether a file or a folder is there; refuse what is neither, without opening it."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise DataError(f"it is a link to '{os.readlink(path)}', which is not there.",
                            where=path.name) from None
        return False
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        if glob.has_magic(path.name) or "too long" in text:
            return False
        raise DataError(f"it cannot be read: {text}.", where=path.name) from None
    special = next((name for fits, name in SPECIAL if fits(found.st_mode)), None)
    if special:
        raise DataError(f"it is {special}, not a file.", where=path.name,
                        hint=f"Rows from a pipe: hubtune ... --data - < {path}")
    with suppress(OSError):
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            what = "folder" if path.is_dir() else "file"
            raise DataError(f"this user may not read the {what}.", where=path.name,
                            hint=f"See who may with: ls -ld {path}")
    return True
