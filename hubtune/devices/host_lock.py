"""What the first process of a host hands to the others of the host through a folder, before they are joined in a group.

The folder's name follows from what a launcher says to all of them, and from the launcher itself, so that none is mistaken for
another. A lock that the first process holds tells the others that it is at work; it goes with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from hubtune import temporary
from hubtune.errors import DataError

APPEARS = 120.0
"""Seconds until the first process of a host is given up, and every other does for itself what that was to do for all."""
LASTS = 24 * 3600.0
"""Seconds that the others wait for it at most."""
LOCK, DONE, FAILED = "lock", "done", "failed"
SAID = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "GROUP_RANK", "LOCAL_WORLD_SIZE")
"""What a launcher says to all its processes on a host, and not to those of another start."""
held: list[int | None] = []
"""What says that this process uses the folder, so that nobody sweeps it away; let go by `clear`, or with the process."""


def is_shared() -> bool:
    """Whether there are other processes on this host that can be told from this one."""
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ
    return several and importlib.util.find_spec("fcntl") is not None


def is_first() -> bool:
    """Whether this process does what is to be done once on a host."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def folder() -> Path:
    """Where it is handed over: the same in all processes of a host that one launcher started."""
    parts = [str(os.getuid()), str(os.getppid()), *(os.environ.get(name, "") for name in SAID)]
    return temporary.named(hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24])


@contextlib.contextmanager
def leading() -> Iterator[Path]:
    """In the first process: a folder to fill. It is handed over when the block ends; after an error the others end, too."""
    import fcntl

    def make() -> Path:
        shutil.rmtree(folder(), ignore_errors=True)
        folder().mkdir(mode=0o700)
        return folder()

    place, lock_of_place = temporary.taken(make)
    held.append(lock_of_place)
    with (place / f".{LOCK}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (place / f".{LOCK}").rename(place / LOCK)  # where it is, it is held
        try:
            yield place
            (place / DONE).touch()
        except BaseException:
            (place / FAILED).touch()
            for made in place.iterdir():
                if made.is_dir():
                    shutil.rmtree(made, ignore_errors=True)
            raise


def follow() -> Path | None:
    """In the others: the folder once it is filled; None if there is no first process, and everybody does all.

    Raises:
        DataError: the first process failed. Where it has said why, the command line leaves it at that.
    """
    place = folder()
    begun = time.monotonic()
    while not (place / LOCK).exists():
        if time.monotonic() - begun > APPEARS:
            return None
        time.sleep(0.05)
    held.append(temporary.hold(place))
    wait_for(place / LOCK, LASTS)
    if (place / DONE).exists():
        return place
    if (place / FAILED).exists() or os.environ.get("LOCAL_RANK") != "1":
        error = DataError("the first process of this host could not prepare the data; it says why.")
        error.is_shared = True
        raise error
    raise DataError("the first process of this host ended while it prepared the data, and said nothing.",
                    hint="Perhaps it was killed for want of memory. Try it alone: hubtune train ... --check")


def wait_for(lock: Path, most: float) -> None:
    """Until nobody holds a lock."""
    import fcntl

    begun = time.monotonic()
    with lock.open("r") as file:
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - begun > most:
                    raise DataError(f"the first process of this host has prepared the data for {most / 3600:.0f} hours.",
                                    hint="Try it alone: hubtune train ... --check") from None
                time.sleep(0.05)


def clear() -> None:
    """When the others have opened what was handed over: files that are mapped into memory stay as long as they are."""
    if is_shared() and is_first():
        shutil.rmtree(folder(), ignore_errors=True)
    while held:
        temporary.let_go(held.pop())
