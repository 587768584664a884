"""Asynchronous checkpoints: a thread writes them while the next step computes its gradients."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor
from torch.nn import Parameter

from hubtune import files
from hubtune.devices import sharding
from hubtune.errors import TrainingError
from hubtune.training import checkpoint
from hubtune.training.checkpoint import Checkpoint

Groups = Mapping[str, Mapping[str, Tensor]]
OPTIMIZER = "optimizer"
"""The group of the optimizer's state, which changes only in an optimizer step, as parameters do."""


class Saver:
    """Writes checkpoints one after another in a thread.

    On a CPU the parameters and the optimizer's state are not copied: the thread reads them while
    the next step computes its gradients. `wait_until_read` must come before anything that changes
    them. Errors in the thread are raised by the next `save` or `wait`.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.thread = ThreadPoolExecutor(1, "hubtune-saver")
        self.pending: Future[None] | None = None
        self.read = threading.Event()
        self.read.set()

    def save(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Start to write checkpoints, in order.

        Groups with the same name are shared.
        """
        self.wait()
        kept = snapshot({group: tensors for found in checkpoints.values()
                         for group, tensors in found.tensors.items()})
        asked = {}
        for name, found in checkpoints.items():
            state = json.loads(json.dumps(found.state))
            asked[name] = Checkpoint({group: kept[group] for group in found.tensors}, state)
        self.read.clear()
        self.pending = self.thread.submit(self.write, asked)

    def wait_until_read(self) -> None:
        """Wait until parameters and the optimizer's state may change."""
        self.read.wait()

    def wait(self) -> None:
        """Wait until everything is on disk."""
        pending, self.pending = self.pending, None
        try:
            if pending:
                pending.result()
        except OSError as error:
            raise TrainingError(
                f"a checkpoint could not be written: {error.strerror or error}.",
                where=str(self.folder),
                hint="Resume from the one before: hubtune train --resume "
                f"{shlex.quote(str(self.folder.parent))}",
            ) from error

    def close(self) -> None:
        """Finish the current write and end the thread; raises nothing."""
        self.thread.shutdown()

    def write(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Write, in the thread, the log and then the checkpoints, and prune old ones.

        All files are written before the first waits for the disk, which may be slow.
        """
        staged: dict[str, Path] = {}
        try:
            try:
                files.flush(self.log)
                for name, found in checkpoints.items():
                    staged[name] = checkpoint.stage(self.folder, name, found)
            finally:
                self.read.set()
            for name, aside in staged.items():
                checkpoint.commit(self.folder, name, aside)
        except BaseException:
            # Where the disk is full, these are in the way of everything else.
            for aside in staged.values():
                shutil.rmtree(aside, ignore_errors=True)
            raise
        checkpoint.prune(self.folder)


def snapshot(groups: Groups) -> dict[str, dict[str, Tensor]]:
    """Return tensors that keep their values until the next optimizer step.

    Parameters and the optimizer's state of a CPU are not copied. The rest is, since a forward pass
    may change buffers; what is sharded or on a GPU is gathered in this process's memory.
    """
    return {group: {name: stable(value, group) for name, value in tensors.items()}
            for group, tensors in groups.items()}


def stable(value: Tensor, group: str) -> Tensor:
    """Return a tensor of the CPU that keeps its values until the next optimizer step."""
    whole = sharding.full_tensor(value.detach()).cpu()
    changes_in_steps_only = group == OPTIMIZER or isinstance(value, Parameter)
    return whole if changes_in_steps_only else whole.clone()
