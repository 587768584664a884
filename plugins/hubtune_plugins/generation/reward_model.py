"""Reward model: a number for an answer, higher for the one that people chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune import (
    Base,
    Batch,
    Column,
    Loss,
    Metric,
    ModelSetup,
    UserCall,
    enumerate_rows,
    exact,
    hookimpl,
    label_config,
    option,
)
from hubtune_plugins.classification.kinds import number
from hubtune_plugins.generation import chat, usages
from hubtune_plugins.generation.conversations import AROUND, conversation, refuse_undecided
from hubtune_plugins.generation.pairs import rewards
from hubtune_plugins.generation.pairs.bradley_terry import pair_losses
from hubtune_plugins.generation.pairs.rewards import Rows
from hubtune_plugins.generation.text_generation import TextGeneration
from hubtune_plugins.generation.turns.rendering import ChatOptions, Fields, render
from hubtune_plugins.tokenization.texts import SeveralTexts, pad, pad_token


@dataclass(frozen=True)
class RewardOptions(ChatOptions):
    centering: float = option(0.0, "weight of a term that keeps the two rewards of a pair around 0, such as 0.01")


class RewardModel(SeveralTexts):
    """Pairs of answers by the model of Bradley and Terry, as in InstructGPT (Ouyang et al., arXiv:2203.02155).

    A `margin` is how much better the chosen answer is (Touvron et al., Llama 2, arXiv:2307.09288). Centering: Eisenstein et al.,
    arXiv:2312.09244. Decoders are read at the last token that is not padding.
    """

    name = "reward-model"
    summary = "a score for answers, from pairs of which one was chosen"
    model = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    fixture = "hubtune_plugins.generation.fixtures:Rewards"
    metric = Metric("accuracy")
    shares = ("accuracy",)
    input = "text"
    Options = RewardOptions
    columns = (
        Column("prompt", ("prompt", "instruction", "question", "query", "input"), kind="any", needed="never"),
        Column("chosen", ("chosen", "preferred", "better", "winner", "chosen_response"), kind="any", needed="never"),
        Column("rejected", ("rejected", "dispreferred", "worse", "loser", "rejected_response"), kind="any", needed="never"),
        Column("margin", ("margin",), kind="label", needed="never"),
        Column("completion", ("completion", "response", "answer", "output"), kind="any", needed="never"),
        Column("messages", ("messages", "conversations", "conversation"), kind="any", needed="never"),
        *(column for column in TextGeneration.columns if column.role in AROUND),
        Column("text", ("text", "content"), needed="never"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        for split, rows in splits.items():
            refuse_undecided(rows, split)
        return {}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        self.fields = Fields(self.options.ignore_fields)
        head = {**label_config(["LABEL_0"], base.config), "problem_type": "regression"}
        return ModelSetup(head, tokenizer=chat.missing(base.processor, chats=True)) | pad_token(base, end=False)

    def encode(self, rows: Rows, base: Base) -> Iterator[list[dict[str, Any]]]:
        for place, row in enumerate_rows(rows):
            texts = [rewards.encoded(base, text, self.fields, place) for text in rewards.texts_of(row)]
            yield [{"texts": texts, **({"margin": number(row["margin"])} if row.get("margin") is not None else {})}]

    def collate(self, examples: Sequence[Mapping[str, Any]], base: Base, rngs: Any) -> Batch:
        """All texts behind each other, (texts, longest), and how many each row has; targets: the margins of pairs."""
        import torch

        counts = [len(example["texts"]) for example in examples]
        inputs = pad(base, [text for example in examples for text in example["texts"]])
        margins = torch.tensor([example.get("margin", 0.0) for example in examples]) if min(counts) == 2 else None
        terms = ["loss", *(["centering"] if self.options.centering else [])]
        return Batch({**inputs, "texts": counts}, margins, len(examples), dict.fromkeys(terms, float(len(examples))))

    def loss(self, outputs: Any, batch: Batch) -> list[Loss]:
        chosen, rejected = exact(outputs.logits).view(batch.size, 2).unbind(1)
        terms = [Loss(pair_losses(chosen - rejected - batch.targets).sum())]
        if self.options.centering:
            terms.append(Loss(((chosen + rejected) ** 2).sum(), name="centering", weight=self.options.centering))
        return terms

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[dict[str, Any]]:
        return rewards.answers(exact(outputs.logits)[:, 0].tolist(), batch.inputs["texts"])

    def score(self, predictions: Sequence[dict[str, Any]], rows: Rows, base: Base) -> dict[str, float]:
        return rewards.pair_scores(predictions)

    def user_call(self, row: Mapping[str, Any], base: Base) -> UserCall | None:
        text = rewards.texts_of(row)[0]
        if text.get("messages") is None and text.get("prompt") is None:
            return UserCall("processor", {"text": text["text"]}, {"truncation": True})
        messages = [{name: value for name, value in turn.items() if name != "learnt"} for turn in conversation(text)]
        end, special = rewards.rendered(base, messages)
        return UserCall("processor", {"text": render(base, messages).rstrip() + end}, {"truncation": True, "add_special_tokens": special})

    def usage(self, repo: str, base: Base) -> str:
        return usages.rewarding(repo, *rewards.rendered(base, usages.TALK))


@hookimpl
def hubtune_tasks() -> list[type[RewardModel]]:
    return [RewardModel]
