"""The training context: everything that a training needs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hubtune.callbacks import Callbacks
from hubtune.contract import Base, Rows, Strategy, Task
from hubtune.data.dataset import EncodedDataset
from hubtune.data.streaming import StreamWindows
from hubtune.devices.device import Compute
from hubtune.recipe import TrainConfig

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.acceleration.interface import AccelerationContext


@dataclass
class TrainingContext:
    """Task, strategy, model, data and settings of a training, and how it is computed.

    Attributes:
        windows: of streamed data; `train` is one of them.
        shard: each process holds a shard of the weights.
        row_numbers: the row in the data, from 0, of each row of train; None: the same.
        features: the folder for features of a frozen backbone; None: in the run's folder.
        checkpoints: False: none are written, for a training that is not resumed.
    """

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
    shard: bool = False
    row_numbers: Sequence[int] | NDArray[np.int64] | None = None
    features: Path | None = None
    checkpoints: bool = True

    @property
    def may_recompute(self) -> bool:
        """True if activations are not recomputed yet, but may be where memory is short."""
        return not self.compute.recompute and self.settings.gradient_checkpointing != "off"

    def for_acceleration(self, module: Module, trainable: frozenset[str], processes: int,
                         callbacks: Callbacks,
                         resumed: Mapping[str, Any] | None) -> AccelerationContext:
        """Return the context for accelerators.

        Args:
            module: prepared by the strategy.
            trainable: names of the parameters that are trained in any phase.
        """
        from hubtune.acceleration.interface import AccelerationContext

        return AccelerationContext(self.task, self.strategy, self.base, module, trainable,
                                   self.train, self.validation, self.settings, self.compute,
                                   self.folder, processes, self.windows is not None, self.shard,
                                   resumed, callbacks, self.features)
