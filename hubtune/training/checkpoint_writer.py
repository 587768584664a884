"""Saving while training goes on: the loop waits for a copy in memory, a thread for the disk. Knows no model and no loop."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from hubtune import files
from hubtune.devices import sharding
from hubtune.errors import TrainingError
from hubtune.training import checkpoint
from hubtune.training.checkpoint import Checkpoint

Groups = Mapping[str, Mapping[str, Tensor]]
Likeness = tuple[torch.Size, torch.dtype, bool]
"""What a buffer must be like: shape, type, and whether it is pinned, for copies from a GPU."""


class Saver:
    """Writes the checkpoints of a run, one after another, in a thread of its own, from buffers that are made once.

    What goes wrong in the thread is raised by the next `save`, `reserve` or `wait`.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.buffers: dict[tuple[str, str], Tensor] = {}
        self.thread = ThreadPoolExecutor(1, "hubtune-saver")
        self.pending: Future[None] | None = None

    def reserve(self, groups: Groups) -> None:
        """Make the buffers for such tensors ahead of the first save: memory is slow when it is touched for the first time."""
        self.wait()
        self.pending = self.thread.submit(self.allocate, likeness(groups))

    def save(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Copy checkpoints, and begin to write them in their order. A group of tensors is the same in all that have it."""
        self.wait()
        groups = {group: tensors for found in checkpoints.values() for group, tensors in found.tensors.items()}
        copies = self.snapshot(groups)
        self.pending = self.thread.submit(self.write, {
            name: Checkpoint({group: copies[group] for group in found.tensors}, json.loads(json.dumps(found.state)))
            for name, found in checkpoints.items()
        })

    def wait(self) -> None:
        """Until all is on the disk."""
        pending, self.pending = self.pending, None
        try:
            if pending:
                pending.result()
        except OSError as error:
            raise TrainingError(
                f"a checkpoint could not be written: {error.strerror or error}.", where=str(self.folder),
                hint=f"Then go on from the one before it: hubtune train --resume {shlex.quote(str(self.folder.parent))}",
            ) from error

    def free(self) -> None:
        """Wait until all is on the disk, and free the buffers."""
        self.wait()
        self.buffers.clear()

    def close(self) -> None:
        """Let what is being written become whole, and end the thread; raises nothing."""
        self.thread.shutdown()

    def allocate(self, wanted: Mapping[tuple[str, str], Likeness]) -> None:
        """Have exactly such buffers. To be done while nothing is written."""
        self.buffers = {key: buffer for key, buffer in self.buffers.items() if wanted.get(key) == like(buffer, buffer.is_pinned())}
        for key, (shape, dtype, pinned) in wanted.items():
            if key not in self.buffers:
                self.buffers[key] = torch.empty(shape, dtype=dtype, pin_memory=pinned).zero_()

    def snapshot(self, groups: Groups) -> dict[str, dict[str, Tensor]]:
        """The tensors as they are now."""
        self.allocate(likeness(groups))
        pinned = False
        for group, tensors in groups.items():
            for name, value in tensors.items():
                self.buffers[group, name].copy_(sharding.full_tensor(value.detach()), non_blocking=value.is_cuda)
                pinned |= value.is_cuda
        if pinned:
            torch.cuda.synchronize()
        return {group: {name: self.buffers[group, name] for name in tensors} for group, tensors in groups.items()}

    def write(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """In the thread: the log up to here, then the checkpoints, then away with old ones."""
        files.flush(self.log)
        for name, found in checkpoints.items():
            checkpoint.write(self.folder, name, found)
        checkpoint.prune(self.folder)


def likeness(groups: Groups) -> dict[tuple[str, str], Likeness]:
    """What the buffers for tensors must be like."""
    return {(group, name): like(value, value.is_cuda) for group, tensors in groups.items() for name, value in tensors.items()}


def like(tensor: Tensor, pinned: bool) -> Likeness:
    """What a tensor is like."""
    return tensor.shape, tensor.dtype, pinned
