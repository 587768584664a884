"""The interface of accelerators, which compute a step in less time or memory with the same result.

Results are equal up to rounding. An accelerator is one module with one switch in the recipe. Before
step 0 it decides from facts whether it applies (`Decision`, written to run.json), and then acts in
two contexts only:

- `step()` around a step's forward and backward passes,
- `batch(rows)` around the forward pass of a micro-batch, in training and in validation.

Outside of these, model, torch and thread are unchanged. Both contexts may be nested and entered by
several threads at once. The loop enters `Accelerators`, which composes them, and knows none by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.callbacks import Callbacks
from hubtune.contract import Base, Batch, Strategy, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.devices.device import Compute
from hubtune.recipe import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class AccelerationContext:
    """The facts from which an accelerator decides.

    Attributes:
        model: prepared by the strategy.
        trainable: names of the parameters that are trained in any phase.
        folder: of the run.
        streamed: `train` is a window of a stream.
        sharded: each process holds a shard of the weights.
        features: the folder for features of a frozen backbone; None: in that of the run.
        resumed: accelerators' states in the checkpoint of a resumed run, by name.
    """

    task: Task[Any]
    strategy: Strategy[Any]
    base: Base
    model: Module
    trainable: frozenset[str]
    train: EncodedDataset
    validation: EncodedDataset
    settings: TrainConfig
    compute: Compute
    folder: Path
    processes: int = 1
    streamed: bool = False
    sharded: bool = False
    resumed: Mapping[str, Any] | None = None
    callbacks: Callbacks = Callbacks()
    features: Path | None = None


@dataclass(frozen=True)
class Decision:
    """Decision for or against an accelerator, with the reason."""

    applies: bool
    reason: str


@dataclass(frozen=True)
class BatchRows:
    """The examples of a forward pass.

    Attributes:
        split: train or validation.
        items: their indices in the split, independent of micro-batches and processes.
        step: with the seed and an item, the only source of random numbers.
        is_training: in a step, so that dropout applies.
    """

    split: str
    items: Sequence[int]
    batch: Batch
    step: int = 0
    is_training: bool = False


class Accelerator:
    """Base class of accelerators, which does nothing; a module's `find(context)` creates one.

    Attributes:
        name: its key in run.json and in checkpoints.
    """

    def __init__(self, name: str, decision: Decision) -> None:
        self.name, self.decision = name, decision

    def step(self) -> AbstractContextManager[None]:
        """Return a context around the forward and backward passes of a step."""
        return nullcontext()

    def batch(self, rows: BatchRows) -> AbstractContextManager[None]:
        """Return a context around the forward pass of some examples."""
        return nullcontext()

    def full_weights(self) -> AbstractContextManager[None]:
        """Return a context for access to the weights: validation, checkpoints, the result."""
        return nullcontext()

    def after_step(self, optimizer: Any) -> None:
        """Update after each step of the optimizer."""

    def recover(self, error: Exception, optimizer: Any) -> bool:
        """Return True if the accelerator raised `error` and disabled itself, to repeat the step."""
        return False

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors by name and JSON for a checkpoint."""
        return {}, {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore from the JSON of `state`, before weights and optimizer are restored."""

    def adapt_optimizer(self, optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
        """Adapt the restored state of the optimizer. tensors: of `state` in the checkpoint."""

    def release(self, optimizer: Any = None) -> None:
        """Restore the model as it was found."""

    def report(self) -> dict[str, Any]:
        """Return the entry for run.json."""
        return {"used": self.decision.applies, "reason": self.decision.reason}


class Accelerators:
    """Several accelerators as one: contexts are entered in order and left in reverse."""

    def __init__(self, each: Iterable[Accelerator] = ()) -> None:
        self.each = list(each)

    def enter_all(
        self, enter: Callable[[Accelerator],
                              AbstractContextManager[None]]) -> AbstractContextManager[None]:
        """Return one context of all accelerators."""

        @contextmanager
        def together() -> Iterator[None]:
            with ExitStack() as stack:
                for accelerator in self.each:
                    stack.enter_context(enter(accelerator))
                yield

        return together()

    def step(self) -> AbstractContextManager[None]:
        """Return a context around a step."""
        return self.enter_all(lambda accelerator: accelerator.step())

    def batch(self, rows: BatchRows) -> AbstractContextManager[None]:
        """Return a context around a forward pass."""
        return self.enter_all(lambda accelerator: accelerator.batch(rows))

    def full_weights(self) -> AbstractContextManager[None]:
        """Return a context in which others read or write weights."""
        return self.enter_all(lambda accelerator: accelerator.full_weights())

    def after_step(self, optimizer: Any) -> None:
        """Update after each step of the optimizer."""
        for accelerator in self.each:
            accelerator.after_step(optimizer)

    def recover(self, error: Exception, optimizer: Any) -> bool:
        """Return True if one of them raised `error` and has disabled itself, to repeat the step."""
        return any(accelerator.recover(error, optimizer) for accelerator in self.each)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON of all, by the accelerator's name."""
        found = {accelerator.name: accelerator.state() for accelerator in self.each}
        tensors = {f"{name}.{key}": value for name, (values, _) in found.items()
                   for key, value in values.items()}
        return tensors, {name: plain for name, (_, plain) in found.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore from the JSON of `state`."""
        for accelerator in self.each:
            accelerator.restore(state.get(accelerator.name, {}))

    def adapt_optimizer(self, optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
        """Adapt the restored state of the optimizer."""
        for accelerator in self.each:
            prefix = f"{accelerator.name}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items()
                   if name.startswith(prefix)}
            accelerator.adapt_optimizer(optimizer, own)

    def release(self, optimizer: Any = None) -> None:
        """Restore the model as it was found, even if one of them raises."""
        with ExitStack() as stack:
            for accelerator in self.each:
                stack.callback(accelerator.release, optimizer)

    def report(self) -> dict[str, dict[str, Any]]:
        """Return the entry for run.json, by the accelerator's name."""
        return {accelerator.name: accelerator.report() for accelerator in self.each}
