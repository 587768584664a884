"""(IA)3: learnt vectors that scale keys, values and the inner activations of feed-forward
layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Strategy, hookimpl, option
from hubtune_plugins.peft.layer_method import LayerMethod
from hubtune_plugins.peft.structure import keys_and_values, narrows

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class Ia3Options:
    targets: list[str] = option(
        [], "only layers whose name ends in one of these; empty: keys, values, feed-forward"
    )


class Ia3(LayerMethod):
    """Vectors that scale keys, values and feed-forward activations, with the head trained whole;
    published merged."""

    name = "ia3"
    summary = "learnt vectors that scale activations ((IA)3)"
    paper = ("Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper, "
             "arXiv:2205.05638")
    Options = Ia3Options
    defaults = {"train.learning_rate": 1e-2, "train.weight_decay": 0.0}
    method = "ia3"

    def target_settings(self, layers: Mapping[str, Module]) -> dict[str, Any]:
        """Keys and values are scaled at the output of their layers, feed-forward activations at the
        input of theirs.

        Where no keys and values are known, or the user names layers, the outputs of all of these
        are scaled.
        """
        outputs = [] if self.options.targets else keys_and_values(layers)
        inputs = (
            [name for name in layers if name not in outputs and narrows(layers[name])]
            if outputs
            else []
        )
        targets = outputs + inputs or list(layers)
        return {
            **super().target_settings(layers),
            "target_modules": targets,
            "feedforward_modules": inputs,
        }

    def settings(self) -> dict[str, Any]:
        return {}


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Ia3]
