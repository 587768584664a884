"""Hiding pieces of a text: which they are, what the model sees instead, and how well they were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune import Base, DataError, Example, ModelError, Prediction, exact
from hubtune_plugins.text.tokens.pieces import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def refuse_unfit(base: Base, share: Any) -> None:
    """Refuse a model that cannot hide pieces, and a share of them that is none."""
    if base.processor.mask_token_id is None:
        raise ModelError("its tokenizer has no mask token, so it was not trained to find hidden words.",
                         where=base.repo, hint="Take an encoder such as BERT, or: hubtune train text-generation")
    if not 0 < share < 1:
        raise DataError(f"task.probability is a share between 0 and 1, not {share}.", hint="BERT's is 0.15.")


def hidden(example: Example, base: Base, share: Any, draw: Any = None) -> tuple[Any, Any]:
    """Return what the model sees of a window, and per piece what it is to find.

    A share of the pieces, one at least, is chosen: 80% of these are masked, 10% replaced by a random piece and 10% left
    (Devlin et al., BERT, arXiv:1810.04805). Without a `draw`, a random.Random, they are drawn from the window itself, but
    for one with masks of the user's: these are answered, and no others set.
    """
    from random import Random

    ids = example["input_ids"]
    shown, targets = list(ids), [IGNORED] * len(ids)
    if draw is None and example["asked"]:
        return shown, targets
    draw = draw or Random(",".join(map(str, ids)))
    special = set(base.processor.all_special_ids)
    pieces = [place for place, piece in enumerate(ids) if piece not in special]
    words = min(len(base.processor), base.config.get_text_config().vocab_size)
    for place in draw.sample(pieces, min(len(pieces), max(1, round(share * len(pieces))))):
        targets[place] = ids[place]
        chance, other = draw.random(), draw.randrange(words)
        shown[place] = base.processor.mask_token_id if chance < 0.8 else other if chance < 0.9 else ids[place]
    return shown, targets


def found(logits: Tensor, ids: Any, targets: Any, processor: Any) -> Any:
    """Return how well the hidden pieces of a window were found: `nll` in nats, summed over `tokens` pieces, of which `hits` were
    the likeliest. Where none was hidden, what fills its masks. logits (pieces, vocabulary), ids and targets (pieces,).
    """
    from torch.nn.functional import cross_entropy

    asked = targets != IGNORED
    chosen, right = exact(logits[asked]), targets[asked]
    counts = {"nll": float(cross_entropy(chosen, right, reduction="sum")), "tokens": len(right),
              "hits": int((chosen.argmax(-1) == right).sum())}
    return counts if len(right) else {**counts, "fills": fills(logits[ids == processor.mask_token_id], processor)}


def fills(logits: Tensor, processor: Any) -> list[Any]:
    """The likeliest word for each mask, from logits (masks, vocabulary)."""
    best = zip(*(part.tolist() for part in exact(logits).softmax(-1).max(-1)), strict=True)
    return [{"token": processor.decode([piece]).strip(), "probability": probability} for probability, piece in best]


def joined(parts: Sequence[Prediction], text: str, mask: Any) -> Prediction:
    """Return what the windows of a text say together: sums, and the text with its masks filled, where it has any."""
    whole = {name: sum(part[name] for part in parts) for name in ("nll", "tokens", "hits")}
    words = [fill for part in parts for fill in part.get("fills", ())]
    return {**whole, "fills": words, "text": filled(text, mask, words)} if words else whole


def filled(text: str, mask: Any, fills: Any) -> str:
    """A text with its masks filled, as far as there are fills."""
    from itertools import zip_longest

    around = zip_longest(text.split(mask), [fill["token"] for fill in fills], fillvalue="")
    return "".join(before + word for before, word in around)


def totals(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Mean negative log-likelihood of a hidden piece, in nats, its exponential, and the share that was found."""
    from math import exp

    nll, pieces, hits = (sum(prediction[name] for prediction in predictions) for name in ("nll", "tokens", "hits"))
    if not pieces:
        raise DataError("no text has a piece that could be hidden and asked for.",
                        hint="Evaluation hides pieces itself: take texts without masks.")
    loss = nll / pieces
    return {"loss": loss, "perplexity": exp(min(loss, 700.0)), "accuracy": hits / pieces}
