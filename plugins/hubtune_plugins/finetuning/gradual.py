"""Gradual unfreezing: the head learns first, then block after block from the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Phase, Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.finetuning.depths import depths, upper
from hubtune_plugins.finetuning.full import Full, FullOptions
from hubtune_plugins.finetuning.heads import HeadFirst
from hubtune_plugins.layers.learning import learn

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class GradualOptions(FullOptions):
    parts: int = option(3, "how many parts the blocks are unfrozen in, after the head")
    share: float = option(0.5, "the part of all steps in which everything learns, at the end")


@dataclass(frozen=True)
class Stage(Phase):
    """A phase in which the head and so many parts of the blocks learn."""

    part: int = 0


class Gradual(HeadFirst, Full):
    """The head first, then the blocks from the top in a few parts, and last the embeddings, with everything else."""

    name = "gradual"
    summary = "weights are unfrozen step by step, from the head down"
    paper = "Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, arXiv:1801.06146"
    Options = GradualOptions
    defaults = {"train.learning_rate": 5e-5}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        parts, share = self.options.parts, self.options.share
        if parts < 1 or not 0 < share < 1:
            return f"strategy.parts is {parts} and strategy.share {share}: at least 1, and between 0 and 1."
        return super().refuse(task, config)

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        model = super().prepare(model, newly_initialized, task, plan)
        self.depths = depths(model, newly_initialized)
        return model

    def phases(self) -> tuple[Phase, ...]:
        parts, share = self.options.parts, self.options.share
        names = ["head", *(f"blocks {number}/{parts}" for number in range(1, parts))]
        stages = [Stage(name, (1 - share) / parts, part=part) for part, name in enumerate(names)]
        return (*stages, Stage("all", share, part=parts))

    def start_phase(self, model: Module, phase: Phase) -> None:
        assert isinstance(phase, Stage)
        learn(model, upper(self.depths, phase.part, self.options.parts))


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Gradual]
