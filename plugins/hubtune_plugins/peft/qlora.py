"""QLoRA: LoRA on a base whose weights are held in 4 bits while it trains; published merged, in
plain weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune import Export, Plan, Strategy, Task, hookimpl
from hubtune_plugins.peft.lora import Lora
from hubtune_plugins.peft.methods import import_bitsandbytes

if TYPE_CHECKING:
    from torch.nn import Linear, Module


class QLora(Lora):
    """Low-rank updates beside linear layers that are held in 4 bits (NF4), with the head trained
    whole in fp32."""

    name = "qlora"
    summary = "LoRA on a base in 4 bits: a quarter of the memory (QLoRA)"
    paper = "Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, arXiv:2305.14314"
    requires = ("peft", "bitsandbytes")
    extra = "hubtune[qlora]"

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        return (
            "its weights are quantized already. Tune the model that they were made from."
            if getattr(config, "quantization_config", None)
            else None
        )

    def from_pretrained_kwargs(self) -> dict[str, Any]:
        """Load weights in 4 bits on the GPU, if there is one, else on the CPU.

        Products are as exact as the run: bf16 under autocast, fp32 in evaluation.
        """
        import_bitsandbytes()
        import torch
        from transformers import BitsAndBytesConfig

        bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
        return {"device_map": {"": device}, "quantization_config": bits}

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        make_head_plain(model, newly_initialized)
        return super().prepare(model, newly_initialized, task, plan)

    def export(self, model: Any) -> Export:
        """Add the updates to the 4-bit weights that they were trained on, as plain fp32 weights."""
        merge_updates(model)
        export = super().export(model)
        dequantize_model(export.root)
        return export


def quantized_layers(model: Module) -> list[tuple[str, Module]]:
    """Return the layers in 4 bits, with their names."""
    return [
        (name, part) for name, part in model.named_modules() if type(part).__name__ == "Linear4bit"
    ]


def make_head_plain(model: Module, newly_initialized: frozenset[str]) -> None:
    """Make the layers of a head plain ones, so that they learn whole and in fp32."""
    for name, layer in quantized_layers(model):
        if any(f"{name}.{part}" in newly_initialized for part, _ in layer.named_parameters()):
            replace_module(model, name, make_plain(layer))


def merge_updates(model: Any) -> None:
    """Add PEFT's updates to the layers in 4 bits, which become plain: PEFT's own merge would round
    to 4 bits again."""
    from peft.tuners.lora import LoraLayer

    for _, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer) and type(layer.base_layer).__name__ == "Linear4bit":
            base = make_plain(layer.base_layer)
            base.weight.data += layer.get_delta_weight("default").to(base.weight)
            layer.base_layer, layer.merged_adapters = base, ["default"]


def dequantize_model(model: Any) -> None:
    """Make a model forget that any of its weights were in 4 bits; those that still are become
    plain."""
    for name, layer in quantized_layers(model):
        replace_module(model, name, make_plain(layer))
    del model.config.quantization_config
    model.is_quantized = model.is_loaded_in_4bit = False
    model.hf_quantizer = None


def make_plain(layer: Any) -> Linear:
    """Make a plain layer of one in 4 bits, with its weights dequantized."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weight = layer.weight
    made = torch.nn.Linear(
        layer.in_features, layer.out_features, layer.bias is not None, device=weight.device
    )
    with torch.no_grad():
        made.weight.copy_(dequantize_4bit(weight.data, weight.quant_state))
        if layer.bias is not None:
            made.bias.copy_(layer.bias)
    return made


def replace_module(model: Module, name: str, layer: Module) -> None:
    """Put a layer in the place of another."""
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, layer)


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [QLora]
