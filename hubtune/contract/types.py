"""The plain values that the core and its plugins hand to each other. Part of the contract; nothing heavy is imported."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, Any]
"""One row of data, by role: `{"text": "What a lovely day", "label": "positive"}`."""

Rows = Sequence[Row]
"""Rows in order. Columns that the data does not have are absent; a missing value is None."""

Example = Mapping[str, Any]
"""One encoded input, from `Task.encode`, without padding: `{"input_ids": [101, 2054, 102], "label": 1}`."""

Prediction = dict[str, Any]
"""The answer for one row, as `--json` prints it."""

Kind = Literal["text", "label", "words", "texts", "image", "audio", "any"]
"""Kind of the values of a column. text: a string. label: a name, a number or a list of them. words: a list of
strings, or a string that blanks divide. texts: a list of strings. image: a Pillow image, a path, or a dict with `bytes`
or `path`. audio: a path, such a dict, or one with `array` and `sampling_rate`. any: whatever the task reads.
"""

LabelKind = Literal["single_label", "multi_label", "regression"]
"""Kind of a row's label: one of a few, any number of these, or a number."""

LoadsWith = Literal["transformers", "peft", "code"]
"""Libraries that load a published model: transformers alone; PEFT beside its base model; transformers, when the user trusts the
code that lies beside the weights, at a commit."""


@dataclass(frozen=True)
class Loss:
    """A loss summed over its targets, never averaged: the engine divides it by its count over the whole step.

    total: scalar tensor, the sum. name: the term, whose count is in `Batch.counts`. weight: the term's factor in what
    is minimised.
    """

    total: Tensor
    name: str = "loss"
    weight: float = 1.0

    def __add__(self, other: Loss) -> Loss:
        """Add the loss of other examples: loss(A + B) = loss(A) + loss(B)."""
        if (self.name, self.weight) != (other.name, other.weight):
            raise ValueError(f"cannot add the terms {self.name!r} and {other.name!r}")
        return dataclasses.replace(self, total=self.total + other.total)


@dataclass(frozen=True)
class Metric:
    """Metric that selects the best weights: a key of the scores of `Task.score`."""

    name: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Column:
    """A column that a task reads.

    role: the key in a `Row`. names: what to look for in the data, best first, without regard to case.
    kind: what values look like, to find the column when no name fits. needed: in which rows it must be there
    (train: also in rows that are evaluated). gaps: whether some rows may leave it empty where it is there.
    """

    role: str
    names: tuple[str, ...]
    kind: Kind = "text"
    needed: Literal["always", "train", "never"] = "always"
    gaps: bool = False

    @property
    def target(self) -> bool:
        """True for a target column, which a prediction must not see."""
        return self.kind == "label" or self.needed == "train"


