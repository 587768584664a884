"""Several examples in one row, so that none of it is padding, where a model keeps them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune import Example, ModelError

if TYPE_CHECKING:
    from torch.nn import Module


def packed(examples: Sequence[Example]) -> tuple[Any, Any]:
    """Inputs and targets of examples in one row, (1, all tokens): positions that start anew tell transformers' masks
    where each begins."""
    import torch

    ids = [token for example in examples for token in example["input_ids"]]
    places = [place for example in examples for place in range(len(example["input_ids"]))]
    labels = [label for example in examples for label in example["labels"]]
    starts = [example["start"] for example in examples]
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([places]), "use_cache": False}
    return inputs, {"labels": torch.tensor([labels]), "starts": torch.tensor(starts)}


def refuse_leaks(model: Module, inputs: Any) -> bool:
    """Refuse to pack where an example's logits change with the one before it; whether there were two to compare."""
    import torch

    starts = [*(inputs["position_ids"][0] == 0).nonzero().flatten().tolist(), inputs["position_ids"].shape[1]]
    if len(starts) < 3:
        return False
    start, end = starts[1:3]

    def logits(first: Any) -> Any:
        part = {name: value[:, first:end] if torch.is_tensor(value) else value for name, value in inputs.items()}
        return model(**part).logits[:, start - first:]

    modes = {module: module.training for module in model.modules()}
    with torch.no_grad(), torch.autocast(inputs["input_ids"].device.type, enabled=False):
        model.eval()
        beside, alone = logits(0), logits(start)
    for module, mode in modes.items():
        module.training = mode
    if float((beside - alone).abs().max()) > 1e-3 * max(1e-3, float(alone.abs().max())):
        raise ModelError("its attention does not tell examples in one row apart.",
                         hint="Train with: --set task.packing=false")
    return True
