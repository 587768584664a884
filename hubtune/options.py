"""Typed options: dataclasses whose fields have a default, a line of help and allowed values."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubtune.errors import RecipeError, listing
from hubtune.other_names import unknown_key, value_advice


@dataclass(frozen=True)
class NoOptions:
    """Options of a plugin without any."""


def option(
    default: Any, help: str, *, choices: Sequence[Any] | None = None,
    search: tuple[Any, ...] | list[Any] | None = None,
) -> Any:
    """Define a field of an `Options` dataclass: its default, one line of help, and allowed values.

    Options are JSON values: str, int, float, bool, None, lists and tables of these, or a dataclass
    of them.

    search: what `hubtune sweep` tries unless the user says otherwise: `(low, high)`,
    `(low, high, "log")` or a list of choices; none: it stays as it is.
    """
    metadata = {"help": help, "choices": tuple(choices) if choices is not None else None,
                "search": search}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


PartT = typing.TypeVar("PartT")


def fill(kind: type[PartT], values: Mapping[str, Any], table: str,
         where: str | None = None) -> PartT:
    """Build a dataclass of options from a table, checking each value against its field."""
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    filled = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown_key(table, name, value, list(fields), where)
        choices = fields[name].metadata.get("choices")
        fitted = "none" if value is None and choices and "none" in choices else fit(
            value, hints[name])
        if fitted is MISFIT or (choices and fitted is not None and fitted not in choices):
            allowed = f"one of {listing(choices, 60)}" if choices else describe(hints[name])
            advice = value_advice(f"{table}.{name}", value)
            raise RecipeError(f"{table}.{name} must be {allowed}, not {value!r}{advice}.",
                              where=where)
        filled[name] = fitted
    return kind(**filled)


MISFIT = object()


def fit(value: Any, hint: Any) -> Any:
    """Convert a value to the hinted type, or return MISFIT. Only an int becomes a float."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        fits = [fitted for part in typing.get_args(hint)
                if (fitted := fit(value, part)) is not MISFIT]
        return fits[0] if fits else MISFIT
    if hint is Any:
        return value
    if hint is type(None) or value is None:
        return None if hint is type(None) and value is None else MISFIT
    if origin is typing.Literal:
        return next((item for item in typing.get_args(hint)
                     if item == value and type(item) is type(value)), MISFIT)
    if origin in (list, tuple):
        return fit_items(value, origin, typing.get_args(hint))
    if origin is dict:
        return fit_table(value, *typing.get_args(hint))
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return fit_part(value, hint)
    if isinstance(value, bool) and hint is not bool:
        return MISFIT
    if hint is float and isinstance(value, int | float):
        too_large = isinstance(value, int) and abs(value) > sys.float_info.max
        return MISFIT if too_large else float(value)
    return value if isinstance(value, origin or hint) else MISFIT


def fit_items(value: Any, origin: Any, hints: tuple[Any, ...]) -> Any:
    """Convert every item of a list or tuple to its hinted type, or return MISFIT."""
    fixed = origin is tuple and Ellipsis not in hints
    if not isinstance(value, list | tuple) or (fixed and len(value) != len(hints)):
        return MISFIT
    every = hints if fixed else hints[:1] * len(value)
    inner = [fit(item, hint) for item, hint in zip(value, every, strict=True)]
    return MISFIT if MISFIT in inner else origin(inner)


def fit_table(value: Any, key: Any, hint: Any) -> Any:
    """Convert every key and value of a table to its hinted type, or return MISFIT."""
    if not isinstance(value, Mapping):
        return MISFIT
    inner = {fit(name, key): fit(item, hint) for name, item in value.items()}
    return MISFIT if MISFIT in inner or MISFIT in inner.values() else inner


def fit_part(value: Mapping[str, Any], hint: Any) -> Any:
    """Build a dataclass from a table of its fields, or return MISFIT."""
    hints = typing.get_type_hints(hint)
    if not set(value) <= {item.name for item in dataclasses.fields(hint) if item.init}:
        return MISFIT
    inner = {name: fit(item, hints[name]) for name, item in value.items()}
    return MISFIT if MISFIT in inner.values() else hint(**inner)


def describe(hint: Any) -> str:
    """Describe a type in words: `a number or none`."""
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false",
             type(None): "none"}
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(hint))
    if origin is typing.Literal:
        return listing(map(str, typing.get_args(hint)), 20)
    if dataclasses.is_dataclass(hint):
        fields = (item.name for item in dataclasses.fields(hint) if item.init)
        return f"a table of {listing(fields, 20)}"
    kinds = {list: "a list", tuple: "a list", dict: "a table"}
    return names.get(hint) or kinds.get(origin or hint) or str(hint)
