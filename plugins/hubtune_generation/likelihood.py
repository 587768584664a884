"""Tasks that learn to write: how likely a model finds the tokens of the texts that are right."""

from hubtune import DataError, Loss, Metric, Task
from hubtune_generation.chat import IGNORED


class Writing(Task):
    """A task with the tokens to be written in `batch.targets["labels"]`, (examples, length)."""

    contract = 1
    metric = Metric("loss", higher_is_better=False)
    ahead = 0
    """How many places before a token its logits are: 1 where a model reads what it is to write."""

    def labels(self, batch):
        """The labels that are predicted, (examples, length - ahead)."""
        return batch.targets["labels"][:, self.ahead:]

    def token_losses(self, outputs, batch):
        """`token_losses` of a batch. Logits of prompts that a strategy adds are left out."""
        length = batch.targets["labels"].shape[1]
        return token_losses(outputs.logits[:, -length:][:, : length - self.ahead], self.labels(batch))

    def count(self, batch):
        return {"loss": float((self.labels(batch) != IGNORED).sum())}

    def loss(self, outputs, batch):
        losses, _ = self.token_losses(outputs, batch)
        return Loss(losses.sum(), self.count(batch)["loss"])

    def judge(self, outputs, batch, base):
        """Per example: what its labels cost in nats in all, how many they are, and how many were the likeliest token."""
        losses, hits = self.token_losses(outputs, batch)
        counts = zip(losses.sum(1).tolist(), (self.labels(batch) != IGNORED).sum(1).tolist(), hits.sum(1).tolist(), strict=True)
        return [{"nll": nll, "tokens": tokens, "hits": right} for nll, tokens, right in counts]

    def merge(self, parts, row, base):
        """The sums over the windows of a long text."""
        sums = {name: sum(part[name] for part in parts) for name in ("nll", "tokens", "hits") if name in parts[0]}
        return {**parts[0], **sums}

    def show(self, prediction):
        """The text alone, where there is one."""
        return {"text": prediction["text"]} if "text" in prediction else prediction

    def gold(self, row, base):
        [examples] = self.encode([row], base)
        tokens = sum(label != IGNORED for example in examples for label in example["labels"])
        return {"nll": 0.0, "tokens": tokens, "hits": tokens}


def token_losses(logits, labels):
    """What each label costs in nats, (examples, length), 0 where there is none, and whether it is the likeliest token.

    Only places with a label are taken into fp32 (fp64 where the model computes in it): vocabularies are large.
    """
    import torch
    from torch.nn import functional as F

    places = labels != IGNORED
    chosen = logits[places]
    chosen = chosen if chosen.dtype == torch.float64 else chosen.float()
    losses = torch.zeros(labels.shape, dtype=chosen.dtype, device=chosen.device)
    losses[places] = F.cross_entropy(chosen, labels[places], reduction="none")
    hits = torch.zeros_like(places)
    hits[places] = chosen.argmax(-1) == labels[places]
    return losses, hits


def likelihood_scores(predictions):
    """Loss in nats a token, the share of tokens that were likeliest, perplexity."""
    import math

    if not all("nll" in prediction for prediction in predictions):
        raise DataError("the rows have no answers to compare with.", hint="Give rows with answers, or predict instead.")
    tokens = max(1, sum(p["tokens"] for p in predictions))
    loss = sum(p["nll"] for p in predictions) / tokens
    return {"loss": loss, "token_accuracy": sum(p["hits"] for p in predictions) / tokens,
            "perplexity": math.exp(min(loss, 700.0))}
