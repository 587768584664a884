"""Prefix tuning: learnt keys and values before those of the text, in every layer of a frozen
model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from hubtune import Strategy, hookimpl, option
from hubtune_plugins.peft.methods import fields_of
from hubtune_plugins.peft.prompt_trial import accepts, cache_shape, keeps_running_state
from hubtune_plugins.peft.prompts import PromptMethod

GENERATING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
"""Forms in which PEFT hands the prefix on without looking for the name of the argument."""


@dataclass(frozen=True)
class PrefixOptions:
    tokens: int = option(20, "learnt positions before the text")
    projection: bool = option(
        False, "learn them through a small network, as in the paper; it is not published"
    )


class PrefixTuning(PromptMethod):
    """Learnt keys and values in every layer, with the head trained whole; published as a PEFT
    adapter."""

    name = "prefix-tuning"
    summary = "learnt keys and values before the text, in every layer"
    paper = ("Li and Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, "
             "arXiv:2101.00190")
    Options = PrefixOptions
    defaults = {"train.learning_rate": 5e-3, "train.weight_decay": 0.0}
    method = "prefix_tuning"
    submodules = MappingProxyType({"SEQ_2_SEQ_LM": 2})

    def architecture_refusal(
        self, model: type[Any] | None, body: type[Any] | None, form: str, config: Any
    ) -> str | None:
        own = accepts(model, "past_key_values") or (form in GENERATING and accepts(model, "cache"))
        if getattr(config, "is_encoder_decoder", False) and form != "SEQ_2_SEQ_LM" and not own:
            return "PEFT puts a prefix into an encoder-decoder only where it generates text."
        if not own and accepts(body, "cache") and not accepts(body, "past_key_values"):
            return (
                f"PEFT {version('peft')} does not know what transformers {version('transformers')} "
                "calls past keys and values here; "
                "until it does: pip install 'transformers<5.24'"
            )
        if not (own or (accepts(model, "on") and accepts(body, "past_key_values"))):
            return ("a prefix is made of past keys and values, and "
                    f"'{config.model_type}' models take none.")
        if getattr(config.get_text_config(), "kv_lora_rank", None):
            return (
                f"'{config.model_type}' models keep keys and values compressed, in a form that no "
                "prefix of PEFT's has."
            )
        if keeps_running_state(config):
            return (
                f"'{config.model_type}' models have layers that keep a running state in the place "
                "of keys and values."
            )
        return None

    def settings(self) -> dict[str, Any]:
        return {
            "num_virtual_tokens": self.options.tokens,
            "prefix_projection": self.options.projection,
        }

    def measured_settings(self, model: Any, form: str) -> dict[str, Any]:
        layers, heads, width = cache_shape(model, form)
        hidden = (
            {"encoder_hidden_size": heads * width}
            if "encoder_hidden_size" in fields_of(self.method)
            else {}
        )
        return {
            "num_layers": layers,
            "num_attention_heads": heads,
            "token_dim": heads * width,
            **hidden,
        }


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [PrefixTuning]
