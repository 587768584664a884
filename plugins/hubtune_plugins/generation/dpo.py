"""Direct preference optimisation: what makes a chosen answer likelier than a rejected one (arXiv:2305.18290).

Answers are compared by their summed log-probabilities, (pairs, 2): of the chosen and of the rejected ones.
"""


def rewards(found, reference, beta):
    """beta times how much likelier answers are than in the reference, (pairs, 2); without one it counts as 0."""
    return beta * (found if reference is None else found - reference.to(found.dtype))


def pair_losses(rewards, wrong):
    """The loss of each pair, (pairs,), where a share of them may be the `wrong` way round."""
    from torch.nn.functional import logsigmoid

    margins = rewards[:, 0] - rewards[:, 1]
    return -(1 - wrong) * logsigmoid(margins) - wrong * logsigmoid(-margins)


def answers(found, reference, beta):
    """Per pair its log-probabilities and, with a reference, how much more the chosen answer is rewarded."""
    pairs = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in found.tolist()]
    if reference is None:
        return pairs
    margins = [chosen - rejected for chosen, rejected in rewards(found, reference, beta).tolist()]
    return [{**pair, "reward_margin": margin} for pair, margin in zip(pairs, margins, strict=True)]


def pair_scores(predictions):
    """accuracy: the share of pairs whose chosen answer is the likelier one, lengths not evened out.

    With a reference also reward_accuracy, the share that became likelier than the other against it (a draw counts
    half, as in the untrained model), and the mean reward_margin.
    """
    import numpy as np

    scores = {"accuracy": wins(np.array([p["chosen"] - p["rejected"] for p in predictions]))}
    if all("reward_margin" in prediction for prediction in predictions):
        margins = np.array([p["reward_margin"] for p in predictions])
        scores |= {"reward_accuracy": wins(margins), "reward_margin": float(margins.mean())}
    return scores


def wins(margins):
    """The share of differences above 0, of those that are 0 half."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())
