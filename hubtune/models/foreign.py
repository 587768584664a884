"""The boundary to libraries: what their code raises for a model's files, as an error with the file's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hubtune import environment
from hubtune.errors import HubtuneError, ModelError

PANIC = "PanicException"
"""Raised by libraries written in Rust, such as tokenizers; no subclass of Exception."""


@contextlib.contextmanager
def model_errors(message: str, where: str, hint: str | None = None) -> Iterator[None]:
    """Raise whatever a library raises as a ModelError; wrap calls of foreign code alone.

    Problems of memory and disk stay what they are.

    Args:
        message: what failed; the first line of the library's message follows it.
        where: the model, or its file.

    Raises:
        ModelError: `__cause__` is the library's error.
    """
    try:
        yield
    except HubtuneError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        if problem := environment.explain(error):
            raise problem from error
        raise ModelError(f"{message}: {first_line(error)}", where=where, hint=hint) from error


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
