"""Bottleneck adapters: small networks put into a model whose own weights stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Export, Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.adapters import published
from hubtune_plugins.adapters.modeling_hubtune_adapters import insert
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
    config_key = published.KEY
    defaults = {"train.learning_rate": 1e-3}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        reduction = self.options.reduction
        if reduction < 1:
            return f"strategy.reduction is {reduction}, and has to be 1 or more."
        if self.options != AdapterOptions() and isinstance(getattr(config, self.config_key, None), dict):
            return (
                "the model has adapters already, which are trained further as they are; leave out "
                "variant, reduction, nonlinearity and dropout."
            )
        return None

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        self.auto = task.model
        recorded = getattr(getattr(model, "config", None), self.config_key, None)
        if recorded is not None:  # a model of this strategy: its adapters are trained further
            self.recorded = recorded
            inside = published.adapter_parameters(model, recorded)
            learn(model, newly_initialized | inside)
            return model
        chosen = self.options
        widths = places(model, newly_initialized, every=chosen.variant == "houlsby")
        layers = {name: [width, max(1, width // chosen.reduction)] for name, width in widths}
        self.recorded = {
            "model": type(model).__name__,
            "nonlinearity": chosen.nonlinearity,
            "dropout": chosen.dropout,
            "layers": layers,
        }
        learn(model, newly_initialized)
        insert(model, self.recorded)
        return model

    def export(self, model: Any) -> Export:
        return self.with_code(Export(root=model), self.auto, self.recorded)

    @classmethod
    def add_modules(cls, model: Module, recorded: Mapping[str, Any]) -> None:
        insert(model, published.fitted(model, recorded))

    @classmethod
    def with_code(cls, export: Export, auto: str, recorded: Mapping[str, Any]) -> Export:
        return published.with_code(export, auto, recorded)


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Adapters]
