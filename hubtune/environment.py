"""The machine around a run: errors of disk, memory and environment variables, in the user's terms.

Any library may raise them, each in its own form: an OSError with its number, an error of C++ code of
which only the text tells.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from hubtune.errors import EnvironmentProblem, HubtuneError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
FULL_TEXT = re.compile(r"no space left|disk quota exceeded|file too large", re.IGNORECASE)
FORBIDDEN_TEXT = re.compile(r"read-only file system|permission denied", re.IGNORECASE)
MEMORY_TEXT = re.compile(
    r"cannot allocate memory|can't allocate memory|could not create a (primitive|memory object)|"
    r"unable to mmap|std::bad_alloc|bad allocation|failed to map segment|out of memory|"
    r"can't start new thread|unable to allocate", re.IGNORECASE)
"""Messages of torch, oneDNN, NumPy, Arrow and the dynamic loader when memory is short."""
VARIABLES = re.compile(r"^(HF|HUGGINGFACE|TRANSFORMERS|TOKENIZERS|DATASETS|ACCELERATE|TORCH|OMP|MKL|"
                       r"CUDA|PYTORCH|FSDP|SAFETENSORS|HUBTUNE)_")
"""Environment variables that the libraries read."""


def check() -> None:
    """Refuse a process in which no run can end well, before anything is computed.

    Raises:
        EnvironmentProblem: no folder for temporary files can be written, or docstrings are stripped.
    """
    if sys.flags.optimize > 1:
        raise EnvironmentProblem(
            "Python runs without docstrings (PYTHONOPTIMIZE=2 or -OO), and transformers reads them "
            "to build its classes.", hint="Unset PYTHONOPTIMIZE, or start Python without -OO.")
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        raise EnvironmentProblem(
            f"no folder for temporary files can be written: {error.strerror or error}.",
            hint="Name one with: export TMPDIR=FOLDER") from error


@contextlib.contextmanager
def explained(hint: str | None = None) -> Iterator[None]:
    """Turn errors of the machine into an EnvironmentProblem; all others pass through.

    Args:
        hint: what to do once the machine's problem is solved.
    """
    try:
        yield
    except HubtuneError:
        raise
    except Exception as error:
        problem = explain(error)
        if problem is None:
            raise
        if hint:
            problem.hint = f"{problem.hint}\n{hint}"
        raise problem from error


def explain(error: BaseException) -> EnvironmentProblem | None:
    """Return what an error, or one that it was raised from, says about the machine; None for nothing."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        found = disk_problem(cause) or memory_problem(cause) or variable_problem(cause)
        if found:
            return found
        cause = cause.__cause__ or cause.__context__
    return None


def disk_problem(error: BaseException) -> EnvironmentProblem | None:
    """Return the problem of an error that says that the disk is full, or may not be written."""
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    named = error.filename if isinstance(error, OSError) else None
    where = os.fsdecode(named) if isinstance(named, str | bytes) else None
    if number in FULL or (number is None and FULL_TEXT.search(text)):
        return EnvironmentProblem(
            f"the disk is full: {reason_of(error)}.", where=where,
            hint="Free some space on it (temporary files: export TMPDIR=FOLDER; downloaded models: "
            "export HF_HOME=FOLDER).")
    if number in FORBIDDEN or (number is None and FORBIDDEN_TEXT.search(text)
                               and isinstance(error, OSError | RuntimeError)):
        return EnvironmentProblem(
            f"a file cannot be read or written: {reason_of(error)}.", where=where,
            hint="Change its permissions, or name another place (--out, TMPDIR, HF_HOME).")
    return None


def memory_problem(error: BaseException) -> EnvironmentProblem | None:
    """Return the problem of an error that says that memory does not suffice."""
    number = error.errno if isinstance(error, OSError) else None
    if not (isinstance(error, MemoryError) or number == errno.ENOMEM
            or MEMORY_TEXT.search(str(error))):
        return None
    limit = address_space_limit()
    cause = "the machine's memory does not suffice" if limit is None else (
        f"this process may use {limit / 1e9:.1f} GB of address space (ulimit -v)")
    remedy = "" if limit is None else "Raise the limit with: ulimit -v unlimited\n"
    return EnvironmentProblem(
        f"out of memory: {cause} ({reason_of(error)}).",
        hint=f"{remedy}Or take less: --strategy lora, a smaller model, or --set train.batch_size=8")


def variable_problem(error: BaseException) -> EnvironmentProblem | None:
    """Return the problem of an import that fails at the value of an environment variable."""
    if not isinstance(error, ValueError | KeyError | TypeError) or not raised_at_import(error):
        return None
    for name, value in sorted(os.environ.items()):
        if value and VARIABLES.match(name) and repr(value) in str(error):
            return EnvironmentProblem(
                f"the environment variable {name} has the value {value!r}, which a library refuses: "
                f"{reason_of(error)}.", hint=f"Correct it, or remove it with: unset {name}")
    return None


def raised_at_import(error: BaseException) -> bool:
    """Tell whether an error was raised while a module was being imported."""
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_name == "<module>" and place.tb_frame.f_globals.get(
                "__name__") != "__main__":
            return True
        place = place.tb_next
    return False


def address_space_limit() -> int | None:
    """Return the limit of this process's address space in bytes; None where there is none."""
    try:
        import resource
    except ImportError:  # not on this system
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def reason_of(error: BaseException) -> str:
    """Return the reason in an error's own words, on one line."""
    own = error.strerror if isinstance(error, OSError) else None
    return " ".join((own or str(error) or type(error).__name__).split()).rstrip(".")[:200]
