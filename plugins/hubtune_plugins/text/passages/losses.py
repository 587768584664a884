"""Losses over the scores of each query's passages, (queries, most passages), summed.

scores: -inf where a query has fewer passages. grades: from 0; `MISSING` where a query has fewer passages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MISSING = -1.0


def binary(scores: Tensor, grades: Tensor, highest: float) -> Tensor:
    """Cross-entropy of each passage alone; a grade below the highest is a soft target (Nogueira and Cho, arXiv:1901.04085)."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    known = grades != MISSING
    return binary_cross_entropy_with_logits(scores[known], (grades[known] / highest).to(scores.dtype), reduction="sum")


def listwise(scores: Tensor, grades: Tensor, highest: float) -> Tensor:
    """Softmax cross-entropy over the passages of a query, targets in proportion to their grades.

    ListNet (Cao et al., ICML 2007) with the targets of Bruch et al. (ICTIR 2019), for which it bounds nDCG and MRR. A query
    whose grades are all 0 adds nothing.
    """
    known = grades != MISSING
    targets = grades.masked_fill(~known, 0).to(scores.dtype)
    shares = targets / targets.sum(1, keepdim=True).clamp(min=1e-9)
    return -(shares * scores.log_softmax(1).masked_fill(~known, 0)).sum()


def margin(scores: Tensor, grades: Tensor, highest: float) -> Tensor:
    """Hinge over pairs: a better passage scores 1 more than a worse one (Joachims, KDD 2002). The mean over a query's pairs."""
    known = grades != MISSING
    scores = scores.masked_fill(~known, 0)
    better = (grades[:, :, None] > grades[:, None, :]) & known[:, :, None] & known[:, None, :]
    hinges = (1 - (scores[:, :, None] - scores[:, None, :])).clamp(min=0) * better
    return (hinges.sum((1, 2)) / better.sum((1, 2)).clamp(min=1)).sum()


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"binary": binary, "listwise": listwise, "margin": margin}


def padded_rows(values: Tensor, counts: Sequence[int], fill: float) -> Tensor:
    """Values of all passages, (passages,), as (queries, most passages): `counts` for each query, `fill` behind them."""
    import torch

    places = torch.arange(max(counts), device=values.device) < torch.tensor(counts, device=values.device)[:, None]
    return torch.full(places.shape, fill, dtype=values.dtype, device=values.device).masked_scatter(places, values)


def targets_of(examples: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> Tensor | None:
    """The grades of all examples, (queries, most passages), `MISSING` where a query has fewer; None unless all have them."""
    import torch

    if not all("target" in example for example in examples):
        return None
    return padded_rows(torch.tensor([grade for example in examples for grade in example["target"]]), counts, MISSING)
