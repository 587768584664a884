"""Full fine-tuning: every weight learns."""

from hubtune import Strategy, hookimpl


class Full(Strategy):
    """Every weight of the model learns: the most accurate, and the largest in memory."""

    contract = 1
    name = "full"
    summary = "every weight learns"
    paper = "Howard and Ruder, Universal Language Model Fine-tuning, arXiv:1801.06146"
    defaults = {"train.lr": 4e-5}


@hookimpl
def hubtune_strategies():
    return [Full]
