"""Shared by strategies that train a new head by itself: tasks without one, and models without one, are refused."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from hubtune import ModelError, Plan, Strategy, Task
from hubtune_plugins.finetuning.rates import rated

if TYPE_CHECKING:
    from torch.nn import Module

OWN_HEAD = ("", "ForCausalLM", "ForImageTextToText", "ForMaskedLM", "ForMultimodalLM", "ForPreTraining", "ForSeq2SeqLM",
            "ForSpeechSeq2Seq")
"""The kinds of transformers model that have no head, or one that was pretrained with the rest."""


class HeadFirst(Strategy[Any]):
    """A method that begins with the new head alone. `newly_initialized` holds the names of the head's parameters."""

    contract = 2

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        if task.model.removeprefix("AutoModel") not in OWN_HEAD:
            return None
        return f"the task '{task.name}' tunes a pretrained model as it is, and there is no new head to train by itself."

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        if not newly_initialized:
            raise ModelError("all of its weights were pretrained: there is no new head to train by itself.",
                             hint="Tune it whole: --strategy full")
        self.newly_initialized = newly_initialized
        return super().prepare(model, newly_initialized, task, plan)


LARGEST_FACTOR = 16.0
"""The most by which the rate of a layer of the head grows for small inputs."""


class ScaledHead(HeadFirst):
    """A head that is trained alone, at rates for inputs of unit size.

    A step of AdamW moves each weight by the rate whatever its input, so inputs of size .06 (MiniLM's pooler) need 16 times the
    steps that those after a layer norm do. Dividing the rate by the size is what standardising the features would do, and leaves
    a model whose weights read the features as they are.
    """

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        model = super().prepare(model, newly_initialized, task, plan)
        self.factors = input_factors(model, newly_initialized, task, plan)
        return model

    def scaled_groups(self, groups: list[dict[str, Any]], model: Module) -> list[dict[str, Any]]:
        """Return parameter groups with the rates of the head's layers."""
        return rated(groups, model, lambda name: self.factors.get(name, 1.0))


def input_factors(model: Module, names: frozenset[str], task: Task[Any], plan: Plan) -> dict[str, float]:
    """Return by parameter what multiplies the rate: 1 / RMS of the layer's inputs in a batch, from 1 to `LARGEST_FACTOR`.

    names: parameters of the head. Matrices of linear layers alone have a factor; a bias has the input 1.
    """
    import torch

    seen: dict[str, float] = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and f"{name}.weight" in names:
            def measure(_: Any, inputs: Any, key: str = f"{name}.weight") -> None:
                seen[key] = float(inputs[0].float().square().mean().sqrt())

            hooks.append(layer.register_forward_pre_hook(measure))
    training = model.training
    try:
        with torch.no_grad():
            for batch in islice(plan.batches(), 1):
                task.forward(model.eval(), batch)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    # Two digits, which are the same on all devices.
    return {key: float(f"{min(LARGEST_FACTOR, max(1.0, 1 / max(size, 1e-6))):.2g}") for key, size in seen.items()}
