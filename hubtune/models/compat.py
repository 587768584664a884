"""Quirks of the libraries' models, mended where a model is loaded and while it is trained."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.hub.origin import Origin

if TYPE_CHECKING:
    import torch
    from torch.nn import Module


def other_prefix(model: Any, report: Mapping[str, Any]) -> tuple[str, str] | None:
    """What the names of a checkpoint's backbone begin with, and what they should begin with, where that is all that is wrong.

    Some of transformers' own classes call the same backbone otherwise, and it would start from nothing: Llama's for question
    answering says `transformer` for what all others call `model`.
    """
    prefix = f"{model.base_model_prefix}."
    lost = [str(name).removeprefix(prefix) for name in report["missing_keys"] if str(name).startswith(prefix)]
    found = Counter(key.removesuffix(name) for key in map(str, report["unexpected_keys"]) for name in lost if key.endswith(f".{name}"))
    (best, count), *_ = found.most_common(1) or [("", 0)]
    return (best, prefix) if count and count >= 0.5 * len(lost) else None


def renamed(folder: Path, origin: Origin, before: str, after: str) -> dict[str, Any]:
    """The tensors of a checkpoint with another beginning of their names."""
    from safetensors.torch import load_file

    tensors = {name: value for file in origin.weights if file.endswith(".safetensors") for name, value in load_file(folder / file).items()}
    return {after + name.removeprefix(before) if name.startswith(before) else name: value for name, value in tensors.items()}


def exact_batch_norms(model: Module) -> None:
    """Give batch norms their gradient in the order of their inputs.

    torch (2.13, CPU) returns a wrong one for a batch of one whose gradient comes transposed, as where CvT and LeViT make tokens
    of an image; nothing says so.
    """
    import torch

    def ordered(part: Module, given: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]

    for part in model.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.register_forward_hook(ordered)


@contextlib.contextmanager
def without_cache(model: Module) -> Iterator[None]:
    """For a while, what the model keeps for the next token of a text that it writes is not kept: in a step of training there is
    none, and some models change it in place, which their gradient does not survive."""
    configs: dict[int, Any] = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    keeping = [config for config in configs.values() if getattr(config, "use_cache", False)]
    for config in keeping:
        config.use_cache = False
    try:
        yield
    finally:
        for config in keeping:
            config.use_cache = True
