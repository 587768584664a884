"""AdaLoRA: low-rank updates whose ranks are a budget, moved during training to where they
matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hubtune import Export, Plan, StepStrategy, Strategy, Task, hookimpl, option
from hubtune_plugins.peft.layer_method import LayerMethod

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter


@dataclass(frozen=True)
class AdaLoraOptions:
    start_rank: int = option(12, "rank of every update at the start")
    rank: int = option(8, "mean rank at the end")
    alpha: int = option(32, "scale of the updates")
    dropout: float = option(0.05, "dropout before the update")
    warmup: float = option(0.1, "share of the steps before the budget falls")
    settle: float = option(0.3, "share of the steps at the end in which ranks stay")
    orthogonality: float = option(
        0.5, "weight of the term that keeps an update's vectors orthogonal"
    )
    targets: list[str] = option(
        [], "only layers whose name ends in one of these; empty: all linear ones"
    )


class AdaLora(LayerMethod, StepStrategy[Any]):
    """Low-rank updates with a shared budget of ranks, with the head trained whole; published as
    plain weights."""

    name = "adalora"
    summary = "low-rank updates with ranks where they matter (AdaLoRA)"
    paper = ("Zhang et al., Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, "
             "arXiv:2303.10512")
    Options = AdaLoraOptions
    defaults = {"train.learning_rate": 3e-3}
    method = "adalora"

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        wrapped = super().prepare(model, newly_initialized, task, plan)
        register_importance(wrapped)
        self.adapter: Any = cast("Any", wrapped).peft_config["default"]
        return wrapped

    def settings(self) -> dict[str, Any]:
        options = self.options
        return {
            "init_r": options.start_rank,
            "target_r": min(options.rank, options.start_rank),
            "lora_alpha": options.alpha,
            "lora_dropout": options.dropout,
            "orth_reg_weight": options.orthogonality,
        }

    def derived_settings(self, config: Any, plan: Plan) -> dict[str, Any]:
        return schedule(
            plan.steps, getattr(self.options, "warmup", 0.1), getattr(self.options, "settle", 0.3)
        )

    def regularization(self, model: Module) -> Tensor:
        weight: float = self.adapter.orth_reg_weight
        return weight * orthogonality(model)

    def after_step(self, model: Module, step: int, steps: int) -> None:
        allocate(model, step)

    def state(self) -> dict[str, Any]:
        return {"ranks": self.adapter.rank_pattern}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.adapter.rank_pattern = state["ranks"]

    def export(self, model: Any) -> Export:
        self.adapter.rank_pattern = ranks_of(
            model
        )  # of the weights published, which may be from before the last cut
        return super().export(model)


def schedule(steps: int, warmup: float, settle: float) -> dict[str, int]:
    """Return PEFT's schedule of the budget for a number of steps, from the shares of its start and
    its end."""
    final = min(max(1, round(settle * steps)), steps - 1)
    return {
        "total_step": steps,
        "tfinal": final,
        "tinit": min(round(warmup * steps), steps - final - 1),
    }


KEPT = ("exp_avg_ipt", "exp_avg_unc")
"""Statistics of every weight that PEFT's allocator keeps in dicts, and that are buffers here:
checkpoints hold these."""


def adapter_parameters(model: Any) -> Iterator[tuple[str, Parameter, Module, str]]:
    """Yield each parameter of the updates: PEFT's name, the parameter, its layer, and a key such as
    `importance_A`."""
    inner = model.base_model.model
    for name, parameter in inner.named_parameters():
        if "lora_" in name and ".default" in name:
            place, _, rest = name.rpartition(".lora_")
            yield (
                name,
                parameter,
                inner.get_submodule(place),
                f"importance_{rest.partition('.')[0]}",
            )


def register_importance(model: Any) -> None:
    """Register buffers of zeros for the allocator's statistics in every layer."""
    import torch

    for _, parameter, owner, key in adapter_parameters(model):
        for kind in KEPT:
            owner.register_buffer(f"{key}_{kind}", torch.zeros_like(parameter))


def allocate(model: Any, step: int) -> None:
    """Score every weight by its gradient and cut ranks to the budget of a step, with memories in
    buffers."""
    import torch

    allocator = model.base_model.rankallocator
    known = list(adapter_parameters(model))
    for name, parameter, owner, key in known:
        if parameter.grad is None:  # a layer that this step did not use
            parameter.grad = torch.zeros_like(parameter)
        allocator.ipt[name] = parameter
        for kind in KEPT:
            getattr(allocator, kind)[name] = getattr(owner, f"{key}_{kind}")
    model.base_model.update_and_allocate(step)
    for name, _, owner, key in known:
        for kind in KEPT:
            if name in getattr(allocator, kind):
                getattr(owner, f"{key}_{kind}").copy_(getattr(allocator, kind)[name])


def orthogonality(model: Any) -> Tensor:
    """Compute the mean over all A and B of the Frobenius norm of A A' - I (B' B - I)."""
    import torch

    total: Tensor | float = 0.0
    count = 0
    for _, parameter, _, key in adapter_parameters(model):
        if not key.endswith("E"):
            square = parameter @ parameter.T if key.endswith("A") else parameter.T @ parameter
            total = total + torch.linalg.norm(square - torch.eye(len(square)).to(square))
            count += 1
    return cast("Tensor", total / count)


def ranks_of(model: Any) -> dict[str, list[bool]]:
    """Return which ranks of each update are in use, as PEFT's configuration has it: {name of its
    vector E: [bool]}."""
    return {
        name: (parameter != 0).view(-1).tolist()
        for name, parameter, _, key in adapter_parameters(model)
        if key.endswith("E")
    }


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [AdaLora]
