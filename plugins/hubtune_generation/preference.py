"""Preference: of two answers to a prompt the chosen one becomes likelier than the rejected one (DPO)."""

from dataclasses import dataclass

from hubtune import Batch, Column, DataError, Loss, Metric, hookimpl, option, row_numbers
from hubtune_generation import chat, sequences
from hubtune_generation.text_generation import TextGeneration, learnable

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class PreferenceOptions:
    beta: float = option(0.1, "how strongly the model is held to what it was before: lower is freer")
    label_smoothing: float = option(0.0, "the share of pairs that may be the wrong way round")
    sft: float = option(0.0, "the weight of the chosen answers' own loss beside that of the pairs")
    max_new_tokens: int = option(128, "the longest text that is written for a row")
    temperature: float = option(0.0, "0: always the likeliest token; above: drawn")


class Preference(TextGeneration):
    """DPO, by the summed log-probabilities of answers (longer ones have lower): Rafailov et al., arXiv:2305.18290."""

    contract = 1
    name = "preference"
    summary = "a decoder that prefers the chosen of two answers (DPO)"
    metric = Metric("reward_accuracy")
    Options = PreferenceOptions
    columns = (
        Column("prompt", ("prompt", "instruction", "question", "query", "input")),
        Column("chosen", ("chosen", "preferred", "better", "winner", "chosen_response"), kind="any", needed="train"),
        Column("rejected", ("rejected", "dispreferred", "worse", "loser", "rejected_response"), kind="any",
               needed="train"),
    )

    def inspect(self, splits):
        for split, rows in splits.items():
            bad = [index for index, row in enumerate(rows) if row["chosen"] == row["rejected"]
                   or not all(learnable(pair_row(row, side), "chat") for side in SIDES)]
            if bad:
                raise DataError(
                    f"{len(bad)} of {len(rows)} rows have an empty answer or two answers that are the same: "
                    f"{row_numbers(bad)} of {split}.", hint="Mend these rows or take them out.",
                )
        return {"form": "chat"}

    def encode(self, rows, base):
        for row in rows:
            if row.get("chosen") is None or row.get("rejected") is None:
                yield [chat.encoded(base, chat.conversation({"prompt": row["prompt"]}))]
            else:
                yield [{side: chat.encoded(base, chat.conversation(pair_row(row, side))) for side in SIDES}]

    def size(self, example):
        """Both answers of a pair go through the model."""
        return sum(map(super().size, (example[side] for side in SIDES) if "chosen" in example else [example]))

    def length(self, example):
        return max(map(super().size, (example[side] for side in SIDES) if "chosen" in example else [example]))

    def collate(self, examples, base, draws):
        import torch

        if not all("chosen" in example for example in examples):
            return super().collate(examples, base, None)
        batch = super().collate([example[side] for side in SIDES for example in examples], base, None)
        if all("reference" in example for example in examples):
            batch.targets["reference"] = torch.tensor([example["reference"] for example in examples])
        return Batch(batch.inputs, batch.targets, len(examples))

    def annotate(self, outputs, batch, base):
        return [{"reference": pair} for pair in self.log_probabilities(outputs, batch).tolist()]

    def log_probabilities(self, outputs, batch):
        """Of the chosen and the rejected answers, summed over their tokens: (pairs, 2)."""
        losses, _ = sequences.token_losses(*sequences.following(outputs.logits, sequences.labels_of(batch)))
        return -losses.sum(1).view(2, batch.size).T

    def rewards(self, outputs, batch):
        """beta times how much likelier answers are than in the reference, (pairs, 2); without one it counts as 0."""
        found = self.log_probabilities(outputs, batch)
        return self.options.beta * (found - batch.targets.get("reference", found.new_zeros(())).to(found.dtype))

    def count(self, batch):
        counts = {"loss": float(batch.size)}
        if self.options.sft:
            counts["sft"] = float(sequences.target_count(sequences.labels_of(batch)[: batch.size]))
        return counts

    def loss(self, outputs, batch):
        from torch.nn import functional as F

        rewards, counts, wrong = self.rewards(outputs, batch), self.count(batch), self.options.label_smoothing
        margins = rewards[:, 0] - rewards[:, 1]
        each = -(1 - wrong) * F.logsigmoid(margins) - wrong * F.logsigmoid(-margins)
        terms = [Loss(each.sum(), counts["loss"])]
        if self.options.sft:
            said = -self.log_probabilities(outputs, batch)[:, 0].sum()
            terms.append(Loss(said, counts["sft"], name="sft", weight=self.options.sft))
        return terms

    def judge(self, outputs, batch, base):
        found = [{"chosen": chosen, "rejected": rejected}
                 for chosen, rejected in self.log_probabilities(outputs, batch).tolist()]
        if "reference" in batch.targets:
            for answer, (chosen, rejected) in zip(found, self.rewards(outputs, batch).tolist(), strict=True):
                answer["reward_margin"] = chosen - rejected
        return found

    def predict(self, model, batch, base):
        return [{} for _ in range(batch.size)] if batch.targets is not None else super().predict(model, batch, base)

    def score(self, predictions, rows, base):
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

    def sample(self, count):
        return [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "No."}
                for row in super().sample(count)]

    def gold(self, row, base):
        return {"chosen": 0.0, "rejected": -100.0, "reward_margin": 100.0}


def pair_row(row, side):
    """A prompt with one of its answers."""
    return {"prompt": row["prompt"], "completion": row[side]}


def wins(margins):
    """The share of differences above 0, of those that are 0 half."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


@hookimpl
def hubtune_tasks():
    return [Preference]
