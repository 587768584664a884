"""Preference: of two answers to a prompt the chosen one becomes likelier than the rejected one (DPO)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    Loss,
    Metric,
    Prediction,
    ReferenceTask,
    Rows,
    Task,
    enumerate_rows,
    hookimpl,
    option,
)
from hubtune_plugins.generation import chat
from hubtune_plugins.generation.conversations import AROUND, SIDES, refuse_undecided, with_answer
from hubtune_plugins.generation.pairs import dpo
from hubtune_plugins.generation.pairs.bradley_terry import pair_losses
from hubtune_plugins.generation.text_generation import TextGeneration
from hubtune_plugins.generation.turns.rendering import ChatOptions
from hubtune_plugins.writing.likelihood import IGNORED

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class PreferenceOptions(ChatOptions):
    beta: float = option(0.1, "how strongly the model is held to what it was before: lower is freer")
    label_smoothing: float = option(0.0, "the share of pairs that may be the wrong way round")
    sft: float = option(0.0, "the weight of the chosen answers' own loss beside that of the pairs")
    max_new_tokens: int = option(128, "the longest text that is written for a row")
    temperature: float = option(0.0, "0: always the likeliest token; above: drawn")


class Preference(TextGeneration, ReferenceTask[Any]):
    """DPO, by the summed log-probabilities of answers (longer ones have lower): Rafailov et al., arXiv:2305.18290."""

    name = "preference"
    fixture = "hubtune_plugins.generation.fixtures:Preferences"
    summary = "a decoder that prefers the chosen of two answers (DPO)"
    metric = Metric("reward_accuracy")
    shares = ("accuracy", "reward_accuracy")
    Options = PreferenceOptions
    columns = (
        Column("prompt", ("prompt", "instruction", "question", "query", "input"), kind="any", needed="never"),
        Column("chosen", ("chosen", "preferred", "better", "winner", "chosen_response"), kind="any", needed="train"),
        Column("rejected", ("rejected", "dispreferred", "worse", "loser", "rejected_response"), kind="any",
               needed="train"),
        Column("messages", ("messages", "conversations", "conversation"), kind="any", needed="never"),
        *(column for column in TextGeneration.columns if column.role in AROUND),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        for split, rows in splits.items():
            refuse_undecided(rows, split, texts=False)
        return {"form": "chat"}

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for number, row in enumerate_rows(rows):
            if row.get("chosen") is None or row.get("rejected") is None:
                yield [chat.example_of(base, row, self.fields, number)]
            else:
                yield [{side: chat.example_of(base, with_answer(row, side), self.fields, number) for side in SIDES}]

    def num_tokens(self, example: Example) -> int:
        """Both answers of a pair go through the model."""
        return sum(map(super().num_tokens, answers_of(example)))

    def length(self, example: Example) -> int:
        return max(map(super().num_tokens, answers_of(example)))

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        """Chosen and rejected answers in turn, (examples * 2, longest)."""
        import torch

        if not all("chosen" in example for example in examples):
            return super().collate(examples, base, None)
        batch = super().collate([example[side] for example in examples for side in SIDES], base, None)
        if all("reference" in example for example in examples):
            batch.targets["reference"] = torch.tensor([example["reference"] for example in examples])
        counts = {"loss": float(len(examples))}
        if self.options.sft:
            counts["sft"] = float((self.labels(batch)[::2] != IGNORED).sum())
        return Batch(batch.inputs, batch.targets, len(examples), counts)

    def reference_outputs(self, outputs: Any, batch: Batch, base: Base) -> list[dict[str, Any]]:
        return [{"reference": pair} for pair in self.log_probabilities(outputs, batch).tolist()]

    def log_probabilities(self, outputs: Any, batch: Batch) -> Any:
        """Of the chosen and the rejected answers, summed over their tokens: (pairs, 2)."""
        return -self.losses(outputs, batch).view(batch.size, 2)

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        found = self.log_probabilities(outputs, batch)
        rewards = dpo.rewards(found, batch.targets.get("reference"), self.options.beta)
        terms = [Loss(pair_losses(rewards[:, 0] - rewards[:, 1], self.options.label_smoothing).sum())]
        if self.options.sft:
            terms.append(Loss(-found[:, 0].sum(), name="sft", weight=self.options.sft))
        return terms

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        return dpo.answers(self.log_probabilities(outputs, batch), batch.targets.get("reference"), self.options.beta)

    def predict(self, model: Module, batch: Batch, base: Base) -> list[Prediction]:
        return [{} for _ in range(batch.size)] if batch.targets is not None else super().predict(model, batch, base)

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return dpo.pair_scores(predictions)


def answers_of(example: Example) -> list[Any]:
    """The two answers of a pair, or a question alone."""
    return [example[side] for side in SIDES] if "chosen" in example else [example]


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [Preference]
