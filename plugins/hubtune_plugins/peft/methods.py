"""Any method of the installed PEFT by its name, with the options that PEFT gives it."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import importlib
import importlib.util
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hubtune import MissingExtra, RecipeError, Strategy, hookimpl, option

SET_HERE = {
    "target_modules",
    "modules_to_save",
    "fan_in_fan_out",
    "feedforward_modules",
    "num_layers",
    "num_attention_heads",
    "token_dim",
    "num_transformer_submodules",
    "total_step",
    "tokenizer_name_or_path",
    "tokenizer_kwargs",
}
"""Fields of PEFT's configurations that follow from the model or the run."""
RATES = {
    "adalora": 3e-3,
    "ia3": 1e-2,
    "lora": 4e-4,
    "prefix_tuning": 5e-3,
    "cartridge": 5e-3,
    "prompt_tuning": 1e-2,
    "p_tuning": 1e-2,
}
"""Learning rates that suit a method; the others take that of `Peft`."""
SMALL: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 8},
    "miss": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "trainable_tokens": {"token_indices": [5, 6, 7, 8, 9]},
    "vblora": {"vector_length": 8, "num_vectors": 16},
    "waveft": {"n_frequency": 32},
    "fourierft": {"n_frequency": 32},
}
"""Options that suit the tiny models of the conformance matrix, where PEFT's defaults do not."""
WITHOUT_EFFECT = {
    "layers_to_transform",
    "layers_pattern",
    "megatron_config",
    "megatron_core",
    "runtime_config",
    "progressbar",
}
"""Fields that do nothing here. Layers are targeted by full name, for which PEFT does not look at
`layers_to_transform`; `targets` says the same."""


def import_bitsandbytes() -> None:
    """Import bitsandbytes, where it is installed, before PEFT does: without its advice to install
    compiled kernels."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        importlib.import_module("bitsandbytes")
    finally:
        logger.setLevel(level)


def methods() -> tuple[str, ...]:
    """Return the methods of the installed PEFT, by PEFT's names in lower case."""
    import_bitsandbytes()
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return tuple(sorted(kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING))


def config_class(method: str) -> Any:
    """Return PEFT's configuration class of a method."""
    import_bitsandbytes()
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method.upper())]


def is_prompt_method(method: str) -> bool:
    """Return whether a method learns states before the text, rather than adapting layers."""
    from peft import PromptLearningConfig

    return issubclass(config_class(method), PromptLearningConfig)


def fields_of(method: str) -> set[str]:
    """Return the names of the fields of a method's configuration."""
    return {item.name for item in dataclasses.fields(config_class(method))}


@functools.cache
def options_of(method: str, common: type[Any]) -> type[Any]:
    """Make a dataclass of the options of a method, with PEFT's types, defaults and help.

    Args:
        method: The method's name.
        common: A dataclass of the options that every method has; they come first.
    """
    from peft import PeftConfig

    kind = config_class(method)
    hints = typing.get_type_hints(kind)
    inherited = {item.name for item in dataclasses.fields(PeftConfig)}
    shared = {item.name for item in dataclasses.fields(common)}
    made: list[tuple[str, Any, Any]] = [
        (item.name, recipe_type(hints[item.name]), option_for(item))
        for item in dataclasses.fields(kind)
        if item.init and item.name not in inherited | shared | SET_HERE | WITHOUT_EFFECT
    ]
    return dataclasses.make_dataclass(f"{kind.__name__}Options", made, bases=(common,), frozen=True)


def option_for(item: dataclasses.Field[Any]) -> Any:
    """Turn a field of PEFT's configuration into an option."""
    default = (
        item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    )
    default = default.value if isinstance(default, enum.Enum) else default
    help = " ".join(str(item.metadata.get("help", "an option of PEFT's")).split())
    return option(default, help)