@dataclass(frozen=True)
class Base:
    """A pretrained model without its weights, as a task and a strategy see it.

    repo, commit: where it came from (a local folder: its name and the sha256 of its files).
    config: the transformers configuration, with what `Task.model_config` added.
    processor: tokenizer, image processor or feature extractor.
    max_length: the length in tokens that longer examples are cut to; None: do not cut.
    folder: holds the files of the repository that `Task.base_files` names, at their paths; None where it has none.
    """

    repo: str
    commit: str
    config: Any
    processor: Any
    max_length: int | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class ModelSetup:
    """Changes that a task makes to a model before training.

    config: attributes of its configuration. tokenizer: attributes of its tokenizer, such as `pad_token`. processor: another
    one in its place, to be saved with the model; None: its own.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Any = None
    tokenizer: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: ModelSetup) -> ModelSetup:
        """Combine two setups; the other one wins."""
        processor = self.processor if other.processor is None else other.processor
        return ModelSetup({**self.config, **other.config}, processor, {**self.tokenizer, **other.tokenizer})


@dataclass(frozen=True)
class ExampleRNG:
    """The randomness of one row in one epoch, the same however a step is cut and wherever it runs."""

    seed: int
    epoch: int
    row: int
    others: Sequence[Example] = ()
    """Examples of the same `Task.sampling_key`, this one among them."""

    def random(self) -> random.Random:
        """A fresh generator for this row and epoch."""
        return random.Random(f"{self.seed}/{self.epoch}/{self.row}")


@dataclass(frozen=True)
class Batch:
    """Examples made into tensors.

    inputs: the keyword arguments of the model's forward. targets: what the loss compares with, None where the
    rows have no labels. size: the number of examples. counts: the number of targets (or their weight) that each loss term
    sums over, by its name; a step divides by their sum. Default: `loss` counts the examples.
    """

    inputs: dict[str, Any]
    targets: Any
    size: int
    counts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.counts:
            object.__setattr__(self, "counts", {"loss": float(self.size)})


@dataclass(frozen=True)
class Plan:
    """The run ahead, as far as a strategy may know it.

    steps: optimizer steps in all. epochs: passes over the training data. batch_size: rows in a step. batches: makes a
    few batches of training rows without augmentation, on the model's device and the same in every process, for methods
    that look at data before the first step.
    """

    steps: int
    epochs: float
    batch_size: int
    batches: Callable[[], Iterable[Batch]] = tuple


@dataclass(frozen=True)
class Phase:
    """A stretch of a run in which the same weights learn.

    share: its part of all steps (the shares of a strategy's phases make 1). rate: multiplies the learning rate.
    The schedule, warmup included, and the optimizer begin anew with every phase.
    """

    name: str
    share: float = 1.0
    rate: float = 1.0


@dataclass(frozen=True)
class Export:
    """A trained model as it is published.

    root: what goes to the top of the repository, by its `save_pretrained`. beside: further models by folder name, each
    with a `save_pretrained`. loads_with: what the top loads with. files: further files by name, such as the code that
    `loads_with="code"` needs. config: attributes to write into the published `config.json`.
    """

    root: Any
    beside: Mapping[str, Any] = field(default_factory=dict)
    loads_with: LoadsWith = "transformers"
    files: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class UserCall:
    """A row as its users give it to the published model, with transformers alone. The proof compares the answers.

    way: `pipeline`: the pipeline of `Task.pipeline_tag` is called with `inputs` and `options`. `processor`: the processor is called
    so, and the model with the tensors that it returns. `choices`: the same, of the choices of one row, which is a leading axis.
    `generate`: the model generates from the processor's tensors of `inputs`, with `options`, and the tokens are decoded. inputs: JSON, Pillow images or NumPy arrays; for a processor, a list of arguments,
    or a dict of them by name.
    """

    way: Literal["pipeline", "processor", "choices", "generate"]
    inputs: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """A part of a run's page `report.html`, from `Task.panels`. title: plain text. note: what to read it with, one sentence."""

    title: str
    note: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class MatrixPanel(Panel):
    """Counts of pairs, such as right and given labels; of many labels the page shows the most frequent mistakes.

    labels: the names of the indices. cells: (right, given, count) of the pairs that occur.
    """

    labels: Sequence[str]
    cells: Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class LinesPanel(Panel):
    """Curves. x, y: names of the axes. lines: points (x, y) by the name of each curve. diagonal: draw y = x as well."""

    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    diagonal: bool = False


@dataclass(frozen=True)
class BarsPanel(Panel):
    """Numbers of categories. unit: what the numbers are. bars: by the name of a series, numbers by category."""

    unit: str
    bars: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Box:
    """A rectangle on an image, in parts of its sides from 0 to 1. right: one that the data has, else a predicted one."""

    left: float
    top: float
    width: float
    height: float
    label: str
    right: bool


@dataclass(frozen=True)
class ShownRow:
    """A row on the page. row: its index in the rows of `Task.panels`. expected, given: what is right, and the answer.

    badness: what the rows are ordered by, the worst first. media: a small image or sound as a `data:` address; core adds the
    row's texts. boxes: drawn on the image.
    """

    row: int
    expected: str
    given: str
    badness: float = 0.0
    media: str | None = None
    boxes: Sequence[Box] = ()


@dataclass(frozen=True)
class RowsPanel(Panel):
    """Rows to look at, such as those with the worst answers; left out with `report.rows=false`. Core adds their texts."""

    rows: Sequence[ShownRow]
