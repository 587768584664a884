"""Layer-wise learning rates: the nearer a layer is to the inputs, the less it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.finetuning.depths import depths
from hubtune_plugins.finetuning.full import Full

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class LayerwiseOptions:
    decay: float = option(0.9, "a layer's learning rate, as a part of that of the layer above it",
                          search=(0.6, 1.0))
    head_rate: float = option(10.0, "the head's learning rate, in multiples of the topmost layer's")


class Layerwise(Full):
    """Every weight learns, lower layers more slowly: what they know is general. The embeddings are the slowest."""

    name = "layerwise"
    summary = "every weight learns, lower layers more slowly"
    paper = ("Howard and Ruder, arXiv:1801.06146 (discriminative fine-tuning); the decay by depth as in Clark et al., "
             "ELECTRA, arXiv:2003.10555")
    Options = LayerwiseOptions
    defaults = {"train.learning_rate": 5e-5}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        if 0 < self.options.decay <= 1:
            return None
        return f"strategy.decay is {self.options.decay}, and has to lie above 0 and not above 1."

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        self.depths = depths(model, newly_initialized)
        self.top = max((depth for name, depth in self.depths.items() if name not in newly_initialized), default=0)
        return super().prepare(model, newly_initialized, task, plan)

    def rate(self, name: str) -> Any:
        return self.options.head_rate if name in self.newly_initialized else self.options.decay ** (self.top - self.depths[name])


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Layerwise]
