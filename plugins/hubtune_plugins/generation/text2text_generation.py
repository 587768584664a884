"""Text to text with an encoder and a decoder: translation, summarisation and other rewriting."""

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
    ModelError,
    ModelSetup,
    Prediction,
    Row,
    Rows,
    Task,
    UserCall,
    hookimpl,
    option,
)
from hubtune_plugins.generation import usages
from hubtune_plugins.generation.chat import missing
from hubtune_plugins.generation.languages import forced_token, languages_of, start_token
from hubtune_plugins.generation.scores import text_scores
from hubtune_plugins.generation.sequences import ended, limit_of, longest_text, padded, taught
from hubtune_plugins.writing.likelihood import Writing, likelihood_scores

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class RewritingOptions:
    prefix: str = option("", "what stands before every text, such as T5's `summarize: `")
    max_new_tokens: int | None = option(None, "tokens that may be written for a row; none: as many as the longest target has, 128 at least")
    num_beams: int = option(1, "how many beginnings are kept while a text is written; 1: greedy")
    source_lang: str = option("", "for models of many languages: that of the text, as the tokenizer calls it")
    target_lang: str = option("", "for models of many languages: that of the target, as the tokenizer calls it")
    words: str = option("auto", "how BLEU and ROUGE tell words apart", choices=("auto", "13a", "zh", "char"))


class Text2TextGeneration(Writing):
    """A target text for every text."""

    name = "text2text-generation"
    summary = "a text from a text by an encoder and a decoder: translation, summaries"
    model = "AutoModelForSeq2SeqLM"
    pipeline_tag = "text2text-generation"
    fixture = "hubtune_plugins.generation.fixtures:Rewriting"
    input = "text"
    Options = RewritingOptions
    requires = ("sacrebleu", "torchmetrics")
    extra = "hubtune[generation]"
    seen = 0  # tokens of the longest target that was encoded
    bootstrap_samples = 50  # chrF of many texts takes its time
    columns = (
        Column("text", ("text", "source", "document", "article", "dialogue", "src", "input", "inputs", "en",
                        "question")),
        Column("target", ("target", "targets", "summary", "highlights", "abstract", "translation", "output", "tgt",
                          "title", "headline", "answer", "zh", "de", "fr", "es", "ru", "ja", "ro"), needed="train"),
    )

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        if not base.config.is_encoder_decoder:  # transformers counts models that hear and then write as well
            raise ModelError("it has no decoder apart from what reads the text.", where=base.repo,
                             hint="Write with it as with any decoder: hubtune train text-generation")
        languages = languages_of(base, self.options.source_lang, self.options.target_lang)
        return ModelSetup(tokenizer={**missing(base.processor), **languages})

    def start(self, base: Base) -> Any:
        return start_token(base, self.options.target_lang)

    def forced(self, base: Base) -> Any:
        return forced_token(base, self.options.target_lang)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        cut = {"truncation": base.max_length is not None, "max_length": base.max_length, "verbose": False}
        for row in rows:
            example = {"input_ids": base.processor(self.options.prefix + row["text"], **cut).input_ids}
            if row.get("target") is not None:
                example["labels"] = ended(base, base.processor(text_target=row["target"], **cut).input_ids)
                self.seen = max(self.seen, len(example["labels"]))
            yield [example]

    def num_tokens(self, example: Example) -> int:
        return len(example["input_ids"]) + len(example.get("labels", ()))

    def length(self, example: Example) -> int:
        return max(len(example["input_ids"]), len(example.get("labels", ())))

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        ids, mask = padded(base, [example["input_ids"] for example in examples])
        read, targets = taught(base, examples, self.start(base))
        return Batch({"input_ids": ids, "attention_mask": mask, "decoder_input_ids": read}, targets, len(examples),
                     self.counts(targets))

    def written(self, base: Base) -> dict[str, Any]:
        """Return how `generate` is called, here and on the model's card."""
        return {"num_beams": self.options.num_beams, "decoder_start_token_id": self.start(base), **self.forced(base)}

    def generation_config(self, base: Base) -> dict[str, Any]:
        """Return what a call of `generate` without arguments needs to write what is measured here, once targets were encoded.

        The lengths of the base model's own task, such as a summary of 56 tokens at least, are left to the targets.
        """
        wanted = self.options.max_new_tokens
        if not (wanted or self.seen):  # a tuned model, which has it
            return {}
        beams = {} if self.options.num_beams > 1 else {"early_stopping": None, "length_penalty": None}
        return {**self.written(base), **beams, "max_new_tokens": self.longest(base), "max_length": None, "min_length": None}

    def longest(self, base: Base) -> int:
        """Return how many tokens may be written for a row, by the targets that were encoded."""
        return min(longest_text(self.options.max_new_tokens, self.seen), (base.max_length or 10**6) - 1)

    def predict(self, model: Any, batch: Batch, base: Base) -> list[Prediction]:
        most = min(limit_of(model, self.options.max_new_tokens), (base.max_length or 10**6) - 1)
        written = model.generate(
            input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"], max_new_tokens=most,
            do_sample=False, pad_token_id=base.processor.pad_token_id, **self.written(base),
        )
        return [{"text": text.strip()} for text in base.processor.batch_decode(written, skip_special_tokens=True)]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        scores = likelihood_scores(predictions)
        del scores["perplexity"]
        if all("text" in prediction for prediction in predictions):
            scores |= text_scores([p["text"] for p in predictions], [row["target"] for row in rows], self.options.words)
        return scores

    def wanted(self, row: Row, base: Base) -> str:
        return str(row["target"])

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        most = min(self.longest(base), usages.PROVEN)
        return UserCall("generate", self.options.prefix + row["text"], {"max_new_tokens": most, **self.written(base)})

    def usage(self, repo: str, base: Base) -> Any:
        arguments = {"max_new_tokens": self.longest(base), **self.written(base)}
        return usages.rewriting(repo, self.options.prefix, arguments)


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [Text2TextGeneration]
