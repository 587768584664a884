"""Direct preference optimisation: what makes a chosen answer likelier than a rejected one (arXiv:2305.18290).

Answers are compared by their summed log-probabilities, (pairs, 2): of the chosen and of the rejected ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubtune import Prediction
from hubtune_plugins.generation.pairs.bradley_terry import wins


def rewards(found: Any, reference: Any, beta: float) -> Any:
    """beta times how much likelier answers are than in the reference, (pairs, 2); without one it counts as 0."""
    return beta * (found if reference is None else found - reference.to(found.dtype))


def answers(found: Any, reference: Any, beta: float) -> list[Prediction]:
    """Per pair its log-probabilities and, with a reference, how much more the chosen answer is rewarded."""
    pairs = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in found.tolist()]
    if reference is None:
        return pairs
    margins = [chosen - rejected for chosen, rejected in rewards(found, reference, beta).tolist()]
    return [{**pair, "reward_margin": margin} for pair, margin in zip(pairs, margins, strict=True)]


def pair_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
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
