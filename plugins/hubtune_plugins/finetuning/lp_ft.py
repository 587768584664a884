"""Linear probing, then full fine-tuning: the head fits the features before it may change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Phase, Strategy, Task, hookimpl, option
from hubtune_plugins.finetuning.heads import ScaledHead
from hubtune_plugins.layers.learning import learn

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class LpFtOptions:
    share: float = option(0.3, "the part of all steps in which only the head learns, at the beginning", search=(0.1, 0.5))
    head_rate: float = option(40.0, "the learning rate of that part, in multiples of the other's")


@dataclass(frozen=True)
class Stage(Phase):
    """A phase in which the head alone learns, or every weight."""

    head_only: bool = False


class LpFt(ScaledHead):
    """The head alone first, then every weight: a random head would spoil good features with its first gradients."""

    name = "lp-ft"
    summary = "the head learns first, then every weight"
    paper = ("Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, "
             "arXiv:2202.10054")
    Options = LpFtOptions
    defaults = {"train.learning_rate": 5e-5}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        if not 0 < self.options.share < 1:
            return f"strategy.share is {self.options.share}, and has to lie between 0 and 1."
        return super().refuse(task, config)

    def phases(self) -> tuple[Phase, ...]:
        share = self.options.share
        return (Stage("head", share, self.options.head_rate, head_only=True), Stage("all", 1 - share))

    def start_phase(self, model: Module, phase: Phase) -> None:
        assert isinstance(phase, Stage)
        self.head_only = phase.head_only
        learn(model, self.newly_initialized if phase.head_only else {name for name, _ in model.named_parameters()})

    def param_groups(self, model: Module, weight_decay: float) -> list[dict[str, Any]]:
        groups = super().param_groups(model, weight_decay)
        return self.scaled_groups(groups, model) if self.head_only else groups


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [LpFt]
