"""What the methods of a plugin give back, looked at where it arrives, so that a wrong value is named and not stumbled over.

A method is looked at in its first call, and from then on it is called as it is: a step costs nothing more. The kit looks at
every call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from hubtune.contract.plugin import Plugin
from hubtune.contract.strategy import Strategy
from hubtune.contract.task import Task
from hubtune.contract.types import Batch, Export, Loss, Metric, ModelSetup, Phase
from hubtune.errors import BrokenPlugin

Fits = Callable[[Any], bool]


def a(*kinds: Any) -> Fits:
    """Whether a value is of one of these types."""
    return lambda value: isinstance(value, kinds)


def some(fits: Fits) -> Fits:
    """Whether a value is a list or tuple of what fits."""
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def has(*names: str) -> Fits:
    """Whether a value has these attributes: for types of libraries that are not imported here."""
    return lambda value: all(hasattr(value, name) for name in names)


def numbers(value: Any) -> bool:
    """Whether a value is a dict of numbers by name."""
    return isinstance(value, Mapping) and all(isinstance(name, str) and isinstance(x, Real) for name, x in value.items())


def is_json(value: Any) -> bool:
    """Whether a value is a dict that JSON can hold."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


def is_group(value: Any) -> bool:
    """Whether a value is a parameter group."""
    return isinstance(value, Mapping) and "params" in value


PREDICTIONS = (some(a(dict)), "a list with one dict per example")
USAGE = (a(str), "a text: Python code")
TASK: dict[str, tuple[Fits, str]] = {
    "validate_data": (is_json, "a dict of JSON values"), "add_columns": (a(Mapping), "a dict of columns by role"),
    "model_config": (a(ModelSetup), "a Setup"), "select_metric": (a(Metric), "a Metric"),
    "num_tokens": (a(Integral), "a whole number"), "length": (a(Integral), "a whole number"), "collate": (a(Batch), "a Batch"),
    "reference_outputs": PREDICTIONS, "count": (numbers, "a dict of numbers by the name of the loss term"),
    "loss": (lambda value: isinstance(value, Loss) or (some(a(Loss))(value) and bool(value)), "a Loss (a sum and a count), or a list of them"),
    "embed": (has("shape", "backward"), "a tensor with one entry per example"), "contrastive_loss": (a(Loss), "a Loss (a sum and a count)"),
    "postprocess": PREDICTIONS, "predict": PREDICTIONS, "merge": (a(dict), "a dict: the row's answer"),
    "score": (numbers, "a dict of numbers by name"), "report": (is_json, "a dict of JSON values"), "show": (a(dict), "a dict"),
    "question": (a(Mapping), "a row"), "usage": USAGE, "files": (a(Mapping), "a dict of texts by file name"),
}
STRATEGY: dict[str, tuple[Fits, str]] = {
    "refuse": (a(str, type(None)), "the reason as a text, or None"), "from_pretrained_kwargs": (a(Mapping), "a dict of arguments"),
    "num_virtual_tokens": (a(Integral), "a whole number"), "phases": (lambda value: some(a(Phase))(value) and bool(value), "a tuple of Phase"),
    "prepare": (has("named_parameters", "forward"), "the model, which it was given or which wraps it"),
    "param_groups": (some(is_group), 'a list of dicts with "params"'), "optimizer": (has("step", "param_groups"), "an optimizer"),
    "regularization": (lambda value: value is None or has("backward")(value), "a scalar tensor, or None"),
    "state": (is_json, "a dict of JSON values"), "export": (a(Export), "an Export"), "usage": USAGE,
}
EXAMPLES = (some(a(Mapping)), "lists of examples, one list per row; an example is a dict")
"""What `encode` yields."""


def looked_at(plugin: Any, always: bool = False) -> Any:
    """The plugin, with its own methods looked at: in their first call, or always. Raises BrokenPlugin there."""
    parent, table = (Task, TASK) if isinstance(plugin, Task) else (Strategy, STRATEGY)
    for name in [*table, *(["encode"] if parent is Task else [])]:
        if getattr(type(plugin), name) is not getattr(parent, name):
            vars(plugin)[name] = watching(plugin, name, getattr(plugin, name), table.get(name), always)
    return plugin


def watching(plugin: Plugin[Any], name: str, method: Any, wanted: tuple[Fits, str] | None, always: bool) -> Any:
    """The method, whose value is looked at; without `always`, it takes itself away in its first call."""
    def called(*arguments: Any, **named: Any) -> Any:
        if not always and vars(plugin).get(name) is called:
            del vars(plugin)[name]
        try:
            made = method(*arguments, **named)
        except Exception as error:
            error.add_note(f"It came from `{name}` of {titled(plugin)}.")
            raise
        if wanted is None:
            return each(plugin, name, made)
        refuse(plugin, name, made, *wanted)
        return made

    return called


def each(plugin: Plugin[Any], name: str, made: Any) -> Iterator[Any]:
    """What an iterable yields, each looked at when its turn comes."""
    if isinstance(made, str | Mapping) or not hasattr(made, "__iter__"):
        refuse(plugin, name, made, a(), EXAMPLES[1])
    for one in made:
        refuse(plugin, name, one, *EXAMPLES)
        yield one


def refuse(plugin: Plugin[Any], name: str, made: Any, fits: Fits, wanted: str) -> None:
    """Raise BrokenPlugin unless a value fits."""
    if not fits(made):
        raise BrokenPlugin(
            f"`{name}` of {titled(plugin)} returned {described(made)}; it has to return {wanted}.",
            hint=f"Look at: `{name}`" + (", and whether it ends with a return" if made is None else ""),
        )


def titled(plugin: Plugin[Any]) -> str:
    """The plugin as messages name it."""
    return f"the {'task' if isinstance(plugin, Task) else 'strategy'} '{plugin.name}'"


def described(value: Any) -> str:
    """A value as messages name it: its type, and of a short one the value too."""
    if value is None:
        return "None"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    inner = ""
    if isinstance(value, list | tuple | set) and value:
        inner = f" of {type(next(iter(value))).__name__}"
    said = repr(value)
    short = f" ({said})" if len(said) <= 40 and not hasattr(value, "shape") else ""
    return f"{article} {kind}{inner}{short}"
