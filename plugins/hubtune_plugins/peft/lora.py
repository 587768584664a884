"""LoRA: low-rank updates beside the linear layers, merged into plain weights when the model is published."""

from dataclasses import dataclass

from hubtune import hookimpl, option
from hubtune_plugins.peft.merging import Merged


@dataclass(frozen=True)
class LoraOptions:
    rank: int = option(16, "rank of the update")
    alpha: int = option(32, "the update's scale is alpha / rank")
    dropout: float = option(0.05, "dropout before the update")
    dora: bool = option(False, "decompose weights into magnitude and direction (DoRA, arXiv:2402.09353)")
    rslora: bool = option(False, "scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)")
    targets: list[str] = option([], "only layers whose name ends in one of these; empty: all linear ones")


class Lora(Merged):
    """Low-rank updates beside every linear layer, with the head trained whole; published as plain weights."""

    name = "lora"
    summary = "low-rank updates beside the linear layers (LoRA)"
    paper = "Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"
    Options = LoraOptions
    defaults = {"train.learning_rate": 4e-4}

    def config(self, plan, **where):
        from peft import LoraConfig

        options = self.options
        return LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout,
                          use_dora=options.dora, use_rslora=options.rslora, **where)


@hookimpl
def hubtune_strategies():
    return [Lora]
