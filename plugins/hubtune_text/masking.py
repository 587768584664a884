"""Hiding pieces of a text: which they are, what the model sees instead, and how well they were found."""

from hubtune import exact
from hubtune_text.pieces import IGNORED


def hidden(ids, base, share, draw=None):
    """What the model sees of a window of ids, and per piece what it is to find.

    A share of the pieces, one at least, is chosen: 80% of these are masked, 10% replaced by a random piece and 10% left
    (Devlin et al., BERT, arXiv:1810.04805). Without a `draw`, a random.Random, they are drawn from the window itself.
    """
    from random import Random

    draw = draw or Random(",".join(map(str, ids)))
    shown, targets = list(ids), [IGNORED] * len(ids)
    special = set(base.processor.all_special_ids)
    pieces = [place for place, piece in enumerate(ids) if piece not in special]
    words = min(len(base.processor), base.config.get_text_config().vocab_size)
    for place in draw.sample(pieces, min(len(pieces), max(1, round(share * len(pieces))))):
        targets[place] = ids[place]
        chance, other = draw.random(), draw.randrange(words)
        shown[place] = base.processor.mask_token_id if chance < 0.8 else other if chance < 0.9 else ids[place]
    return shown, targets


def found(logits, ids, targets, processor):
    """How well the hidden pieces of a window were found: `nll` in nats, summed over `tokens` pieces, of which `hits` were
    the likeliest. Where none was hidden, what fills its masks. logits (pieces, vocabulary), ids and targets (pieces,).
    """
    from torch.nn.functional import cross_entropy

    asked = targets != IGNORED
    chosen, right = exact(logits[asked]), targets[asked]
    counts = {"nll": float(cross_entropy(chosen, right, reduction="sum")), "tokens": len(right),
              "hits": int((chosen.argmax(-1) == right).sum())}
    return counts if len(right) else {**counts, "fills": fills(logits[ids == processor.mask_token_id], processor)}


def fills(logits, processor):
    """The likeliest word for each mask, from logits (masks, vocabulary)."""
    best = zip(*(part.tolist() for part in exact(logits).softmax(-1).max(-1)), strict=True)
    return [{"token": processor.decode([piece]).strip(), "probability": probability} for probability, piece in best]


def filled(text, mask, fills):
    """A text with its masks filled, as far as there are fills."""
    from itertools import zip_longest

    around = zip_longest(text.split(mask), [fill["token"] for fill in fills], fillvalue="")
    return "".join(before + word for before, word in around)


def totals(predictions):
    """Mean negative log-likelihood of a hidden piece, in nats, its exponential, and the share that was found."""
    from math import exp

    nll, pieces, hits = (sum(prediction[name] for prediction in predictions) for name in ("nll", "tokens", "hits"))
    loss = nll / pieces
    return {"loss": loss, "perplexity": exp(min(loss, 700.0)), "accuracy": hits / pieces}
