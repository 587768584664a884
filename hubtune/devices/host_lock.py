"""Share prepared files between the processes of a host, before they join a process group.

The first process of a host fills a folder whose name follows from the launcher's environment
variables and its process id. A lock held by the first process tells the others that it is at work;
the operating system releases it when the process ends, for whatever reason.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from hubtune import temporary
from hubtune.errors import DataError

APPEARS = 120.0
"""Seconds to wait for the first process of a host; then every process prepares its own files."""
LASTS = 24 * 3600.0
"""Maximum seconds to wait until the first process has finished."""
LOCK, DONE, FAILED = "lock", "done", "failed"
VARIABLES = (
    "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "GROUP_RANK",
    "LOCAL_WORLD_SIZE",
)
"""Variables that a launcher sets equally for its processes on a host, anew for each launch."""
held: list[int | None] = []
"""Locks that protect the folder from sweeps; released by `remove_shared`, or with the process."""


def is_shared() -> bool:
    """Tell whether the launcher started several processes on this host."""
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ
    return several and importlib.util.find_spec("fcntl") is not None


def is_first() -> bool:
    """Tell whether this is the process that prepares files for its host."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def shared_folder() -> Path:
    """Return the path of the folder, equal in all processes of a host that one launcher started."""
    import hashlib  # with OpenSSL, which `--help` does not need

    values = (os.environ.get(name, "") for name in VARIABLES)
    parts = [str(os.getuid()), str(os.getppid()), *values]
    return temporary.path_of(hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24])


@contextlib.contextmanager
def prepare_shared() -> Iterator[Path]:
    """In the first process: yield a folder to fill, and share it afterwards.

    After an exception, the other processes end too.
    """
    import fcntl

    def make() -> Path:
        shutil.rmtree(shared_folder(), ignore_errors=True)
        shared_folder().mkdir(mode=0o700)
        return shared_folder()

    place, lock_of_place = temporary.create(make)
    held.append(lock_of_place)
    with (place / f".{LOCK}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (place / f".{LOCK}").rename(place / LOCK)  # once it is visible, it is locked
        try:
            yield place
            (place / DONE).touch()
        except BaseException:
            (place / FAILED).touch()
            for made in place.iterdir():
                if made.is_dir():
                    shutil.rmtree(made, ignore_errors=True)
            raise


def wait_for_shared() -> Path | None:
    """In the other processes: wait for the folder; None without a first process.

    Raises:
        DataError: the first process failed. If it reported why, the command line prints nothing
            more.
    """
    place = shared_folder()
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
        error = DataError(
            "the first process of this host could not prepare the data; see its message.")
        error.is_shared = True
        raise error
    raise DataError(
        "the first process of this host ended without a message while preparing the data.",
        hint="It may have been killed for lack of memory. Try it alone: hubtune train ... --check")

def wait_for(lock: Path, most: float) -> None:
    """Wait until nobody holds a lock, at most `most` seconds."""
    import fcntl

    begun = time.monotonic()
    with lock.open("r") as file:
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() - begun > most:
                    raise DataError(
                        f"the first process of this host has been preparing the data for "
                        f"{most / 3600:.0f} hours.",
                        hint="Try it alone: hubtune train ... --check") from None
                time.sleep(0.05)


def remove_shared() -> None:
    """Remove the folder once the other processes have mapped its files, which stay readable."""
    if is_shared() and is_first():
        shutil.rmtree(shared_folder(), ignore_errors=True)
    while held:
        temporary.release(held.pop())
