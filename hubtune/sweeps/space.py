"""What a sweep varies: ranges of settings, from plugins' options and from `--search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune.contract import Plugin, Strategy
from hubtune.errors import RecipeError, listing
from hubtune.options import fill
from hubtune.recipe import TrainConfig, check_ranges, parse_literal

RELATIVE = ("train.learning_rate", "train.epochs")
"""Settings whose range by default is in multiples of what hubtune chooses for the strategy, model and data."""
FIXED = ("train.seed", "train.plan", "train.verify", "train.report_to", "train.metric_for_best_model",
         "train.metrics")
"""Settings that change how trials are scored or compared, or nothing of the model."""


@dataclass(frozen=True)
class Range:
    """The values of one setting.

    Attributes:
        key: as `--set` writes it.
        values: the choices, or (low, high).
        is_choice: one of `values`.
        log: the logarithm is uniform.
        owner: the strategy whose option it is; none: it holds for all.
        relative: in multiples of the default.
    """

    key: str
    values: tuple[Any, ...]
    is_choice: bool = False
    log: bool = False
    owner: str | None = None
    relative: bool = False

    @property
    def name(self) -> str:
        """The name within a study: options of two strategies are two parameters."""
        return f"{self.owner}: {self.key}" if self.owner else self.key

    @property
    def is_whole(self) -> bool:
        """Whether the values between two limits are whole numbers."""
        return not self.is_choice and all(isinstance(value, int) for value in self.values)

    def __str__(self) -> str:
        """As `--search` writes it, with `x` for multiples of the default."""
        if self.is_choice:
            return f"{self.name}={','.join(map(str, self.values))}"
        low, high = (f"{value:g}{'x' * self.relative}" for value in self.values)
        return f"{self.name}={low}..{high}{':log' * self.log}"


def of_metadata(key: str, search: Any, owner: str | None = None) -> Range:
    """Return the range that an option declares: `(low, high)`, `(low, high, "log")` or a list of choices."""
    if isinstance(search, list):
        return Range(key, tuple(search), True, owner=owner)
    return Range(key, tuple(search[:2]), log="log" in search[2:], owner=owner, relative=key in RELATIVE)


def declared(kind: type[Any], table: str, owner: str | None = None) -> list[Range]:
    """Return the ranges that the options of a dataclass declare."""
    return [of_metadata(f"{table}.{item.name}", item.metadata["search"], owner)
            for item in dataclasses.fields(kind) if item.metadata.get("search") is not None]


def parse(text: str) -> Range:
    """Read `KEY=LOW..HIGH`, `KEY=LOW..HIGH:log` or `KEY=A,B,C`."""
    key, equals, values = text.partition("=")
    key, values = key.strip(), values.strip()
    table, dot, _ = key.partition(".")
    hint = ("For example: --search train.learning_rate=1e-5..1e-3:log --search train.batch_size=8,16 "
            "--search strategy.rank=4,8,16")
    if not (equals and dot and values):
        raise RecipeError(f"--search takes TABLE.KEY=LOW..HIGH or TABLE.KEY=A,B,C, not '{text}'.", hint=hint)
    if table not in ("train", "task", "strategy", "loss") or key in FIXED:
        raise RecipeError(f"--search cannot vary '{key}': trials could not be compared.",
                          hint="It varies settings of train, task, strategy and loss. " + hint)
    if ".." not in values:
        return Range(key, tuple(parse_literal(value.strip()) for value in values.split(",")), True)
    limits, _, scale = values.partition(":")
    low, high = (parse_literal(value.strip()) for value in limits.split("..", 1))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high))
    if not numbers or scale not in ("", "log") or low >= high or (scale and low <= 0):
        raise RecipeError(f"--search {text}: a range is LOW..HIGH of two numbers, the lower first and above 0 "
                          "for :log.", hint=hint)
    return Range(key, (low, high), log=bool(scale))


def as_texts(search: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Return ranges as `--search` takes them, also of `{key: (low, high, "log")}` and `{key: [choices]}`."""
    if not isinstance(search, Mapping):
        return [search] if isinstance(search, str) else list(search)
    return [f"{key}={','.join(map(str, values))}" if isinstance(values, list)
            else f"{key}={values[0]}..{values[1]}{':log' * ('log' in values[2:])}"
            for key, values in search.items()]


def build(
    task: type[Plugin[Any]], strategies: Mapping[str, type[Strategy[Any]]], search: Iterable[str],
    fixed: Iterable[str],
) -> list[Range]:
    """Return the ranges of a sweep: those of `search`, and those declared by the options that neither names.

    Args:
        strategies: by name.
        search: as `--search` takes them.
        fixed: keys that the user has set.

    Raises:
        RecipeError: no option or setting has such a key or takes such a value.
    """
    given = [parse(text) for text in search]
    for one in given:
        check(one, task, strategies)
    named = {one.key for one in given} | set(fixed)
    if named & {"train.max_steps", "train.epochs"}:  # they exclude each other
        named |= {"train.max_steps", "train.epochs"}
    found = declared(TrainConfig, "train") + declared(task.Options, "task")
    for name, kind in strategies.items():
        found += declared(kind.Options, "strategy", name)
    own = [dataclasses.replace(one, owner=name) for one in given if one.key.startswith("strategy.")
           for name, kind in strategies.items() if has(kind, one.key)]
    return ([one for one in given if not one.key.startswith("strategy.")] + own
            + [one for one in found if one.key not in named])


def has(kind: type[Plugin[Any]], key: str) -> bool:
    """Tell whether a plugin has the option of this key."""
    return key.partition(".")[2] in {item.name for item in dataclasses.fields(kind.Options)}


def check(one: Range, task: type[Plugin[Any]], strategies: Mapping[str, type[Strategy[Any]]]) -> None:
    """Refuse a range of a setting that does not exist or does not take its values."""
    table, _, name = one.key.partition(".")
    kinds: Sequence[type[Any]] = [TrainConfig] if table == "train" else [task.Options]
    if table == "loss":
        return  # checked with the loss that the recipe names
    if table == "strategy":
        kinds = [kind.Options for kind in strategies.values() if has(kind, one.key)]
        if not kinds:
            raise RecipeError(f"--search {one.key}: no strategy of {listing(strategies)} has this option.",
                              hint=f"List the options: hubtune strategies {next(iter(strategies))}")
    for kind in kinds:
        for value in one.values:
            filled = fill(kind, {name: value}, table)
            if isinstance(filled, TrainConfig):
                check_ranges(filled, None)


def defaults(ranges: Iterable[Range], strategies: Mapping[str, type[Strategy[Any]]]) -> dict[str, Any]:
    """Return the default of each range that has it: 1 for multiples, and the options' own, by the range's name."""
    found: dict[str, Any] = {one.name: 1.0 for one in ranges if one.relative}
    for one in ranges:
        if one.owner is None:
            continue
        options = strategies[one.owner].Options()
        value = getattr(options, one.key.partition(".")[2])
        inside = value in one.values if one.is_choice else one.values[0] <= value <= one.values[-1]
        if inside:
            found[one.name] = value
    return found
