"""Compose all accelerators of a training."""

from __future__ import annotations

from hubtune.acceleration import embedding_pruning, feature_cache, training_kernels
from hubtune.acceleration.interface import AccelerationContext, Accelerators

ALL = (training_kernels, embedding_pruning, feature_cache)
"""Modules of accelerators, each with a function `find(context)`."""


def find(context: AccelerationContext) -> Accelerators:
    """Decide which accelerators apply to a training."""
    return Accelerators(module.find(context) for module in ALL)
