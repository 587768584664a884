"""The linear probe: only the head learns, on features that stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune import Plan, Strategy, Task, hookimpl
from hubtune_plugins.finetuning.heads import ScaledHead
from hubtune_plugins.layers.learning import learn

if TYPE_CHECKING:
    from torch.nn import Module


class Head(ScaledHead):
    """Only the new head learns, on the features of the pretrained model: fast, and small in memory."""

    name = "head"
    summary = "only the head learns (linear probe)"
    paper = "Alain and Bengio, Understanding intermediate layers using linear classifier probes, arXiv:1610.01644"
    # The loss is convex in a linear head, so the weights at the end are best; a few validation rows would choose by chance.
    defaults = {"train.learning_rate": 3e-3, "train.epochs": 20.0, "train.keep": "last", "train.early_stopping_patience": 0}

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        model = super().prepare(model, newly_initialized, task, plan)
        learn(model, newly_initialized)
        return model

    def param_groups(self, model: Module, weight_decay: float) -> list[dict[str, Any]]:
        return self.scaled_groups(super().param_groups(model, weight_decay), model)


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Head]
