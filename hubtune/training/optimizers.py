"""The optimizer of a run: the strategy's own, or AdamW with its state in 8 bits."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from hubtune.contract import OptimizerStrategy, Strategy
from hubtune.contract.validation import checked
from hubtune.errors import MissingExtra, RecipeError

if TYPE_CHECKING:
    from torch.optim import Optimizer

IN_8_BITS = "adamw-8bit"


def check_available(name: str, strategy: Strategy[Any]) -> None:
    """Refuse an optimizer that this machine or strategy lacks, before anything is fetched."""
    if name != IN_8_BITS:
        return
    if isinstance(strategy, OptimizerStrategy):
        raise RecipeError(
            f"train.optimizer={name}: the strategy '{strategy.name}' has an optimizer of its own.",
            hint="Leave train.optimizer at adamw.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra(f"train.optimizer={name} needs the package bitsandbytes.",
                           hint="Install it with: pip install 'hubtune[qlora]'")
    import torch

    if not torch.cuda.is_available():
        raise RecipeError(
            f"train.optimizer={name} needs an NVIDIA GPU, but PyTorch sees none.",
            hint="Leave train.optimizer at adamw.")


def make_optimizer(name: str, strategy: Strategy[Any], groups: list[dict[str, Any]],
                   lr: float) -> Optimizer:
    """Create the optimizer of a phase.

    In 8 bits, its state takes a quarter of the memory (Dettmers et al., arXiv:2110.02861).
    """
    if name != IN_8_BITS:
        if isinstance(strategy, OptimizerStrategy):
            return checked(strategy, "optimizer", strategy.optimizer(groups, lr))
        from torch.optim import AdamW

        return AdamW(groups, lr=lr, fused=True)  # Loshchilov and Hutter, arXiv:1711.05101
    found: Optimizer = importlib.import_module("bitsandbytes.optim").AdamW8bit(groups, lr=lr)
    return found
