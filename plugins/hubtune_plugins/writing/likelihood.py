"""Tasks that learn to write: how likely a model finds the tokens of the texts that are right."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from hubtune import (
    BarsPanel,
    Base,
    Batch,
    DataError,
    GenerativeTask,
    Loss,
    Metric,
    Panel,
    Prediction,
    Row,
    Rows,
    RowsPanel,
    ShownRow,
    exact,
)

IGNORED = -100
"""The label of a token that is not learnt."""

SHOWN = 12
"""Rows to look at on the page."""
NOT_WRITTEN = "(nothing was written for rows that are evaluated; --set task.generate=true writes)"


class Writing(GenerativeTask[Any]):
    """A task with the tokens to be written in `batch.targets["labels"]`, (examples, length)."""

    contract = 2
    metric = Metric("loss", higher_is_better=False)
    ahead = 0
    """Positions between a token and its logits: 1 where a model reads what it is to write."""

    def counts(self, targets: Any) -> dict[str, Any]:
        """Tokens that are learnt, as the counts of a batch."""
        return {} if targets is None else {"loss": float((targets["labels"][:, self.ahead:] != IGNORED).sum())}

    def labels(self, batch: Batch) -> Any:
        """The labels that are predicted, (examples, length - ahead)."""
        return batch.targets["labels"][:, self.ahead:]

    def asked(self, outputs: Any, batch: Batch) -> tuple[Any, Any, Any]:
        """The logits of the tokens that have a label, (tokens, vocabulary), these labels, and where they are, (examples, length - ahead).

        Logits of prompts that a strategy adds are left out. Only these become fp32: a vocabulary is large.
        """
        labels, length = self.labels(batch), batch.targets["labels"].shape[1]
        places = labels != IGNORED
        return exact(outputs.logits[:, -length:][:, : length - self.ahead][places]), labels[places], places

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        from torch.nn.functional import cross_entropy

        logits, labels, _ = self.asked(outputs, batch)
        return Loss(cross_entropy(logits, labels, reduction="sum"))

    def losses(self, outputs: Any, batch: Batch) -> Any:
        """Return what the labels of each example cost in nats, summed, (examples,)."""
        from torch.nn.functional import cross_entropy

        logits, labels, places = self.asked(outputs, batch)
        return sums(cross_entropy(logits, labels, reduction="none"), places)

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        """Per example: what its labels cost in nats in all, how many they are, and how many were the likeliest token."""
        from torch.nn.functional import cross_entropy

        logits, labels, places = self.asked(outputs, batch)
        losses, hits = cross_entropy(logits, labels, reduction="none"), logits.argmax(-1) == labels
        counts = zip(*(sums(values, places).tolist() for values in (losses, hits)), places.sum(1).tolist(), strict=True)
        return [{"nll": nll, "tokens": tokens, "hits": right} for nll, right, tokens in counts]

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        """The sums over the windows of a long text."""
        names = [name for name in ("nll", "tokens", "hits") if name in parts[0]]
        sums: Prediction = {name: sum(part[name] for part in parts) for name in names}
        return {**parts[0], **sums}

    @abstractmethod
    def wanted(self, row: Row, base: Base) -> str:
        """Return the text that a row's labels are tokens of."""

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        """The loss by the length of the texts, and the rows that the model finds least likely, with what it writes instead."""
        if not all("nll" in prediction for prediction in predictions):
            return ()  # of a task that compares texts
        costs = [found["nll"] / max(1, found["tokens"]) for found in predictions]
        worst = sorted(range(len(costs)), key=lambda row: -costs[row])[:SHOWN]
        shown = [ShownRow(row, self.wanted(rows[row], base), predictions[row].get("text", NOT_WRITTEN), costs[row]) for row in worst]
        return [by_length(predictions), RowsPanel("Worst rows", shown, note="The rows whose right text the model finds least likely, "
                                                  "per token, beside what it writes.")]

    def show(self, prediction: Prediction) -> Prediction:
        """The text alone, where there is one."""
        return {"text": prediction["text"]} if "text" in prediction else prediction



def by_length(predictions: Sequence[Prediction]) -> BarsPanel:
    """Return the loss per token of texts by their length, which doubles from group to group."""
    groups: dict[int, list[Prediction]] = {}
    for found in predictions:
        groups.setdefault(max(1, found["tokens"]).bit_length(), []).append(found)
    bars = {f"{2 ** (size - 1)} to {2 ** size - 1} tokens ({len(found)} row{'s' * (len(found) > 1)})":
            sum(one["nll"] for one in found) / max(1, sum(one["tokens"] for one in found)) for size, found in sorted(groups.items())}
    return BarsPanel("Loss by length", "nats a token", {"model": bars}, note="By the number of tokens that are learnt of a row.")


def sums(values: Any, places: Any) -> Any:
    """Per example the sum of what its tokens have, (examples,): values (tokens,), in the order of places (examples, length)."""
    import torch

    spread = torch.zeros(places.shape, dtype=values.dtype, device=values.device)
    spread[places] = values
    return spread.sum(1)


def likelihood_scores(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Loss in nats a token, the share of tokens that were likeliest, perplexity."""
    import math

    if not all("nll" in prediction for prediction in predictions):
        raise DataError("the rows have no answers to compare with.", hint="Give rows with answers, or predict instead.")
    tokens = max(1, sum(p["tokens"] for p in predictions))
    loss = sum(p["nll"] for p in predictions) / tokens
    return {"loss": loss, "token_accuracy": sum(p["hits"] for p in predictions) / tokens,
            "perplexity": math.exp(min(loss, 700.0))}
