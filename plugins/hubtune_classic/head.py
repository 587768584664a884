"""The linear probe: only the head learns, on features that stay as they are."""

from hubtune import Strategy, hookimpl
from hubtune_classic.blocks import headless, learn, needed_head


class Head(Strategy):
    """Only the new head learns, on the features of the pretrained model: fast, and small in memory."""

    contract = 1
    name = "head"
    summary = "only the head learns (linear probe)"
    paper = "Alain and Bengio, Understanding intermediate layers using linear classifier probes, arXiv:1610.01644"
    defaults = {"train.lr": 1e-3, "train.epochs": 20.0, "train.weight_decay": 0.0}

    def refuse(self, task, config):
        return headless(task)

    def prepare(self, model, fresh, task, plan):
        learn(model, needed_head(fresh))
        return model


@hookimpl
def hubtune_strategies():
    return [Head]
