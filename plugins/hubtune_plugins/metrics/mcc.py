"""The Matthews correlation coefficient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubtune import MetricFunction, hookimpl


class Matthews(MetricFunction[Any]):
    """The correlation of right and predicted labels: 1 is perfect, 0 no better than chance, however rare a label is.

    0 where all rows have one label, or all predictions.
    """

    contract = 2
    name = "mcc"
    summary = "Matthews correlation coefficient, for labels of unequal size"

    def compute(self, references: Sequence[int], predictions: Sequence[int], labels: Sequence[str]) -> float:
        from hubtune_plugins.classification.scores import confusion

        table = confusion(references, predictions, len(labels))
        right, given, rows = table.sum(1), table.sum(0), table.sum()
        spread = (rows**2 - (given**2).sum()) * (rows**2 - (right**2).sum())
        return float((table.trace() * rows - right @ given) / spread**0.5) if spread else 0.0


@hookimpl
def hubtune_metrics() -> list[type[MetricFunction[Any]]]:
    return [Matthews]
