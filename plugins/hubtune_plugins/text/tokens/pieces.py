"""Tasks with something to find at some pieces of a text, such as the tag of a word or the piece that was hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune import Batch, Loss, exact
from hubtune_plugins.tokenization.texts import TextTask

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The target where nothing is to be found, as in transformers."""


class PieceTask(TextTask):
    """A task whose model gives each piece a number per class; `batch.targets` (examples, longest) holds the right ones."""

    def logits(self, outputs: Any, batch: Batch) -> Any:
        """(examples, longest, classes); a method with a prompt puts it before them."""
        return outputs.logits[:, -batch.inputs["input_ids"].shape[1]:]

    def asked_logits(self, outputs: Any, batch: Batch) -> Tensor:
        """(targets, classes)."""
        asked: Tensor = self.logits(outputs, batch)[batch.targets != IGNORED]
        return asked  # only these become fp32: a vocabulary is large

    def asked_targets(self, batch: Batch) -> Tensor:
        """(targets,)."""
        asked: Tensor = batch.targets[batch.targets != IGNORED]
        return asked

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        from torch.nn.functional import cross_entropy

        logits = exact(self.asked_logits(outputs, batch))
        return Loss(cross_entropy(logits, self.asked_targets(batch), reduction="sum"))


def piece_batch(inputs: Any, targets: Any, size: int) -> Batch:
    """A batch whose loss counts the pieces that have a target."""
    counts = {} if targets is None else {"loss": float((targets != IGNORED).sum())}
    return Batch(inputs, targets, size, counts)


def piece_targets(inputs: Any, lists: Any) -> Any:
    """A target for each piece of each example, as (examples, longest), with nothing to find in the padding."""
    import torch

    targets = torch.full_like(inputs["input_ids"], IGNORED)
    targets[inputs["attention_mask"].bool()] = torch.tensor([target for row in lists for target in row])
    return targets
