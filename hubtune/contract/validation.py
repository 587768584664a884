"""Checks of the values that methods of plugins return, made where core receives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from hubtune.contract.class_checks import WORDS, kind_of
from hubtune.contract.functions import exact
from hubtune.contract.plugin import Plugin
from hubtune.contract.task import ClassificationTask, Task
from hubtune.contract.types import Batch, Export, LabelKind, Loss, Metric, ModelSetup, Panel, Phase, UserCall
from hubtune.errors import BrokenPlugin, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtune.contract.functions import LossFunction

Fits = Callable[[Any], bool]
T = TypeVar("T")


def instance_of(*types: Any) -> Fits:
    """Return a check for values of one of these types."""
    return lambda value: isinstance(value, types)


def sequence_of(fits: Fits) -> Fits:
    """Return a check for lists and tuples of what fits."""
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def having(*names: str) -> Fits:
    """Return a check for objects with these attributes: for types of libraries that are not imported here."""
    return lambda value: all(hasattr(value, name) for name in names)


def is_numbers(value: Any) -> bool:
    """Tell if a value is a dict of numbers by name."""
    return isinstance(value, Mapping) and all(isinstance(name, str) and isinstance(x, Real) for name, x in value.items())


def is_json(value: Any) -> bool:
    """Tell if a value is a dict that JSON can hold."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


def is_param_group(value: Any) -> bool:
    """Tell if a value is a parameter group."""
    return isinstance(value, Mapping) and "params" in value


ANSWERS = (sequence_of(instance_of(dict)), "a list with one dict per example")
JSON = (is_json, "a dict of JSON values")
INTEGER = (instance_of(Integral), "a whole number")
EXAMPLES = (sequence_of(instance_of(Mapping)), "lists of examples, one list per row; an example is a dict")
PHASES = (lambda value: sequence_of(instance_of(Phase))(value) and bool(value), "a tuple of Phase")
EXPECTED: dict[str, tuple[Fits, str]] = {
    "validate_data": JSON, "add_columns": (instance_of(Mapping), "a dict of columns by role"),
    "model_config": (instance_of(ModelSetup), "a ModelSetup"),
    "select_metric": (instance_of(Metric), "a Metric"), "encode": EXAMPLES,
    "num_tokens": INTEGER, "length": INTEGER,
    "sampling_key": (instance_of(Integral, type(None)), "a whole number, or None"),
    "collate": (instance_of(Batch), "a Batch"),
    "loss": (lambda value: isinstance(value, Loss) or (sequence_of(instance_of(Loss))(value) and bool(value)),
             "a Loss, or a list of them"),
    "embed": (having("shape", "backward"), "a tensor with one entry per example"),
    "contrastive_loss": (instance_of(Loss), "a Loss"), "reference_outputs": ANSWERS,
    "postprocess": ANSWERS, "predict": ANSWERS, "merge": (instance_of(dict), "a dict: the row's answer"),
    "score": (is_numbers, "a dict of numbers by name"), "report": JSON, "panels": (sequence_of(instance_of(Panel)), "a list of panels"), "show": (instance_of(dict), "a dict"),
    "for_config": (lambda value: isinstance(value, type) and issubclass(value, Task), "a class of tasks"),
    "generation_config": (instance_of(Mapping), "a dict of attributes"),
    "question": (instance_of(Mapping), "a row"), "usage": (instance_of(str), "a text: Python code"),
    "user_call": (instance_of(UserCall, type(None)), "a UserCall, or None"),
    "files": (instance_of(Mapping), "a dict of texts by file name"),
    "refuse": (instance_of(str, type(None)), "the reason as a text, or None"),
    "from_pretrained_kwargs": (instance_of(Mapping), "a dict of arguments"), "num_virtual_tokens": INTEGER,
    "phases": PHASES,
    "prepare": (having("named_parameters", "forward"), "the model, which it was given or which wraps it"),
    "param_groups": (sequence_of(is_param_group), 'a list of dicts with "params"'),
    "optimizer": (having("step", "param_groups"), "an optimizer"),
    "regularization": (lambda value: value is None or having("backward")(value), "a scalar tensor, or None"),
    "state": JSON, "export": (instance_of(Export), "an Export"), "with_code": (instance_of(Export), "an Export"),
    "fit": JSON, "label_kind": (lambda value: value in get_args(LabelKind), f"one of {listing(get_args(LabelKind))}"),
    "label_counts": (is_numbers, "a dict of numbers by label"),
    "class_logits": (having("shape", "backward"), "a tensor (targets, labels)"),
    "class_targets": (having("shape"), "a tensor with one entry per target"),
    "class_answers": (lambda value: sequence_of(having("__len__"))(value) and len(value) == 2,
                      "the right answers and the predicted ones"),
    "fit_decisions": JSON, "decide": (instance_of(dict), "a dict: the prediction"),
    "losses": (having("shape", "backward"), "a tensor (targets,)"),
    "weights": (lambda value: value is None or having("shape")(value), "a tensor (targets,), or None"),
    "compute": (instance_of(Real), "a number"),
}
"""The return value of each method: a check, and its description."""


