"""Losses and probabilities in a format that keeps small differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """A tensor of whatever shape in fp32 at least: a model may answer in half precision, fp64 stays as it is."""
    import torch

    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
