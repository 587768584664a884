"""Depth of a model's parameters, for strategies that treat lower and higher layers differently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune import ModelError, Prediction
from hubtune_plugins.layers.learning import owned
from hubtune_plugins.layers.stacks import body

if TYPE_CHECKING:
    from torch.nn import Module


def depths(model: Module, newly_initialized: frozenset[str]) -> Any:
    """Return how far up each parameter is, by name: embeddings 0, the blocks 1 and up, the head one more than the last block.

    What stands between blocks, such as a final norm or a pooler, counts to the block before it.
    """
    from torch.nn import Embedding

    found = body(model, newly_initialized)
    if not found:
        raise ModelError("it is not built of blocks that follow each other, so there is no order of layers to go by.",
                         hint="Tune it whole: --strategy full")
    inside = {parameter: number for number, name in enumerate(found, 1) for parameter in owned(model, name)}
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Embedding)}
    last, known = 0, {}
    for name, _ in model.named_parameters():
        last = inside.get(name, last)
        known[name] = len(found) + 1 if name in newly_initialized else 0 if name in tables and name not in inside else last
    return known


def upper(known: Any, part: Any, parts: Sequence[Prediction]) -> set[Any]:
    """The names of the head's parameters and of those in the topmost `part` of `parts` of the blocks, of `depths`.

    The last part takes the embeddings too, which are at 0.
    """
    head = max(known.values())
    lowest = 0 if part == parts else head - math.ceil((head - 1) * part / parts)
    return {name for name, depth in known.items() if depth >= lowest}
