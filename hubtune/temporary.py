"""Temporary folders under `TMPDIR` that are removed with the process, even if it is killed.

Every user of a folder holds a shared lock on it, which the system releases when the process ends. A
killed process cannot remove its folders; the next process that creates one sweeps those without a
lock. Locks, unlike process ids, are not reused, and also work across containers that share a
temporary directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this system: nothing is swept
    fcntl = None  # type: ignore[assignment]

PREFIX = "hubtune-scratch-"


class Folder:
    """A new folder, removed with this object, at the end of a `with` block, or by a later sweep."""

    def __init__(self) -> None:
        self.path, held = create(lambda: Path(tempfile.mkdtemp(prefix=PREFIX)))
        self.remove = weakref.finalize(self, delete, self.path, held)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.remove()


def path_of(name: str) -> Path:
    """Return the path of a folder whose name several processes know."""
    return Path(tempfile.gettempdir(), PREFIX + name)


def create(make: Callable[[], Path]) -> tuple[Path, int | None]:
    """Sweep, create a folder with `make`, and lock it. Returns its path and lock."""
    sweep()
    while True:
        path = make()
        held = hold(path)
        if path.exists():
            return path, held
        release(held)  # it was swept before it was locked


def hold(path: Path) -> int | None:
    """Lock a folder for this process, until `release` or its end.

    None where locks do not exist; then nothing is swept either.
    """
    if fcntl is None:
        return None
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_SH)
    return held


def release(held: int | None) -> None:
    """Release the lock on a folder."""
    if held is not None:
        os.close(held)


def delete(path: Path, held: int | None) -> None:
    """Remove a folder and release its lock."""
    shutil.rmtree(path, ignore_errors=True)
    release(held)


def sweep() -> None:
    """Remove this user's folders that no process has locked."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if fcntl is not None else ():
        try:
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # not a folder, already removed, or another user's
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(held).st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # locked, or the file system has no locks
            pass
        finally:
            os.close(held)
