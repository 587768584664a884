"""Models with modules that a strategy has added: built from what config.json records, by the installed strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune.contract import Export, Strategy
from hubtune.contract.validation import checked
from hubtune.hub import trust
from hubtune.models import compat

if TYPE_CHECKING:
    from torch.nn import Module


def strategy_of(config: Any) -> type[Strategy[Any]] | None:
    """Return the strategy that added modules to the model of a configuration; None for other models."""
    return trust.added_by(vars(config))


def class_of(auto: str, config: Any) -> type[Any] | None:
    """Return transformers' class for a configuration, with the modules that are recorded there; None where none are."""
    known = compat.model_class(auto, config)
    return None if known is None or strategy_of(config) is None else with_modules(known, config)


def with_modules(known: type[Any], config: Any) -> type[Any]:
    """Return a class whose models have the modules that a configuration records; the class itself where none are.

    Weights are loaded into it as into the class itself.
    """
    strategy = strategy_of(config)
    if strategy is None:
        return known

    def begin(self: Module, config: Any, *inputs: Any, **named: Any) -> None:
        known.__init__(self, config, *inputs, **named)
        strategy.add_modules(self, getattr(config, strategy.config_key))

    made: type[Any] = type(known.__name__, (known,), {"__init__": begin, "__module__": known.__module__})
    return made


def with_code(export: Export, auto: str, config: Any) -> Export:
    """Return an export with the code that builds it, where the base model has modules of a strategy.

    config: of the base model.
    """
    strategy = strategy_of(config)
    if strategy is None or export.loads_with != "transformers":
        return export
    made: Export = checked(strategy(), "with_code", strategy.with_code(export, auto, getattr(config, strategy.config_key)))
    return made
