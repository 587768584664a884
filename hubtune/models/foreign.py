"""The boundary to libraries: what their code raises for a model's files, as an error with the file's name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from hubtune import environment
from hubtune.errors import HubtuneError, ModelError

PANIC = "PanicException"
"""Raised by libraries written in Rust, such as tokenizers; no subclass of Exception."""

LACKING = re.compile(r"requires the (\w+) library")
"""How transformers says that a class needs a package that is not installed."""

LIBRARIES = ("transformers", "tokenizers", "sentencepiece", "tiktoken")
"""Libraries whose code reads the files of tokenizers and processors."""


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
        if package := LACKING.search(str(error)):
            hint = f"Install it in the build that belongs to your torch: pip install {package[1].lower()}"
        raise ModelError(f"{message}: {first_line(error)}", where=where, hint=hint) from error


@contextlib.contextmanager
def processor_errors(repo: str) -> Iterator[None]:
    """Raise what a model's tokenizer or processor raises for rows as a ModelError.

    What is raised elsewhere, as in a plugin's own code, passes through.

    Raises:
        ModelError: `__cause__` is the library's error.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, HubtuneError) or not is_of_processor(error) or (
                not isinstance(error, Exception) and type(error).__name__ != PANIC):
            raise
        raise ModelError(
            f"its tokenizer or processor fails on the rows: {first_line(error)}", where=repo,
            hint="Its files are damaged or do not belong together. Fetch the model again as a "
            "whole.") from error


def is_of_processor(error: BaseException) -> bool:
    """Tell whether an error was raised in the code of transformers, or in what that calls."""
    place, name = error.__traceback__, ""
    while place is not None:
        name = str(place.tb_frame.f_globals.get("__name__", ""))
        place = place.tb_next
    return name.split(".")[0] in LIBRARIES


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
