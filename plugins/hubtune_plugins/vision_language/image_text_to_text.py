"""Answers about images by vision-language models, such as Idefics3, LLaVA and Gemma 3; only the answers are learnt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hubtune import (
    Base,
    Batch,
    Column,
    DataError,
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
    row_numbers,
)
from hubtune_plugins.generation import chat
from hubtune_plugins.generation.usages import PROVEN
from hubtune_plugins.vision.images import load_rgb
from hubtune_plugins.vision_language import processing
from hubtune_plugins.vision_language.dialogues import dialogue, is_answered, words_of
from hubtune_plugins.writing.likelihood import Writing, likelihood_scores


@dataclass(frozen=True)
class ImageTextOptions:
    max_new_tokens: int = option(128, "the longest answer that is written")
    generate: bool = option(True, "write an answer for every row of the final evaluation; false: only its likelihood, which is fast")


class ImageTextToText(Writing):
    """A text about images and a question, or in a conversation with images."""

    name = "image-text-to-text"
    summary = "answers about images, in questions or conversations, by a vision-language model"
    model = "AutoModelForImageTextToText"
    processor = "AutoProcessor"
    pipeline_tag = "image-text-to-text"
    unit = "patches"  # a row is not cut: its images would lose their places
    fixture = "hubtune_plugins.vision_language.fixtures:Pictures"
    input = "prompt"
    requires: ClassVar[tuple[str, ...]] = ("PIL",)
    extra = "hubtune[vision]"
    shares: ClassVar[tuple[str, ...]] = ("exact_match",)
    Options: ClassVar[type] = ImageTextOptions
    ahead = 1
    columns: ClassVar[tuple[Column, ...]] = (
        Column("messages", ("messages", "conversations", "conversation"), kind="any", needed="never"),
        Column("images", ("images", "image_paths", "pictures"), kind="any", needed="never", gaps=True),
        Column("image", ("image", "img", "picture", "photo", "file_name"), kind="image", needed="never", gaps=True),
        Column("prompt", ("prompt", "question", "query", "instruction", "text"), kind="text", needed="never"),
        Column("completion", ("completion", "answer", "response", "output", "caption", "label", "answers"), kind="label",
               needed="never"),  # a label is hidden from predictions
        Column("system", ("system", "system_prompt"), needed="never", gaps=True),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        for split, rows in splits.items():
            refuse_unlearnable(rows, split)
        return {}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        return ModelSetup(processor=processing.opened(base))

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for number, row in enumerate_rows(rows):
            try:
                said, images = dialogue(row)
            except DataError as error:
                raise DataError(error.message, where=error.where or f"row {number + 1}", hint=error.hint) from error
            yield [processing.encoded(base, said, images, number)]

    def num_tokens(self, example: Example) -> int:
        return int(example["tokens"])

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        inputs, targets = processing.collated(base, examples)
        return Batch(inputs, targets, len(examples), self.counts(targets))

    def generation_config(self, base: Base) -> dict[str, Any]:
        words = processing.text_base(base)
        return {"eos_token_id": ends_of(words), "pad_token_id": words.processor.pad_token_id, "do_sample": False}

    def predict(self, model: Any, batch: Batch, base: Base) -> list[Prediction]:
        if batch.targets is not None and not self.options.generate:
            return [{} for _ in range(batch.size)]
        inputs = dict(batch.inputs)
        lengths = (inputs["attention_mask"].sum(1) if batch.targets is None else batch.targets["starts"]).tolist()
        asked = processing.questions(base, inputs, lengths)
        written = model.generate(**asked, max_new_tokens=self.options.max_new_tokens, do_sample=False)
        texts = base.processor.tokenizer.batch_decode(written[:, asked["input_ids"].shape[1]:], skip_special_tokens=True)
        return [{"text": text.strip()} for text in texts]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        scores: dict[str, float] = likelihood_scores(predictions)
        if all("text" in prediction for prediction in predictions):
            right = [self.wanted(row, base) == found["text"] for row, found in zip(rows, predictions, strict=True)]
            scores["exact_match"] = sum(right) / max(1, len(right))
        return scores

    def wanted(self, row: Row, base: Base) -> str:
        return words_of(dialogue(row)[0][-1])

    def question(self, row: Row) -> Row:
        if row.get("messages") is None:
            return row
        said, images = dialogue({**row, "system": None})
        return {**row, "messages": said[:-1] if is_answered(said) else said, "images": images, "image": None}

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        said, images = dialogue(row)
        pictures = iter([load_rgb(image) for image in images])
        asked = [{**turn, "content": [{**part, "image": next(pictures)} if part["type"] == "image" else part
                                      for part in turn["content"]]} for turn in said]
        most = min(self.options.max_new_tokens, PROVEN)
        return UserCall("pipeline", asked, {"max_new_tokens": most, "return_full_text": False})

    def usage(self, repo: str, base: Base) -> str:
        return f'''from transformers import pipeline

pipe = pipeline("image-text-to-text", model="{repo}")
question = {{"role": "user", "content": [{{"type": "image", "path": "image.png"}}, {{"type": "text", "text": "What is this?"}}]}}
found = pipe([question], max_new_tokens={self.options.max_new_tokens}, return_full_text=False)
print(found[0]["generated_text"])'''


def ends_of(words: Base) -> list[int]:
    """Return the ids that end an answer: the end token, and what the chat template closes an answer with."""
    talk = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
    closing = chat.pieces(words, talk)[-1][0]
    tokenizer = words.processor
    ends = {tokenizer.convert_tokens_to_ids(mark) for mark in chat.marks(words) if closing.endswith(mark)}
    return sorted((ends | {tokenizer.eos_token_id}) - {None})


def refuse_unlearnable(rows: Rows, split: str) -> None:
    """Refuse a split for rows that have nothing to learn or images that do not fit, by the first reason."""
    bad: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        try:
            said, _ = dialogue(row)
        except DataError as error:
            bad[(f"an error ({error.message})", error.hint)].append(index)
            continue
        if not is_answered(said) or not words_of(said[-1]):
            bad[("no answer at their end, or an empty one", None)].append(index)
    for (problem, hint), indices in bad.items():
        raise DataError(f"{len(indices)} of {len(rows)} rows have {problem}: {row_numbers(indices, rows)} of {split}.",
                        hint=hint or "Mend these rows or take them out, and run the same command again.")
    if not any(row.get("images") or row.get("image") or dialogue(row)[1] for row in rows):
        raise DataError(f"no row of {split} has an image.", hint="Name the column: --set data.image=COLUMN, or "
                        "--set data.images=COLUMN; for texts alone: hubtune train text-generation")


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [ImageTextToText]
