"""Text generation with a decoder: answers to instructions (only the answers are learnt), or plain texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    ModelSetup,
    Prediction,
    Row,
    Rows,
    Task,
    UserCall,
    enumerate_rows,
    hookimpl,
    option,
)
from hubtune_plugins.generation import chat, packing, sequences, usages
from hubtune_plugins.generation.conversations import conversation, form_of, question_of, refuse_unlearnable
from hubtune_plugins.generation.turns.rendering import ChatOptions, Fields, render
from hubtune_plugins.writing.likelihood import Writing, likelihood_scores

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class GenerationOptions(ChatOptions):
    max_new_tokens: int | None = option(None, "tokens that may be written for a row; none: as many as the longest answer has, 128 at least")
    temperature: float = option(0.0, "0: always the likeliest token; above: drawn")
    generate: bool = option(False, "write an answer for every row that is evaluated too, which is slow")
    packing: bool = option(False, "train on examples joined into rows, where the model keeps them apart")


class TextGeneration(Writing):
    """The next token: of the answers in conversations, of completions of prompts, or of plain texts."""

    name = "text-generation"
    summary = "answers to prompts or conversations, or plain texts, by a decoder"
    model = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    fixture = "hubtune_plugins.generation.fixtures:Instructions"
    input = "prompt"
    shares: ClassVar[tuple[str, ...]] = ("exact_match",)
    Options: ClassVar[type] = GenerationOptions
    ahead = 1
    form = None
    seen = 0  # tokens of the longest answer that was encoded
    columns: ClassVar[tuple[Column, ...]] = (
        Column("prompt", ("prompt", "instruction", "question", "query", "input"), kind="any", needed="never"),
        Column("input", ("input", "context"), needed="never", gaps=True),
        Column("completion", ("completion", "response", "answer", "output", "chosen", "target", "reply"), kind="label",
               needed="never"),  # a label is hidden from predictions
        Column("messages", ("messages", "conversations", "conversation", "dialogue", "chat"), kind="any",
               needed="never"),
        Column("system", ("system", "system_prompt"), needed="never", gaps=True),
        Column("history", ("history",), kind="any", needed="never", gaps=True),
        Column("tools", ("tools", "functions"), kind="any", needed="never", gaps=True),
        Column("text", ("text", "content", "document", "story", "body"), needed="never"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        form = form_of(set(splits["train"][0]))
        for split, rows in splits.items():
            refuse_unlearnable(rows, split, form)
        return {"form": form}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        self.form = dataset_info.get("form") or ("chat" if base.processor.chat_template else None)
        self.checked, self.fields = False, Fields(self.options.ignore_fields)
        # An encoder such as BERT sees what it is to predict unless it is told to be a decoder.
        return ModelSetup({"is_decoder": True} if getattr(base.config, "is_decoder", None) is False else {},
                          tokenizer=chat.missing(base.processor, chats=self.form != "text"))

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for number, row in enumerate_rows(rows):
            if row.get("messages") is None and (row.get("prompt") is None or (self.form == "text" and row.get("text"))):
                yield chat.windows(chat.plain(base, row["text"], ends=True), base.max_length)
            elif self.form != "chat" and row.get("messages") is None and row.get("completion") is None:
                ids = chat.plain(base, row["prompt"], ends=False)
                yield [chat.cut(base, {"input_ids": ids}, len(ids))]
            else:
                example = chat.example_of(base, row, self.fields, number)
                if "start" in example:
                    self.seen = max(self.seen, len(example["input_ids"]) - example["start"])
                yield [example]

    def num_tokens(self, example: Example) -> int:
        return len(example["input_ids"])

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        if rngs is not None and self.options.packing and all("labels" in example for example in examples):
            inputs, targets = packing.packed(examples)
        else:
            inputs, targets = sequences.collated(base, examples)
        return Batch(inputs, targets, len(examples), self.counts(targets))

    def forward(self, model: Module, batch: Batch) -> Any:
        if "position_ids" in batch.inputs and not self.checked:
            self.checked = packing.refuse_leaks(model, batch.inputs)
        return model(**batch.inputs)

    def generation_config(self, base: Base) -> dict[str, Any]:
        """Return the length and the end of answers, for a pipeline that is called without arguments, once answers were encoded."""
        wanted = self.options.max_new_tokens
        if not (wanted or self.seen):  # plain texts, or a tuned model, which has it
            return {}
        return {"max_new_tokens": sequences.longest_text(wanted, self.seen), "max_length": None,
                **({"eos_token_id": ends} if (ends := chat.end_tokens(base)) else {})}

    def predict(self, model: Module, batch: Batch, base: Base) -> list[Prediction]:
        if batch.targets is not None and not (self.options.generate and bool((batch.targets["starts"] > 0).all())):
            return [{} for _ in range(batch.size)]
        texts = sequences.continued(model, base, sequences.prompts_of(batch), chat.end_tokens(base),
                                    sequences.limit_of(model, self.options.max_new_tokens), self.options.temperature)
        return [{"text": text} for text in texts]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        scores = likelihood_scores(predictions)
        if all("text" in prediction for prediction in predictions):
            from sklearn.metrics import accuracy_score

            wanted = [chat.answer_text(base, row, self.fields) for row in rows]
            scores["exact_match"] = float(accuracy_score(wanted, [p["text"] for p in predictions]))
        return scores

    def wanted(self, row: Row, base: Base) -> str:
        return str(row["text"]) if self.form == "text" and row.get("text") else chat.answer_text(base, row, self.fields)

    def question(self, row: Row) -> Row:
        return question_of(row)

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        if row.get("tools"):  # the pipeline takes none
            return None
        said = [{name: value for name, value in turn.items() if name != "learnt"} for turn in conversation(row)]
        asked = said if self.form == "chat" else said[-1]["content"]
        most = min(sequences.longest_text(self.options.max_new_tokens, self.seen), usages.PROVEN)
        read = render(base, said, ask=True) if self.form == "chat" else asked
        if base.max_length is not None and len(base.processor(read).input_ids) + most > base.max_length:
            return None
        return UserCall("pipeline", asked, {"max_new_tokens": most, "do_sample": False, "return_full_text": False,
                                            "eos_token_id": chat.end_tokens(base)})

    def usage(self, repo: str, base: Base) -> Any:
        return usages.continuing(repo, self.form == "chat", sequences.longest_text(self.options.max_new_tokens, self.seen), chat.end_tokens(base))


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [TextGeneration]
