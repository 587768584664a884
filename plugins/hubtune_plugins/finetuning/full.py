"""Full fine-tuning: every weight learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune import Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.finetuning.rates import rated

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class FullOptions:
    head_rate: float = option(10.0, "the head's learning rate, in multiples of the pretrained weights'",
                              search=(1.0, 30.0, "log"))


class Full(Strategy[Any]):
    """Every weight of the model learns, the new head faster than what is pretrained."""

    contract = 2
    name = "full"
    summary = "every weight learns"
    paper = "Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, arXiv:1801.06146"
    Options: ClassVar[type] = FullOptions
    defaults = {"train.learning_rate": 4e-5}

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        self.newly_initialized = newly_initialized
        return model

    def rate(self, name: str) -> Any:
        """Return what multiplies the run's learning rate for a parameter, by its full name."""
        return self.options.head_rate if name in self.newly_initialized else 1.0

    def param_groups(self, model: Module, weight_decay: float) -> list[dict[str, Any]]:
        """The default groups, each split by rate."""
        return rated(super().param_groups(model, weight_decay), model, self.rate)


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Full]
