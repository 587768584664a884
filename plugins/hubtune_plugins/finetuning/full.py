"""Full fine-tuning: every weight learns."""

from dataclasses import dataclass

from hubtune import Strategy, hookimpl, option
from hubtune_plugins.finetuning.rates import rated


@dataclass(frozen=True)
class FullOptions:
    head_rate: float = option(10.0, "the head's learning rate, in multiples of the pretrained weights'")


class Full(Strategy[FullOptions]):
    """Every weight of the model learns, the new head faster than what is pretrained."""

    contract = 2
    name = "full"
    summary = "every weight learns"
    paper = "Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, arXiv:1801.06146"
    Options = FullOptions
    defaults = {"train.learning_rate": 4e-5}

    def prepare(self, model, newly_initialized, task, plan):
        self.newly_initialized = newly_initialized
        return model

    def rate(self, name):
        """What multiplies the run's learning rate for a parameter, by its full name."""
        return self.options.head_rate if name in self.newly_initialized else 1.0

    def param_groups(self, model, weight_decay):
        """The default groups, each split by rate."""
        return rated(super().param_groups(model, weight_decay), model, self.rate)


@hookimpl
def hubtune_strategies():
    return [Full]
