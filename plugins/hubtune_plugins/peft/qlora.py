"""QLoRA: LoRA on a base whose weights are held in 4 bits while it trains; published merged, in plain weights."""

from hubtune import hookimpl
from hubtune_plugins.peft.four_bits import add_updates, plain_again, renew
from hubtune_plugins.peft.lora import Lora


class QLora(Lora):
    """Low-rank updates beside linear layers that are held in 4 bits (NF4), with the head trained whole in fp32."""

    name = "qlora"
    summary = "LoRA on a base in 4 bits: a quarter of the memory (QLoRA)"
    paper = "Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, arXiv:2305.14314"
    requires = ("peft", "bitsandbytes")
    extra = "hubtune[qlora]"

    def refuse(self, task, config):
        import torch

        if not torch.cuda.is_available():
            return "its 4-bit weights need an NVIDIA GPU, and this machine has none that PyTorch sees. Try --strategy lora"
        return "the model is quantised already." if getattr(config, "quantization_config", None) else None

    def from_pretrained_kwargs(self):
        """Weights go to the GPU in 4 bits. Products are as exact as the run: autocast makes them bf16, evaluation fp32."""
        import torch
        from transformers import BitsAndBytesConfig

        bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=torch.float32)
        return {"device_map": {"": torch.cuda.current_device()}, "quantization_config": bits}

    def prepare(self, model, newly_initialized, task, plan):
        renew(model, newly_initialized)
        return super().prepare(model, newly_initialized, task, plan)

    def export(self, model):
        """The updates, added to the 4-bit weights that they were trained on, as plain fp32 weights."""
        add_updates(model)
        export = super().export(model)
        plain_again(export.root)
        return export


@hookimpl
def hubtune_strategies():
    return [QLora]
