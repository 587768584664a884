"""Bottleneck adapters: small networks put into a model whose own weights stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Export, Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.adapters.modeling_hubtune_adapters import insert
from hubtune_plugins.adapters.published import export_with_code
from hubtune_plugins.adapters.structure import places
from hubtune_plugins.layers.learning import learn

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class AdapterOptions:
    variant: str = option(
        "pfeiffer",
        "where: after each feed-forward, or (houlsby) after each attention too",
        choices=("pfeiffer", "houlsby"),
    )
    reduction: int = option(16, "a layer's width is this many times its adapter's")
    nonlinearity: str = option("gelu", "between down and up", choices=("gelu", "relu", "silu"))
    dropout: float = option(0.0, "dropout in the adapter")


class Adapters(Strategy[AdapterOptions]):
    """Small bottlenecks after the layers that write to the residual stream, with the head trained
    whole.

    They cannot be merged into plain weights: the model is published with the code that puts them
    in.
    """

    contract = 2
    name = "adapters"
    summary = "bottlenecks inside a frozen model (Houlsby, Pfeiffer)"
    paper = (
        "Houlsby et al., Parameter-Efficient Transfer Learning for NLP, arXiv:1902.00751; "
        "Pfeiffer et al., "
        "AdapterFusion, arXiv:2005.00247"
    )
    Options = AdapterOptions
    loads_with = "code"
    defaults = {"train.learning_rate": 1e-3}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        reduction = self.options.reduction
        return (
            None
            if reduction >= 1
            else f"strategy.reduction is {reduction}, and has to be 1 or more."
        )

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        chosen = self.options
        widths = places(model, newly_initialized, every=chosen.variant == "houlsby")
        layers = {name: [width, max(1, width // chosen.reduction)] for name, width in widths}
        self.auto = task.model
        self.said = {
            "model": type(model).__name__,
            "nonlinearity": chosen.nonlinearity,
            "dropout": chosen.dropout,
            "layers": layers,
        }
        learn(model, newly_initialized)
        insert(model, self.said)
        return model

    def export(self, model: Any) -> Export:
        return export_with_code(model, self.auto, self.said)


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Adapters]
