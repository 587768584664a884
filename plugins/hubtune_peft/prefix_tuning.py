"""Prefix tuning: learnt keys and values before those of the text, in every layer of a frozen model."""

from dataclasses import dataclass

from hubtune import ModelError, hookimpl, option
from hubtune_peft.prompts import Prompted, takes


@dataclass(frozen=True)
class PrefixOptions:
    tokens: int = option(20, "learnt positions before the text")
    projection: bool = option(False, "learn them through a small network, as in the paper; it is not published")


class PrefixTuning(Prompted):
    """Learnt keys and values in every layer, with the head trained whole; published as a PEFT adapter."""

    name = "prefix-tuning"
    summary = "learnt keys and values before the text, in every layer"
    paper = "Li and Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, arXiv:2101.00190"
    Options = PrefixOptions
    defaults = {"train.lr": 5e-3, "train.weight_decay": 0.0}

    def unfit(self, classes, form, config):
        model, body = classes
        own = takes(model, "past_key_values")
        if getattr(config, "is_encoder_decoder", False) and form != "SEQ_2_SEQ_LM" and not own:
            return "PEFT puts a prefix into an encoder-decoder only where it generates text."
        if not (own or (takes(model, "on") and takes(body, "past_key_values"))):
            return f"a prefix is made of past keys and values, and '{config.model_type}' models take none."
        if getattr(config.get_text_config(), "kv_lora_rank", None):
            return f"'{config.model_type}' models keep keys and values compressed, in a form that no prefix of PEFT's has."
        if getattr(model, "_is_stateful", False):
            return f"'{config.model_type}' models have layers that keep a running state in the place of keys and values."
        return None

    def submodules(self, form):
        return 2 if form == "SEQ_2_SEQ_LM" else 1

    def config(self, model, form, **common):
        from peft import PrefixTuningConfig

        layers, heads, width = cache_shape(model, form)
        return PrefixTuningConfig(num_layers=layers, num_attention_heads=heads, token_dim=heads * width,
                                  encoder_hidden_size=heads * width, prefix_projection=self.options.projection, **common)


def cache_shape(model, form):
    """Layers, heads and width of a head, of the keys and values that the model writes into an empty cache."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    ids = torch.arange(8, 12, device=next(model.parameters()).device)[None]
    own, more = DynamicCache(), {}
    if form == "SEQ_2_SEQ_LM":
        more = {"decoder_input_ids": ids}
    cache = EncoderDecoderCache(own, DynamicCache()) if more else own
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, **more)
    shapes = {tuple(part.shape) for layer in own.layers for part in (layer.keys, layer.values) if part is not None}
    if len(shapes) != 1:
        raise ModelError("its layers keep " + (f"keys and values of unlike shapes {sorted(shapes)}" if shapes else
                                               "no keys and values") + ", so that no prefix fits them all.",
                         hint="Use another strategy: --strategy lora")
    (_, heads, _, width), = shapes
    return len(own.layers), heads, width


@hookimpl
def hubtune_strategies():
    return [PrefixTuning]
