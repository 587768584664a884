"""The process around a command: signals that end it, and standard streams of any encoding, or closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

from hubtune.signals import handled


class Interrupted(BaseException):
    """A signal asked to stop. No KeyboardInterrupt, which libraries catch and answer in their own way."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def interruptible() -> contextlib.AbstractContextManager[object]:
    """Raise the signals that end a command as `Interrupted`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    return handled(interrupt)


def open_streams() -> None:
    """Escape characters that the terminal's encoding lacks, and write nowhere where a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def leave(ended: list[int]) -> None:
    """End this process at once with the exit code of its command, if that is over.

    Python takes modules apart when it ends, which takes 0.15 s once torch is imported. As the exit
    handler that is registered first, this runs after those of all libraries.
    """
    if not ended or "torch" not in sys.modules:
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(ended[0])
