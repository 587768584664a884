"""The contract between the core and its plugins: all that a task or a strategy may import.

Nothing heavy is imported here, so that listing plugins stays cheap. Shapes and units are in the docstrings.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import pluggy

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

CONTRACT = 1
"""The version of this contract. A plugin class says `contract = 1`: what it was written for."""

hookspec = pluggy.HookspecMarker("hubtune")
hookimpl = pluggy.HookimplMarker("hubtune")

Row = Mapping[str, Any]
"""One row of data, by role: `{"text": "What a lovely day", "label": "positive"}`."""

Rows = Sequence[Row]
"""Rows in order. Columns that the data does not have are absent; a missing value is None."""

Example = Mapping[str, Any]
"""What `Task.encode` makes of a row, without padding: `{"input_ids": [101, 2054, 102], "label": 1}`."""

Prediction = dict[str, Any]
"""The answer for one row, as `--json` prints it."""

Kind = Literal["text", "label"]
OptionsT = TypeVar("OptionsT")


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


@dataclass(frozen=True)
class Loss:
    """A loss summed over its targets, never averaged: the engine divides by the count of the whole step.

    total: scalar tensor, the sum. count: how many targets (or how much weight) it sums over. A task may
    return several, told apart by `name`; `weight` is a term's factor in what is minimised.
    """

    total: Tensor
    count: float
    name: str = "loss"
    weight: float = 1.0

    def __add__(self, other: Loss) -> Loss:
        """loss(A + B) = loss(A) + loss(B)."""
        if (self.name, self.weight) != (other.name, other.weight):
            raise ValueError(f"cannot add the terms {self.name!r} and {other.name!r}")
        return dataclasses.replace(self, total=self.total + other.total, count=self.count + other.count)


@dataclass(frozen=True)
class Metric:
    """What decides which weights are best: a key of what `Task.score` returns."""

    name: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Column:
    """A column that a task reads.

    role: the key in a `Row`. names: what to look for in the data, best first, without regard to case.
    kind: what values look like, to find the column when no name fits. needed: in which rows it must be there.
    """

    role: str
    names: tuple[str, ...]
    kind: Kind = "text"
    needed: Literal["always", "train", "never"] = "always"


@dataclass(frozen=True)
class Base:
    """A pretrained model without its weights, as a task and a strategy see it.

    repo, commit: where it came from (a local folder: its name and the sha256 of its files).
    config: the transformers configuration, with what `Task.configure` added.
    processor: tokenizer, image processor or feature extractor.
    max_length: the length in tokens that longer examples are cut to; None: do not cut.
    """

    repo: str
    commit: str
    config: Any
    processor: Any
    max_length: int | None = None


@dataclass(frozen=True)
class Setup:
    """What a task wants of a model: attributes of its configuration, and the processor to save with it."""

    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Any = None


@dataclass(frozen=True)
class Draw:
    """The randomness of one row in one epoch, the same however a step is cut and wherever it runs."""

    seed: int
    epoch: int
    row: int

    def random(self) -> random.Random:
        """A fresh generator for this row and epoch."""
        return random.Random(f"{self.seed}/{self.epoch}/{self.row}")


@dataclass(frozen=True)
class Batch:
    """Examples made into tensors.

    inputs: the keyword arguments of the model's forward. targets: what the loss compares with, None where the
    rows have no labels. size: how many examples.
    """

    inputs: dict[str, Any]
    targets: Any
    size: int


@dataclass(frozen=True)
class Plan:
    """What a strategy may know of the run ahead: optimizer steps in all, epochs, rows a step."""

    steps: int
    epochs: float
    batch_size: int


@dataclass(frozen=True)
class Export:
    """A trained model as it is published.

    root: the plain model that goes to the top of the repository. beside: further models by folder name,
    each with a `save_pretrained`. loads_with: the library that the top loads with.
    """

    root: Any
    beside: Mapping[str, Any] = field(default_factory=dict)
    loads_with: Literal["transformers", "peft", "code"] = "transformers"


class Plugin(Generic[OptionsT]):
    """What tasks and strategies share: a name, a line of summary, options, and what they need installed."""

    contract: ClassVar[int]
    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ()
    """Packages to be importable, beyond hubtune's own; checked before anything is fetched."""
    extra: ClassVar[str | None] = None
    """What to install when one is missing, such as `hubtune[peft]`; none: the packages themselves."""

    options: OptionsT

    def __init__(self, options: OptionsT | None = None) -> None:
        self.options = self.Options() if options is None else options


