"""Folders for a while, under the system's temporary directory (`TMPDIR`): they go with the process, however that ends.

Whoever uses a folder holds a shared lock on it, which the system lets go when the process ends. A process that is killed
cannot remove its folders; whoever needs one next sweeps away those that nobody holds any more. A lock says so where the number
of a process does not: numbers are given anew, and mean nothing to a container that has the same temporary directory.
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
except ImportError:  # a system that knows no such locks: there, nothing is swept
    fcntl = None  # type: ignore[assignment]

PREFIX = "hubtune-scratch-"


class Folder:
    """A new folder, removed with this object, at the end of a `with` block, or by the next who needs one."""

    def __init__(self) -> None:
        self.path, held = taken(lambda: Path(tempfile.mkdtemp(prefix=PREFIX)))
        self.remove = weakref.finalize(self, removed, self.path, held)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.remove()


def named(name: str) -> Path:
    """Where the folder of a name is that several processes know."""
    return Path(tempfile.gettempdir(), PREFIX + name)


def taken(make: Callable[[], Path]) -> tuple[Path, int | None]:
    """A folder that is made, and the lock on it; those that nobody holds are swept away before."""
    sweep()
    while True:
        path = make()
        held = hold(path)
        if path.exists():
            return path, held
        let_go(held)  # it was swept away before it was held


def hold(path: Path) -> int | None:
    """Say that this process uses a folder, until it lets go or ends. None where that cannot be said: then nobody sweeps, either."""
    if fcntl is None:
        return None
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_SH)
    return held


def let_go(held: int | None) -> None:
    """A folder is not used any more."""
    if held is not None:
        os.close(held)


def removed(path: Path, held: int | None) -> None:
    """Remove a folder, and let it go."""
    shutil.rmtree(path, ignore_errors=True)
    let_go(held)


def sweep() -> None:
    """Remove this user's folders that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if fcntl is not None else ():
        try:
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # it is no folder, gone, or another user's
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(held).st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # somebody holds it, or the file system has no locks
            pass
        finally:
            os.close(held)
