"""Pairs of answers of which one is better, by the difference of their rewards (Bradley and Terry, 1952)."""


def pair_losses(margins, wrong=0.0):
    """The loss of each pair, (pairs,), of the better answer's reward over the other's, where a share may be the `wrong` way round."""
    from torch.nn.functional import logsigmoid

    return -(1 - wrong) * logsigmoid(margins) - wrong * logsigmoid(-margins)


def wins(margins):
    """The share of differences above 0, of those that are 0 half; margins: an array."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())
