"""Bottleneck adapters: small networks put into a model whose own weights stay as they are."""

from dataclasses import dataclass
from pathlib import Path

from hubtune import Export, ModelError, Strategy, hookimpl, option
from hubtune_adapters.modeling_hubtune_adapters import insert
from hubtune_adapters.structure import blocks, last_convolution, writers

CODE = Path(__file__).with_name("modeling_hubtune_adapters.py")


@dataclass(frozen=True)
class AdapterOptions:
    variant: str = option("pfeiffer", "where: after each feed-forward, or (houlsby) after each attention too",
                          choices=("pfeiffer", "houlsby"))
    reduction: int = option(16, "a layer's width is this many times its adapter's")
    nonlinearity: str = option("gelu", "between down and up", choices=("gelu", "relu", "silu"))
    dropout: float = option(0.0, "dropout in the adapter")


class Adapters(Strategy[AdapterOptions]):
    """Small bottlenecks after the layers that write to the residual stream, with the head trained whole.

    They cannot be merged into plain weights: the model is published with the code that puts them in.
    """

    contract = 1
    name = "adapters"
    summary = "bottlenecks inside a frozen model (Houlsby, Pfeiffer)"
    paper = ("Houlsby et al., Parameter-Efficient Transfer Learning for NLP, arXiv:1902.00751; Pfeiffer et al., "
             "AdapterFusion, arXiv:2005.00247")
    Options = AdapterOptions
    loads_with = "code"
    defaults = {"train.lr": 1e-3}

    def refuse(self, task, config):
        reduction = self.options.reduction
        return None if reduction >= 1 else f"strategy.reduction is {reduction}, and has to be 1 or more."

    def prepare(self, model, fresh, task, plan):
        self.auto = task.model
        chosen = self.options
        self.said = {
            "model": type(model).__name__, "nonlinearity": chosen.nonlinearity, "dropout": chosen.dropout,
            "layers": {name: [width, max(1, width // chosen.reduction)] for name, width in self.places(model, fresh)},
        }
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in fresh
        insert(model, self.said)
        return model

    def places(self, model, fresh):
        """What gets an adapter, with its width: in every block outside the head."""
        known = {name: model.get_submodule(name) for name in blocks(model)}
        known = {name: block for name, block in known.items()
                 if not fresh.issuperset(f"{name}.{inner}" for inner, _ in block.named_parameters())}
        found = {name: writers(block) for name, block in known.items()}
        if not any(found.values()):
            found = {name: last_convolution(block) for name, block in known.items()}
        if not any(found.values()):
            raise ModelError("none of its blocks has a layer that an adapter could follow.",
                             hint="Tune it whole: --strategy full")
        first = -1 if self.options.variant == "pfeiffer" else 0  # a block's feed-forward is its last part
        return [(f"{name}.{inner}", width) for name, layers in found.items() for inner, width in layers[first:]]

    def export(self, model):
        return Export(
            root=model, loads_with="code", files={CODE.name: CODE.read_text(encoding="utf-8")},
            config={"auto_map": {self.auto: f"{CODE.stem}.Adapted"}, "hubtune_adapters": self.said},
        )

    def usage(self, task, repo, base):
        """The task's own snippet, at a commit whose code the user has read."""
        trusted = f'"{repo}", revision=COMMIT, trust_remote_code=True'
        text = task.usage(repo, base).replace(f'from_pretrained("{repo}"', f"from_pretrained({trusted}")
        return ("# This model comes with code. Read it, and name the commit that you have read: the full hash.\n"
                'COMMIT = "..."\n' + text.replace(f'model="{repo}"', f"model={trusted}"))


@hookimpl
def hubtune_strategies():
    return [Adapters]
