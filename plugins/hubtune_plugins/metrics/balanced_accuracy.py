"""Balanced accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubtune import MetricFunction, hookimpl


class BalancedAccuracy(MetricFunction[Any]):
    """The mean over labels of the share of their rows that were found, so that a rare label counts as much as a common one."""

    contract = 2
    name = "balanced_accuracy"
    summary = "mean recall over the labels, for labels of unequal size"

    def compute(self, references: Sequence[int], predictions: Sequence[int], labels: Sequence[str]) -> float:
        from hubtune_plugins.classification.scores import confusion

        table = confusion(references, predictions, len(labels))
        seen = table.sum(1) > 0
        return float((table.diagonal()[seen] / table.sum(1)[seen]).mean())


@hookimpl
def hubtune_metrics() -> list[type[MetricFunction[Any]]]:
    return [BalancedAccuracy]
