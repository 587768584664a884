"""One process at a time works on a run, or on a file of predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hubtune.errors import BusyError, RecipeError
from hubtune.record import LOCK


@contextlib.contextmanager
def hold(folder: Path, what: str = "the run") -> Iterator[None]:
    """Make the folder of a run, and keep other processes from it; folders that stay empty are deleted again.

    The system frees the lock of a process that is killed.

    Args:
        what: the folder holds, for messages.

    Raises:
        BusyError: another process works on it.
        RecipeError: the folder cannot be made or written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BusyError(f"another process is working on {what} '{folder}'.",
                        hint="Wait until it ends, or choose another one with --out.") from None
    except OSError as error:
        raise RecipeError(f"the folder '{folder}' cannot be written: {error.strerror}.",
                          hint="Choose another folder with --out.") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # not empty, or gone
            for place in new:
                place.rmdir()