def checked(plugin: Plugin[Any], method: str, value: T) -> T:
    """Return a value that a method of a plugin gave. Raises BrokenPlugin where it has another type than it must."""
    fits, expected = EXPECTED[method]
    if not fits(value):
        raise BrokenPlugin(
            f"`{method}` of {titled(plugin)} returned {described(value)}; it has to return {expected}.",
            hint=f"Look at: `{method}`" + (", and whether it ends with a return" if value is None else ""),
        )
    return value


def encoded_rows(task: Task[Any], rows: Any, base: Any) -> list[list[Any]]:
    """Return the examples of each row. Raises BrokenPlugin where `encode` yields something else."""
    found = task.encode(rows, base)
    if isinstance(found, str | Mapping) or not hasattr(found, "__iter__"):
        raise BrokenPlugin(f"`encode` of {titled(task)} returned {described(found)}; it has to return {EXAMPLES[1]}.",
                           hint="Look at: `encode`")
    return [list(checked(task, "encode", examples)) for examples in found]


def collated(task: Task[Any], examples: Sequence[Any], base: Any, rngs: Any = None) -> Batch:
    """Return the batch of some examples."""
    batch = checked(task, "collate", task.collate(examples, base, rngs))
    if batch.targets is not None and isinstance(task, ClassificationTask) and task.loss_function is not None:
        targets = checked(task, "class_targets", task.class_targets(batch))
        weights = checked(task.loss_function, "weights", task.loss_function.weights(targets))
        return replace(batch, counts={"loss": float(len(targets) if weights is None else sum(weights.tolist()))})
    if not is_numbers(batch.counts):
        raise BrokenPlugin(f"`collate` of {titled(task)} gave counts {batch.counts!r}; they are numbers by the name of a "
                           "loss term.", hint="Look at: `Batch.counts`")
    return batch


def loss_terms(task: Task[Any], outputs: Any, batch: Batch) -> list[Loss]:
    """Return the loss terms of a batch, each with a count. Raises BrokenPlugin for a term that the batch does not count."""
    if isinstance(task, ClassificationTask) and task.loss_function is not None:
        return [chosen_loss(task, task.loss_function, outputs, batch)]
    loss = checked(task, "loss", task.loss(outputs, batch))
    terms = [loss] if isinstance(loss, Loss) else list(loss)
    unknown = [term.name for term in terms if term.name not in batch.counts]
    if unknown:
        raise BrokenPlugin(
            f"`loss` of {titled(task)} returned the term {unknown[0]!r}; its batch counts {listing(batch.counts) or 'none'}.",
            hint=f'In `collate`, return Batch(inputs, targets, size, counts={{"{unknown[0]}": ...}}).',
        )
    return terms


def chosen_loss(task: ClassificationTask[Any], function: LossFunction[Any], outputs: Any, batch: Batch) -> Loss:
    """Return the loss of a batch by a function that the recipe chose: the sum of its losses times its weights."""
    logits = exact(checked(task, "class_logits", task.class_logits(outputs, batch)))
    targets = checked(task, "class_targets", task.class_targets(batch))
    losses = checked(function, "losses", function.losses(logits, targets))
    if losses.shape != (len(targets),):
        raise BrokenPlugin(f"`losses` of {titled(function)} returned a tensor of shape {tuple(losses.shape)} for "
                           f"{len(targets)} targets; it has to return one loss per target.",
                           hint='Look at: `reduction="none"`')
    weights = checked(function, "weights", function.weights(targets))
    return Loss(losses.sum() if weights is None else (losses * weights.to(losses.dtype)).sum())


def titled(plugin: Plugin[Any]) -> str:
    """Name a plugin in a message."""
    return f"the {WORDS[kind_of(type(plugin))]} '{plugin.name}'"


def described(value: Any) -> str:
    """Describe a value in a message: its type, and a short value itself."""
    if value is None:
        return "None"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    inner = f" of {type(next(iter(value))).__name__}" if isinstance(value, list | tuple | set) and value else ""
    text = repr(value)
    short = f" ({text})" if len(text) <= 40 and not hasattr(value, "shape") else ""
    return f"{article} {kind}{inner}{short}"