def recipe_type(hint: Any) -> Any:
    """Turn a type hint of PEFT's into one for recipes: str in the place of enumerations and open
    sets of literals."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return str
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return str if any("[" in str(value) for value in arguments) else hint
    if typing.get_origin(hint) is typing.Union:
        if dict in arguments:  # PEFT takes a table where it takes a dataclass
            arguments = tuple(part for part in arguments if not dataclasses.is_dataclass(part))
        return typing.Union[(*(recipe_type(part) for part in arguments), type(None))]
    # PEFT's defaults are None where its hints forget it.
    return typing.Union[hint, None]  # noqa: UP007


def changed_options(options: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    plain = type(options)()
    return {item.name: value for item in dataclasses.fields(options)
            if (value := getattr(options, item.name)) != getattr(plain, item.name)}


def find_method(values: Mapping[str, Any], default: str) -> str:
    """Return the method that a recipe names, in PEFT's spelling.

    Raises:
        RecipeError: PEFT has no method of that name.
    """
    named, known = values.get("method", default), methods()
    method = str(named).lower().replace("-", "_")
    if method not in known:
        near = difflib.get_close_matches(method, known, 1)
        raise RecipeError(
            f"strategy.method is one of PEFT's methods, not {named!r}."
            f"{f' Did you mean {near[0]!r}?' if near else ''} Methods: {', '.join(known)}."
        )
    return method


@dataclass(frozen=True)
class PeftOptions:
    method: str = option(
        "lora", "a method of PEFT by its name, such as oft, vera, loha, fourierft or ln_tuning"
    )
    targets: list[str] = option(
        [], "only layers whose name ends in one of these; empty: all that the method adapts"
    )


class Peft(Strategy[Any]):
    """Any method that the installed PEFT has, with the method's own options; published merged where
    PEFT can merge it."""

    contract = 2
    name = "peft"
    summary = "any method of PEFT by its name, with its own options"
    paper = ("Mangrulkar et al., PEFT: State-of-the-art Parameter-Efficient Fine-Tuning, "
             "github.com/huggingface/peft")
    requires = ("peft",)
    extra = "hubtune[peft]"
    Options: ClassVar[type] = PeftOptions
    defaults = {"train.learning_rate": 1e-3}

    @classmethod
    def for_options(cls, values: Mapping[str, Any]) -> type[Strategy[Any]]:
        if values.get("init_lora_weights") == "corda" and importlib.util.find_spec("attr") is None:
            raise MissingExtra(
                "PEFT's start of LoRA by CorDA needs attrs. Install it with: pip install attrs"
            )
        return strategy_of(find_method(values, PeftOptions.method))

    @classmethod
    def variants(cls) -> Mapping[str, Mapping[str, Any]]:
        starts = {
            f"lora+{start}": {"method": "lora", "init_lora_weights": start}
            for start in ("corda", "eva", "lora_ga", "pissa")
        }
        return {
            method: {"method": method, **SMALL.get(method, {})} for method in methods()
        } | starts


@functools.cache
def strategy_of(method: str) -> type[Strategy[Any]]:
    """Make the strategy of one of PEFT's methods: a `Peft` that works as the named strategies
    do."""
    from hubtune_plugins.peft.adalora import AdaLora
    from hubtune_plugins.peft.ia3 import Ia3
    from hubtune_plugins.peft.layer_method import LayerMethod
    from hubtune_plugins.peft.lora import Lora
    from hubtune_plugins.peft.prefix_tuning import PrefixTuning
    from hubtune_plugins.peft.prompt_tuning import PromptTuning

    named = {
        "adalora": AdaLora,
        "cartridge": PrefixTuning,
        "ia3": Ia3,
        "lora": Lora,
        "prefix_tuning": PrefixTuning,
    }
    base: Any = named.get(method, PromptTuning if is_prompt_method(method) else LayerMethod)
    tokens = {"num_virtual_tokens": 20} if is_prompt_method(method) else {}

    def settings(self: Strategy[Any]) -> dict[str, Any]:
        return tokens | {
            name: value
            for name, value in changed_options(self.options).items()
            if name not in ("method", "targets")
        }

    return type(
        "Peft",
        (base, Peft),
        {
            "__doc__": Peft.__doc__,
            "__module__": __name__,
            "name": Peft.name,
            "summary": Peft.summary,
            "paper": Peft.paper,
            "Options": options_of(method, PeftOptions),
            "method": method,
            "settings": settings,
            "defaults": {
                "train.learning_rate": RATES.get(method, Peft.defaults["train.learning_rate"])
            },
        },
    )


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Peft]
