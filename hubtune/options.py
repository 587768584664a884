"""Typed options: dataclasses whose fields carry a default, a line of help and the values they may take."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubtune.errors import RecipeError, listing
from hubtune.other_names import unknown_key, value_advice


@dataclass(frozen=True)
class NoOptions:
    """For a plugin that has nothing to set."""


def option(default: Any, help: str, *, choices: Sequence[Any] | None = None) -> Any:
    """A field of an `Options` dataclass: its default, one line of help, and the values it may take.

    Options are JSON values: str, int, float, bool, None, or lists of these.
    """
    metadata = {"help": help, "choices": tuple(choices) if choices is not None else None}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


PartT = typing.TypeVar("PartT")


def fill(kind: type[PartT], values: Mapping[str, Any], table: str, where: str | None = None) -> PartT:
    """An instance of a dataclass of options from a table, each value checked against its field."""
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    filled = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown_key(table, name, value, list(fields), where)
        choices = fields[name].metadata.get("choices")
        fitted = "none" if value is None and choices and "none" in choices else fit(value, hints[name])
        if fitted is MISFIT or (choices and fitted is not None and fitted not in choices):
            right = f"one of {listing(choices, 20)}" if choices else describe(hints[name])
            raise RecipeError(f"{table}.{name} is {right}, not {value!r}{value_advice(f'{table}.{name}', value)}.", where=where)
        filled[name] = fitted
    return kind(**filled)


MISFIT = object()


def fit(value: Any, hint: Any) -> Any:
    """The value as the hinted type, or MISFIT. An int fits a float; nothing else is converted."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        fits = [fitted for part in typing.get_args(hint) if (fitted := fit(value, part)) is not MISFIT]
        return fits[0] if fits else MISFIT
    if hint is Any:
        return value
    if hint is type(None) or value is None:
        return None if hint is type(None) and value is None else MISFIT
    if origin is list:
        inner = [fit(item, typing.get_args(hint)[0]) for item in value] if isinstance(value, list | tuple) else [MISFIT]
        return MISFIT if MISFIT in inner else inner
    if isinstance(value, bool) and hint is not bool:
        return MISFIT
    if hint is float and isinstance(value, int | float):
        return float(value)
    return value if isinstance(value, origin or hint) else MISFIT


def describe(hint: Any) -> str:
    """A type in words: `a number or none`."""
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "none"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(hint))
    return names.get(hint, "a list" if typing.get_origin(hint) is list else str(hint))
