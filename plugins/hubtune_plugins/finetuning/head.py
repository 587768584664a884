"""The linear probe: only the head learns, on features that stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune import Plan, Strategy, Task, hookimpl
from hubtune_plugins.finetuning.heads import HeadFirst
from hubtune_plugins.layers.learning import learn

if TYPE_CHECKING:
    from torch.nn import Module


class Head(HeadFirst):
    """Only the new head learns, on the features of the pretrained model: fast, and small in memory."""

    name = "head"
    summary = "only the head learns (linear probe)"
    paper = "Alain and Bengio, Understanding intermediate layers using linear classifier probes, arXiv:1610.01644"
    defaults = {"train.learning_rate": 1e-3, "train.epochs": 20.0, "train.weight_decay": 0.0}

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        model = super().prepare(model, newly_initialized, task, plan)
        learn(model, newly_initialized)
        return model


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Head]
