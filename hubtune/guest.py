"""Process state: a call of the Python API restores the caller's process, also after an exception.

This covers random state, environment, warning filters, threads, default dtype and device, numeric
flags of torch, and the verbosity of libraries. Only one thread at a time, since these belong to the
whole process.
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

from hubtune import environment
from hubtune.errors import BusyError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

lock = threading.RLock()
training: list[int] = []
"""The thread that trains in this process."""
saved_libraries: set[str] = set()
"""Libraries whose state is restored at the end of the call."""
stacks: list[contextlib.ExitStack] = []
"""Undo actions of each active call, outermost first; only the thread with the lock uses it."""


def preserve_state(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Decorate an API function that reads, predicts or evaluates; threads take turns.

    Raises:
        BusyError: another thread trains.
    """

    @functools.wraps(function)
    def call(*given: Given.args, **named: Given.kwargs) -> Answer:
        if training and training[0] != threading.get_ident():
            raise busy_error("trains")
        with lock, environment.explained(), restore_on_exit():
            return function(*given, **named)

    return call


def exclusive_training(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Decorate an API function that trains.

    Raises:
        BusyError: another thread uses hubtune.
    """

    @functools.wraps(function)
    def call(*given: Given.args, **named: Given.kwargs) -> Answer:
        if not lock.acquire(blocking=False):
            raise busy_error("is in use")
        training.append(threading.get_ident())
        try:
            with environment.explained(), restore_on_exit():
                return function(*given, **named)
        finally:
            training.pop()
            lock.release()

    return call


def busy_error(what: str) -> BusyError:
    """Return the error of a second thread."""
    return BusyError(
        f"hubtune {what} in another thread of this process; random state and threads are "
        "process-wide.",
        hint="Start a process for each training, or wait for the other thread.")


def defer(undo: Callable[[], Any]) -> None:
    """Call `undo` at the end of the outermost API call; outside of one, such as in tests, never."""
    if stacks:
        stacks[0].callback(undo)


@contextlib.contextmanager
def restore_on_exit() -> Iterator[None]:
    """Restore at the end what this call changes of the process; only the outermost call does."""
    if stacks:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.callback(restore_environment, dict(os.environ))
        stack.callback(random.setstate, random.getstate())
        stack.callback(saved_libraries.clear)
        stacks.append(stack)
        try:
            save_library_states()
            yield
        finally:
            stacks.pop()


def save_library_states() -> None:
    """Save the state of imported libraries, to be restored. Call it again after importing one."""
    savers = (("numpy", save_numpy_state), ("torch", save_torch_state), ("accelerate",
                                                                         save_accelerate_state))
    for name, save in savers:
        if stacks and name in sys.modules and name not in saved_libraries:
            saved_libraries.add(name)
            save()


def restore_environment(before: dict[str, str]) -> None:
    """Restore the environment variables that differ."""
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def save_numpy_state() -> None:
    """Save NumPy's global generator."""
    import numpy as np

    defer(functools.partial(np.random.set_state, np.random.get_state()))


def save_torch_state() -> None:
    """Save torch's generators, number of threads and default dtype."""
    import torch

    defer(functools.partial(torch.set_rng_state, torch.get_rng_state()))
    if torch.cuda.is_available():
        defer(functools.partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    defer(functools.partial(torch.set_num_threads, torch.get_num_threads()))
    defer(functools.partial(torch.set_default_dtype, torch.get_default_dtype()))


def save_accelerate_state() -> None:
    """Make Accelerate forget our `Accelerator`, unless the caller has one of their own."""
    from accelerate.state import AcceleratorState, PartialState, is_initialized

    def forget() -> None:
        if is_initialized():
            vars(AcceleratorState()).clear()
            vars(PartialState()).clear()

    if not is_initialized():
        defer(forget)
