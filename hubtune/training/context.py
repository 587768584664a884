"""What a training is given, as plain values: for the loop, and for all that looks at how it can be computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, Rows, Strategy, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.data.streaming import StreamWindows
from hubtune.devices.device import Compute
from hubtune.recipe import TrainConfig

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass
class TrainingContext:
    """All that the loop needs, as plain values."""

    task: Task[Any]
    strategy: Strategy[Any]
    base: Base
    model: Module
    newly_initialized: frozenset[str]
    train: EncodedDataset
    validation: EncodedDataset
    validation_rows: Rows
    settings: TrainConfig
    compute: Compute
    folder: Path
    resume: bool = False
    windows: StreamWindows | None = None
    """Of a stream: what `train` is a window of."""
    shard: bool = False

    @property
    def may_recompute(self) -> bool:
        """True if activations are kept so far, and may be recomputed where memory is short."""
        return not self.compute.recompute and self.settings.gradient_checkpointing != "off"
