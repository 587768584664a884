"""Speech recognition with an encoder and a decoder, such as Whisper, Moonshine and Speech2Text: the text is generated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    DataError,
    Example,
    ExampleRNG,
    ModelError,
    ModelSetup,
    Panel,
    Prediction,
    Row,
    Rows,
    UserCall,
    enumerate_rows,
)
from hubtune_plugins.audio.automatic_speech_recognition import SpeechRecognition
from hubtune_plugins.audio.characters import (
    error_rates,
    found_tokenizer,
    ids_of,
    in_case,
    processor_of,
    spoken,
)
from hubtune_plugins.audio.decoder_prompts import decoder_prompt
from hubtune_plugins.audio.padding import unpadded
from hubtune_plugins.audio.sounds import (
    FRAMES,
    augmentation,
    examples_of,
    extractor_of,
    fixed_frames,
    inputs_of,
)
from hubtune_plugins.writing.likelihood import IGNORED, Writing, likelihood_scores

if TYPE_CHECKING:
    from torch.nn import Module


class DecoderRecognition(Writing, SpeechRecognition):
    """Speech as text, by a decoder that writes tokens."""

    model = "AutoModelForSpeechSeq2Seq"
    bootstrap_samples = 50

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        if not base.config.is_encoder_decoder:
            raise ModelError("it has no decoder apart from what hears the sound.", where=base.repo,
                             hint="Take a Whisper, Moonshine or Speech2Text kind of model, or one with CTC.")
        tokenizer = found_tokenizer(base)
        if tokenizer is None or tokenizer.eos_token_id is None:
            raise ModelError("it has no tokenizer with an end token, so that it cannot write what it hears.", where=base.repo,
                             hint="Fetch the model again with its tokenizer's files.")
        self.tokenizer = tokenizer
        self.prompt = decoder_prompt(base, tokenizer, self.options.language, self.options.task, bool(dataset_info))
        return ModelSetup(augmentation(base.config), processor_of(base, tokenizer))

    def written(self, text: str) -> Any:
        """Return a transcription as the model is to write it: unchanged, but for the options."""
        text = spoken(text, "drop") if self.options.punctuation == "drop" else " ".join(str(text).split())
        return in_case(text, "keep" if self.options.casing == "auto" else self.options.casing)

    def room(self, base: Base) -> int:
        """Return how many tokens the model can write after its prompt, the end token among them."""
        text = base.config.get_text_config(decoder=True)
        places = getattr(text, "max_target_positions", None) or getattr(text, "max_position_embeddings", None) or 10**6
        return int(places) - len(self.prompt.ids)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for (number, row), example in zip(enumerate_rows(rows), examples_of(rows, base), strict=True):
            refuse_long(number, example["frames"], fixed_frames(extractor_of(base)))
            if row.get("text") is not None:
                ids = [*ids_of(self.tokenizer, self.prompt.space + self.written(row["text"])), self.tokenizer.eos_token_id]
                if len(ids) > self.room(base):
                    raise DataError(f"row {number + 1}: its text has {len(ids)} tokens, and the model writes "
                                    f"{self.room(base)} at most.",
                                    hint="Divide the sound with its text, or take the row out.")
                example["labels"] = ids
            yield [example]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        read, targets = self.decoder_inputs(examples)
        inputs = {**inputs_of(examples, base, rngs), "decoder_input_ids": read}
        return Batch(inputs, targets, len(examples), self.counts(targets))

    def decoder_inputs(self, examples: Sequence[Example]) -> tuple[Any, Any]:
        """Return what the decoder reads, (examples, longest), and the targets where all examples have a text.

        The prompt is read and not learnt, since `generate` is told it.
        """
        import torch

        prompt = self.prompt.ids
        if not all("labels" in example for example in examples):
            return torch.tensor([prompt] * len(examples)), None
        longest = max(len(example["labels"]) for example in examples)
        read, labels = [], []
        for example in examples:
            ids, space = list(example["labels"]), longest - len(example["labels"])
            read.append([*prompt, *ids[:-1], *[self.tokenizer.eos_token_id] * space])
            labels.append([*[IGNORED] * (len(prompt) - 1), *ids, *[IGNORED] * space])
        return torch.tensor(read), {"labels": torch.tensor(labels)}

    def forward(self, model: Module, batch: Batch) -> Any:
        with unpadded(model, batch.inputs) as inputs:
            return model(**inputs)

    def generation_config(self, base: Base) -> dict[str, Any]:
        return {**self.prompt.generation, "max_length": None, "num_beams": self.options.num_beams, "do_sample": False,
                "max_new_tokens": max(1, min(self.options.max_new_tokens, self.room(base) - 1))}

    def predict(self, model: Any, batch: Batch, base: Base) -> list[Prediction]:
        heard = {name: value for name, value in batch.inputs.items() if name != "decoder_input_ids"}
        with unpadded(model, heard) as inputs:
            written = model.generate(**inputs)
        return [{"text": text.strip()} for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        scores = likelihood_scores(predictions)
        del scores["perplexity"]
        if all("text" in prediction for prediction in predictions):
            scores |= error_rates([self.written(row["text"]) for row in rows], [one["text"] for one in predictions])
        return scores

    def wanted(self, row: Row, base: Base) -> str:
        return str(self.written(row["text"]))

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        """The word error rates and the worst rows, as with CTC; where nothing is written, the least likely rows."""
        if all("text" in prediction for prediction in predictions):
            return SpeechRecognition.panels(self, predictions, rows, base)
        return super().panels(predictions, rows, base)

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        call = super().user_call(row, base)
        return call and UserCall("pipeline", call.inputs[0])


def refuse_long(row: int, frames: int, most: int) -> None:
    """Refuse a sound that is longer than what the model hears: the rest would be lost. most: 0 where there is no limit."""
    if most and frames > most:
        raise DataError(f"row {row + 1}: the sound is {frames / FRAMES:.1f} s long, and the model hears {most / FRAMES:.0f} s.",
                        hint="Divide it into shorter ones, each with its text, or take the row out.")
