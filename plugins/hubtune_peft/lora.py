"""LoRA: low-rank updates beside the linear layers, merged into plain weights when the model is published."""

from dataclasses import dataclass

from hubtune import Export, Strategy, hookimpl, option
from hubtune_peft.structure import linear_layers, saved_whole


@dataclass(frozen=True)
class LoraOptions:
    rank: int = option(16, "rank of the update")
    alpha: int = option(32, "the update's scale is alpha / rank")
    dropout: float = option(0.05, "dropout before the update")
    dora: bool = option(False, "decompose weights into magnitude and direction (DoRA, arXiv:2402.09353)")
    rslora: bool = option(False, "scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)")
    targets: list[str] = option([], "only linear layers whose name ends in one of these; empty: all")


class Lora(Strategy[LoraOptions]):
    """Low-rank updates beside every linear layer, with the head trained whole; published as plain weights."""

    contract = 1
    name = "lora"
    summary = "low-rank updates beside the linear layers (LoRA)"
    paper = "Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"
    Options = LoraOptions
    needs = ("peft",)
    extra = "hubtune[peft]"
    defaults = {"train.lr": 2e-4}

    def prepare(self, model, fresh, task, plan):
        import torch
        from peft import LoraConfig, get_peft_model

        options = self.options
        head = saved_whole(model, fresh)
        layers = linear_layers(model, head, options.targets)
        config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, use_dora=options.dora,
            use_rslora=options.rslora, target_modules=list(layers), modules_to_save=head,
            fan_in_fan_out=not any(isinstance(layer, torch.nn.Linear) for layer in layers.values()),  # GPT-2's Conv1D
        )
        return get_peft_model(model, config)

    def export(self, model):
        adapter = Adapter(model)  # before the merge, which leaves nothing of it
        return Export(root=model.merge_and_unload(), beside={"adapter": adapter})


class Adapter:
    """The updates alone, in PEFT's format, for those who load the base model themselves."""

    def __init__(self, model):
        from peft import get_peft_model_state_dict

        self.config = model.peft_config["default"]
        self.tensors = {name: t.detach().cpu().clone() for name, t in get_peft_model_state_dict(model).items()}

    def save_pretrained(self, folder):
        from safetensors.torch import save_file

        self.config.inference_mode = True
        self.config.save_pretrained(folder)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@hookimpl
def hubtune_strategies():
    return [Lora]
