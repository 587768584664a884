"""A task, a tiny model that fits it and a few rows, set up as a run sets them up: what the kit's checks stand on."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.contract import (
    Base,
    Batch,
    Example,
    ExampleRNG,
    GenerativeTask,
    Loss,
    Plugin,
    Prediction,
    ReferenceTask,
    Strategy,
    Task,
    registry,
)
from hubtune.contract.validation import checked, loss_terms
from hubtune.data import encoding
from hubtune.data.dataset import EncodedDataset
from hubtune.errors import ModelError
from hubtune.evaluation import model_checks
from hubtune.evaluation.batches import make_batch
from hubtune.evaluation.inference import Predictor, add_reference_outputs
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading

if TYPE_CHECKING:
    from torch.nn import Module

ROWS = 16
"""Rows that `sample` is asked for."""


class Failed(AssertionError):
    """A check that failed: what is wrong, and what to look at."""


def ensure(fine: object, wrong: str, look: str) -> None:
    """Raise Failed unless it is fine."""
    if not fine:
        raise Failed(f"{wrong}\nLook at: {look}")


@contextlib.contextmanager
def registered(*kinds: type[Plugin[Any]]) -> Iterator[None]:
    """Let runs in this process find these classes under their names, whether or not they are installed."""
    original = registry.load

    def load(hook: str | None = None) -> registry.Registry:
        plugins = original(hook)
        for kind in kinds:
            plugins.put(kind)
        return plugins

    registry.load = load
    try:
        yield
    finally:
        registry.load = original


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Without what libraries say to each other's authors, as `hubtune` itself runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        configuration.silence_transformers()
        yield


@dataclass
class Bench:
    """`validate_data`, `model_config` and `encode` done, on rows with targets; the model is loaded when it is asked for."""

    task: Task[Any]
    folder: Path
    rows: Sequence[Mapping[str, Any]]

    @calm()
    def __post_init__(self) -> None:
        self.origin = local_origin(self.folder)
        self.dataset_info = json.loads(json.dumps(checked(self.task, "validate_data", self.task.validate_data({"train": self.rows, "validation": self.rows}))))
        self.task = configuration.task_for_model(self.origin, self.task)
        opened = configuration.open_base(self.origin, self.task)
        reason = configuration.unsupported_reason(opened.config, self.task)
        if reason:
            raise ModelError(f"the task '{self.task.name}' does not fit: {reason}.", where=self.origin.repo)
        base = configuration.apply_setup(opened, checked(self.task, "model_config", self.task.model_config(self.dataset_info, opened)))
        shape = loading.meta_model(base, self.task)
        self.base = replace(base, max_length=configuration.length_limit(base, shape))
        self.encoded = encoding.encode(self.task, self.rows, self.base, self.base.max_length)

    @cached_property
    def own(self) -> Base:
        """The base as a copy, for those who may change its configuration."""
        return replace(self.base, config=deepcopy(self.base.config))

    @cached_property
    def model(self) -> Module:
        """The untrained model in evaluation mode: in fp64 where the task computes in it, else in fp32."""
        import torch

        model = deepcopy(self.plain)
        self.exact = True
        try:
            self.losses(model.double(), self.whole)
        except (RuntimeError, TypeError) as error:
            if "ouble" not in str(error) and "dtype" not in str(error) and "Float" not in str(error):
                raise
            self.exact = False
            model = model.to(torch.float32)
        return model

    def fresh_model(self, strategy: Strategy[Any]) -> loading.Loaded:
        """The model as it is before training, with fp32 weights."""
        return loading.load(self.origin, self.own, self.task, strategy, seed=0)

    @cached_property
    def plain(self) -> Module:
        """The untrained model with fp32 weights, in evaluation mode."""
        return self.fresh_model(Strategy()).model.eval()

    @cached_property
    def annotated(self) -> EncodedDataset:
        """The examples of all rows, with what a frozen reference says of them where the task wants one."""
        if not isinstance(self.task, ReferenceTask):
            return self.encoded
        return add_reference_outputs(self.plain, self.task, self.base, self.encoded, uniform=True)

    @property
    def examples(self) -> list[Example]:
        """The examples of all rows, in order."""
        return list(self.annotated.examples)

    @cached_property
    def uniform(self) -> bool:
        """True if only examples of one size may share a batch, since the model's answers change with padding."""
        return model_checks.depends_on_padding(self.plain, self.task, self.base, self.annotated)

    def part(self, rows: int) -> EncodedDataset:
        """The examples of the first rows."""
        return self.annotated.select_rows(range(min(rows, self.annotated.rows)))

    @property
    def whole(self) -> list[int]:
        """The numbers of all examples."""
        return list(range(len(self.encoded.examples)))

    def order(self) -> list[int]:
        """The numbers of all examples, the shortest first."""
        return [int(index) for index in self.encoded.sizes.argsort(kind="stable")]

    def rngs(self, items: Sequence[int], epoch: int = 0) -> list[ExampleRNG]:
        """The randomness of examples, as the engine hands it out: by row."""
        return [self.encoded.example_rng(0, epoch, item) for item in items]

    def batch(self, items: Sequence[int], model: Module | None = None, rngs: bool = False) -> Batch:
        """The examples of these numbers as a batch for a model."""
        chosen = [self.examples[item] for item in items]
        drawn = self.rngs(items) if rngs else None
        return make_batch(model or self.model, self.task, chosen, self.base, drawn)

    def losses(self, model: Module, items: Sequence[int], rngs: bool = True) -> dict[str, Loss]:
        """The loss terms of examples, by name."""
        batch = self.batch(items, model, rngs)
        with no_grad():
            return {term.name: term for term in loss_terms(self.task, self.task.forward(model, batch), batch)}

    def judged(self, items: Sequence[int]) -> list[Prediction]:
        """Return what `postprocess` says of examples, in one batch."""
        batch = self.batch(items)
        with no_grad():
            return checked(self.task, "postprocess", self.task.postprocess(self.task.forward(self.model, batch), batch, self.base))

    def predicted(self, items: Sequence[int]) -> list[Prediction]:
        """Return what `predict` says of examples, in one batch."""
        if not isinstance(self.task, GenerativeTask):
            return self.judged(items)
        with no_grad():
            return checked(self.task, "predict", self.task.predict(self.model, self.batch(items), self.base))

    @property
    def generates(self) -> bool:
        """True if the task answers by generation."""
        return isinstance(self.task, GenerativeTask)

    def answers(self, real: bool = True) -> list[Prediction]:
        """Predict every row with the untrained model. real: also by generation."""
        predictor = Predictor(self.plain, self.task, self.base, uniform=True)
        if real:
            return predictor.predict(self.rows, self.annotated)
        return predictor.validate(self.rows, self.annotated).predictions


def no_grad() -> Any:
    """Without gradients; torch is imported here."""
    import torch

    return torch.no_grad()


def same_tensors(one: Any, other: Any) -> bool:
    """Return whether two nested values hold the same tensors, bit for bit, and equal other values."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(
            same_tensors(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_tensors, one, other))
    return bool(one == other)
