"""A library is a guest: a call of the Python API leaves the caller's process as it found it, also after an exception.

Random state, environment, warning filters, threads, default dtype and device, numeric flags of torch, and the verbosity of
libraries. One thread at a time: settings of a process cannot be those of two trainings at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from hubtune.errors import BusyError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

lock = threading.RLock()
training: list[int] = []
"""The thread that trains in this process."""
kept: set[str] = set()
"""Libraries whose state is put back at the end of the call."""
stacks: list[contextlib.ExitStack] = []
"""What is undone at the end of each call that runs now, outermost first; only the thread that holds the lock looks at it."""


def leaves_no_trace(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Decorate a function of the API that reads, predicts or evaluates: another thread's call waits for it, and it for theirs.

    Raises:
        BusyError: another thread trains.
    """

    @functools.wraps(function)
    def call(*given: Given.args, **named: Given.kwargs) -> Answer:
        if training and training[0] != threading.get_ident():
            raise busy("trains")
        with lock, visit():
            return function(*given, **named)

    return call


def trains(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Decorate a function of the API that trains.

    Raises:
        BusyError: another thread uses hubtune.
    """

    @functools.wraps(function)
    def call(*given: Given.args, **named: Given.kwargs) -> Answer:
        if not lock.acquire(blocking=False):
            raise busy("is at work")
        training.append(threading.get_ident())
        try:
            with visit():
                return function(*given, **named)
        finally:
            training.pop()
            lock.release()

    return call


def busy(what: str) -> BusyError:
    """The error of a second thread."""
    return BusyError(f"hubtune {what} in another thread of this process: random state and threads are those of the whole process.",
                     hint="Start a process for each training, or wait for the other thread.")


def afterwards(undo: Callable[[], Any]) -> None:
    """Have something undone at the end of the outermost call; without one, as in a test of a part, it stays."""
    if stacks:
        stacks[0].callback(undo)


@contextlib.contextmanager
def visit() -> Iterator[None]:
    """Put back what this call changes of the process. A call inside another one has nothing to put back."""
    if stacks:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.callback(restore_environment, dict(os.environ))
        stack.callback(random.setstate, random.getstate())
        stack.callback(kept.clear)
        stacks.append(stack)
        try:
            keep_libraries()
            yield
        finally:
            stacks.pop()


def keep_libraries() -> None:
    """Have the state of libraries put back. Called again where one is imported that was not, before it is used."""
    for name, keep in (("numpy", keep_numpy), ("torch", keep_torch), ("accelerate", keep_accelerate)):
        if stacks and name in sys.modules and name not in kept:
            kept.add(name)
            keep()


def restore_environment(before: dict[str, str]) -> None:
    """Set the environment variables that differ."""
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def keep_numpy() -> None:
    """Have NumPy's generator put back."""
    import numpy as np

    afterwards(functools.partial(np.random.set_state, np.random.get_state()))


def keep_torch() -> None:
    """Have torch's generators, threads and default dtype put back."""
    import torch

    afterwards(functools.partial(torch.set_rng_state, torch.get_rng_state()))
    if torch.cuda.is_available():
        afterwards(functools.partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    afterwards(functools.partial(torch.set_num_threads, torch.get_num_threads()))
    afterwards(functools.partial(torch.set_default_dtype, torch.get_default_dtype()))


def keep_accelerate() -> None:
    """Have Accelerate forget our `Accelerator`, unless the caller has one: his next one may have other settings."""
    from accelerate.state import AcceleratorState, PartialState, is_initialized

    def forget() -> None:
        if is_initialized():
            vars(AcceleratorState()).clear()
            vars(PartialState()).clear()

    if not is_initialized():
        afterwards(forget)