class Task(Plugin[OptionsT]):
    """What to learn: which columns, how a row becomes an example, what the loss is, how answers are scored."""

    columns: ClassVar[tuple[Column, ...]]
    metric: ClassVar[Metric]
    model: ClassVar[str]
    """The transformers class that makes the model, such as `AutoModelForSequenceClassification`."""
    processor: ClassVar[str] = "AutoTokenizer"
    pipeline_tag: ClassVar[str]
    """The Hub's name for what the model does, which decides its widget."""

    def inspect(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """Read the training data before any model is fetched: JSON facts such as the label space.

        Raises DataError, with row numbers, for what cannot be learnt from. Kept in `run.json`.
        """
        return {}

    def configure(self, facts: Mapping[str, Any], base: Base) -> Setup:
        """What the model's configuration and processor need, given what `inspect` found."""
        return Setup(processor=base.processor)

    def metric_of(self, base: Base) -> Metric:
        """What decides for this model; default: the class's `metric`."""
        return self.metric

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        """Examples of many rows, one list per row (several: windows over it), cut at `base.max_length`.

        Rows may lack their targets. Nothing is padded, decoded or moved to a device here.
        """
        raise NotImplementedError

    def size(self, example: Example) -> int:
        """What an example costs, in tokens (or pixels, frames): a batch costs its longest times its count."""
        raise NotImplementedError

    def collate(self, examples: Sequence[Example], base: Base, draws: Sequence[Draw] | None) -> Batch:
        """Pad and stack. `draws` holds an example's randomness; None in evaluation."""
        raise NotImplementedError

    def count(self, batch: Batch) -> dict[str, float]:
        """The count that each loss term will have, before it is computed, by the term's name."""
        return {"loss": float(batch.size)}

    def forward(self, model: Module, batch: Batch) -> Any:
        """Run the model; whatever `loss` and `judge` need. Default: the model's own output."""
        return model(**batch.inputs)

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        """The summed loss of a batch, from what `forward` returned."""
        raise NotImplementedError

    def judge(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        """One answer per example from one forward pass: cheap enough for every validation."""
        raise NotImplementedError

    def predict(self, model: Module, batch: Batch, base: Base) -> list[Prediction]:
        """One answer per example, the real thing (such as generated text). Default: `judge`."""
        return self.judge(self.forward(model, batch), batch, base)

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        """One answer from the answers of a row's examples. Default: the only one."""
        return parts[0]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        """Metrics over all rows. Called again on resampled rows, for the intervals."""
        raise NotImplementedError

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        """More than numbers in a line, such as a table per class; JSON. Default: nothing."""
        return {}


class Strategy(Plugin[OptionsT]):
    """Which weights learn, and how. Unmodified, it is full fine-tuning."""

    paper: ClassVar[str | None] = None
    """Where the method was published."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Values that suit the method for keys that a recipe leaves open: `{"train.lr": 2e-4}`, the rate for 110 M
    parameters; also `train.epochs`, `steps`, `batch_size`, `weight_decay`, `max_length` and `validations`."""
    loads_with: ClassVar[Literal["transformers", "peft", "code"]] = "transformers"

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        """Why this cannot apply, from the configuration alone and before weights are downloaded; or None."""
        return None

    def load(self) -> dict[str, Any]:
        """Further arguments of `from_pretrained`."""
        return {}

    def prepare(self, model: Module, fresh: frozenset[str], task: Task[Any], plan: Plan) -> Module:
        """Freeze, wrap or add. `fresh`: names of parameters that make the head or were not pretrained."""
        return model

    def groups(self, model: Module, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: every trainable parameter in exactly one. Default: no decay on vectors.

        A group's `rate` multiplies the run's learning rate for it.
        """
        decayed: list[Parameter] = []
        plain: list[Parameter] = []
        for parameter in model.parameters():
            if parameter.requires_grad:
                (decayed if parameter.ndim > 1 else plain).append(parameter)
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        """Default: AdamW (Loshchilov and Hutter, arXiv:1711.05101), in the library's fused form."""
        from torch.optim import AdamW

        return AdamW(groups, lr=lr, fused=True)

    def loss(self, task: Task[Any], model: Module, batch: Batch) -> Loss | list[Loss]:
        """Default: the task's. Here a method adds a term of its own."""
        return task.loss(task.forward(model, batch), batch)

    def after_step(self, model: Module, step: int, steps: int) -> None:
        """Called after the optimizer's step and before gradients are cleared."""

    def state(self) -> dict[str, Any]:
        """JSON that no state_dict holds, for the checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""

    def export(self, model: Any) -> Export:
        """The model as it is published; `model` is not used afterwards."""
        return Export(root=model)


@hookspec
def hubtune_tasks() -> Iterable[type[Task[Any]]]:  # type: ignore[empty-body]
    """The task classes of this plugin module."""


@hookspec
def hubtune_strategies() -> Iterable[type[Strategy[Any]]]:  # type: ignore[empty-body]
    """The strategy classes of this plugin module."""
