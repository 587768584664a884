"""Losses over all pairs of a step, and what they need: who matches whom, and a partner out of a label's texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubtune import Example


def key(text: str) -> Any:
    """A number that stands for a text: 63 bits of its hash."""
    from hashlib import blake2b

    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def told(examples: Sequence[Example], texts: Any) -> Any:
    """Scores, (examples,), or keys, (examples, 2), that the examples carry; None where they do not, or where there is
    one text to an example: a label's texts have partners in training only."""
    import torch

    name = next((name for name in ("score", "keys") if all(name in example for example in examples)), None)
    return torch.tensor([example[name] for example in examples]) if name and len(texts[0]) == 2 else None


def step_loss(vectors: Any, targets: Any, temperature: float) -> Any:
    """The mean loss of a step, a scalar; vectors (pairs, 2, size), of length 1. Scores as targets are told by their type."""
    first, second = (vectors / temperature**0.5).unbind(1)
    return (order_loss if targets.is_floating_point() else match_loss)(first, second, targets)


def order_loss(first: Any, second: Any, scores: Any) -> Any:
    """CoSENT: no pair should lie above one with a better score (Su, kexue.fm/archives/8847). A scalar.

    first, second (pairs, size): unit vectors over the root of the temperature. scores (pairs,).
    """
    import torch

    cosines = (first * second).sum(-1)
    wrong = (cosines[:, None] - cosines)[scores[:, None] < scores]  # how much a worse pair lies above a better
    return torch.cat([cosines.new_zeros(1), wrong]).logsumexp(0)


def match_loss(first: Any, second: Any, keys: Any) -> Any:
    """Each first text finds its second among all others of the step (Henderson et al., arXiv:1705.00652). A scalar mean.

    first, second: as above. keys (pairs, 2): numbers of what the two texts are; what any of two rows' numbers says to
    match is never a negative.
    """
    import torch

    matches = (keys[:, None] == keys).any(-1).fill_diagonal_(False)
    with torch.autocast(first.device.type, enabled=False):  # in half precision near texts become equal
        cosines = (first @ second.T).masked_fill(matches, float("-inf"))
    return torch.nn.functional.cross_entropy(cosines, torch.arange(len(keys), device=cosines.device))


def partner(example: Example, draw: Any) -> Any:
    """Another text of the example's label, drawn by a `ExampleRNG`; the text itself where it is the only one."""
    own = example["texts"][0]
    first = draw.random().randrange(len(draw.others)) if draw.others else 0
    for step in range(len(draw.others)):
        other = draw.others[(first + step) % len(draw.others)]["texts"][0]
        if other != own:
            return other
    return own
