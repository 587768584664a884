"""Gradual unfreezing: the head learns first, then block after block from the top."""

import math
from dataclasses import dataclass

from hubtune import Phase, hookimpl, option
from hubtune_classic.blocks import depths, headless, learn, needed_head
from hubtune_classic.full import Full


@dataclass(frozen=True)
class GradualOptions:
    parts: int = option(3, "how many parts the blocks are unfrozen in, after the head")
    share: float = option(0.5, "the part of all steps in which everything learns, at the end")
    head_rate: float = option(10.0, "the head's learning rate, in multiples of the pretrained weights'")


class Gradual(Full):
    """The head first, then the blocks from the top in a few parts, and last the embeddings, with everything else."""

    contract = 1
    name = "gradual"
    summary = "weights are unfrozen step by step, from the head down"
    paper = "Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, arXiv:1801.06146"
    Options = GradualOptions
    defaults = {"train.lr": 5e-5}

    def refuse(self, task, config):
        if self.options.parts < 1 or not 0 < self.options.share < 1:
            return (f"strategy.parts is {self.options.parts} and strategy.share {self.options.share}: at least 1, and "
                    "between 0 and 1.")
        return headless(task)

    def prepare(self, model, fresh, task, plan):
        self.depths = depths(model, needed_head(fresh))
        return super().prepare(model, fresh, task, plan)

    def phases(self):
        parts = self.options.parts
        names = ["head", *(f"blocks {number}/{parts}" for number in range(1, parts)), "all"]
        early = (1 - self.options.share) / parts
        return tuple(Phase(name, self.options.share if name == "all" else early) for name in names)

    def enter(self, model, phase):
        """Everything above a depth learns; the last phase reaches the embeddings, which are at 0."""
        place = [known.name for known in self.phases()].index(phase.name)
        head = max(self.depths.values())
        open_blocks = math.ceil((head - 1) * place / self.options.parts)
        lowest = 0 if place == self.options.parts else head - open_blocks
        learn(model, {name for name, depth in self.depths.items() if depth >= lowest})


@hookimpl
def hubtune_strategies():
    return [Gradual]
