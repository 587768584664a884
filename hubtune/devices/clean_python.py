"""A Python process without hubtune, which imports libraries ahead of its work."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hubtune.devices import memory, processor

ROOM = 4 * 2**30
"""Bytes of memory that have to be free for a process that waits: it holds 0.3 GB of its own."""
WAITED_TOO_LONG = -getattr(signal, "SIGALRM", 0)
"""Exit status of a process that ended by itself, since no work came."""


class CleanPython:
    """A script in a process of its own, which gets the path of its jobs when there are any.

    The script imports the modules that it is given, reads a path from its standard input, and may
    end by itself while it waits for that: then another process is started.
    """

    def __init__(self, script: Path) -> None:
        self.script = script
        self.modules: Sequence[str] = ()
        self.jobs = ""
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> CleanPython:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, modules: Sequence[str] = ()) -> None:
        """Start the process, unless it runs. modules: those that it imports at once."""
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        self.modules = modules
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(self.script), *modules], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def start_early(self, modules: Sequence[str]) -> None:
        """Start the process where a core is idle while this process imports, and memory is plenty."""
        free = min(memory.free_bytes(Path("/proc"), Path("/sys/fs/cgroup")), default=0)
        if processor.cores() > 1 and free >= ROOM:
            with contextlib.suppress(OSError):  # no process can be made now: `send` tries again
                self.start(modules)

    def send(self, jobs: Path) -> None:
        """Let the process begin its jobs, those of a file. It is started if it does not run."""
        self.jobs = f"{jobs}\n"
        self.start(self.modules)
        self.write()

    def write(self) -> None:
        """Write the path of the jobs to the process."""
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has just ended: `wait` starts another one
            self.process.stdin.write(self.jobs)
            self.process.stdin.close()
        self.process.stdin = None

    def wait(self) -> str:
        """Wait for the end of the jobs, and of the process; returns the last line of its stderr."""
        assert self.process is not None
        _, stderr = self.process.communicate()
        if self.process.returncode == WAITED_TOO_LONG:
            self.start(self.modules)
            self.write()
            _, stderr = self.process.communicate()
        return (stderr.strip().splitlines() or ["it wrote no message"])[-1]

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
