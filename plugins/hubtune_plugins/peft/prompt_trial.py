"""Outputs of a model that is tried on a few words, which shows whether learnt tokens suit it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hubtune import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def accepts(kind: type[Any] | None, argument: str) -> bool:
    """Return whether a class' forward names the argument; "on": whether it passes unknown ones
    on."""
    parameters: Mapping[str, inspect.Parameter] = (
        inspect.signature(kind.forward).parameters if kind is not None else {}
    )
    if argument == "on":
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return argument in parameters


def compute_answers(
    model: Any, form: str, vectors: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Compute outputs for a short text alone, and beside a longer one: {"alone", "together"}, of
    its own positions.

    vectors: embeds token ids, where the model is given word vectors in their place.
    """
    import torch

    config, device = model.config.get_text_config(), next(model.parameters()).device
    ids = (torch.arange(18, device=device).view(2, 9) * 7 + 3) % (
        config.vocab_size - 8
    ) + 8  # none of the special ones
    mask = torch.ones_like(ids)
    ids[0, 6:], mask[0, 6:] = getattr(config, "pad_token_id", None) or 0, 0

    def said(rows: int, length: int) -> Tensor:
        words = ids[:rows, :length]
        inputs = {"input_ids": words} if vectors is None else {"inputs_embeds": vectors(words)}
        if form == "SEQ_2_SEQ_LM":
            inputs["decoder_input_ids"] = ids[:rows, :6].clone()
        outputs = model(attention_mask=mask[:rows, :length], **inputs)
        found: Tensor = outputs.logits if "logits" in outputs else outputs.start_logits
        return found

    training = model.training
    model.eval()
    with torch.no_grad():
        alone, together = said(1, 6)[0], said(2, 9)[0]
    model.train(training)
    if form == "SEQ_CLS":
        return {"alone": alone, "together": together}
    learnt = len(alone) - 6
    return {"alone": alone[learnt:], "together": together[learnt:learnt + 6]}


def keeps_running_state(config: Any) -> bool:
    """Return whether layers of a model keep a state in the place of keys and values, by its
    cache."""
    from transformers import DynamicCache

    try:
        layers = DynamicCache(config=config).layers
    except (
        AttributeError
    ):  # a configuration without layers to count, whose model shows it when it is tried
        return False
    return any(hasattr(layer, "conv_states") for layer in layers)


def check_word_vectors(model: Any, form: str, vectors: Callable[[Tensor], Tensor]) -> None:
    """Refuse a model that answers otherwise where it reads word vectors in the place of words."""
    by_vector = compute_answers(model, form, vectors=vectors)
    if not compute_answers(model, form)["together"].allclose(
        by_vector["together"], rtol=1e-4, atol=1e-5
    ):
        raise ModelError(
            "it reads word vectors in another way than words, which PEFT does not know.",
            hint="Use another strategy: --strategy lora",
        )


def check_prompt_effect(plain: Mapping[str, Tensor], learnt: Mapping[str, Tensor]) -> None:
    """Refuse what runs, but wrongly: learnt tokens that change nothing, or that make padding
    matter.

    plain, learnt: the `answers` of the model without learnt tokens, and with them.
    """
    if plain["together"].shape == learnt["together"].shape and bool(
        (plain["together"] == learnt["together"]).all()
    ):
        raise ModelError(
            "its outputs do not depend on the learnt tokens.", hint="Use: --strategy lora"
        )
    gaps = [
        float((a["alone"] - a["together"]).abs().max()) / max(1e-3, float(a["alone"].abs().max()))
        for a in (plain, learnt)
    ]
    if gaps[1] > 1e-3 >= gaps[0]:
        raise ModelError(
            "with learnt tokens before it, an answer would change with the padding behind it.",
            hint="Use another strategy: --strategy lora",
        )


def cache_shape(model: Any, form: str) -> tuple[int, int, int]:
    """Layers, heads and width of a head, of the keys and values that the model writes into an empty
    cache."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    ids = torch.arange(8, 12, device=next(model.parameters()).device)[None]
    own, more = DynamicCache(), {}
    if form == "SEQ_2_SEQ_LM":
        more = {"decoder_input_ids": ids}
    cache = EncoderDecoderCache(own, DynamicCache()) if more else own
    name = "cache" if accepts(type(model), "cache") else "past_key_values"
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **{name: cache}, **more)
    shapes = {
        tuple(part.shape)
        for layer in own.layers
        for part in (layer.keys, layer.values)
        if part is not None
    }
    if len(shapes) != 1:
        kept = (
            f"keys and values of unlike shapes {sorted(shapes)}" if shapes else "no keys and values"
        )
        raise ModelError(f"its layers keep {kept}, so that no prefix fits them all.",
                         hint="Use another strategy: --strategy lora")
    (_, heads, _, width), = shapes
    return len(own.layers), heads, width
