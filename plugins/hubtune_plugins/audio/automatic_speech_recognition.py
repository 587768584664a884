"""Speech recognition: by connectionist temporal classification, CTC (Graves et al., ICML 2006), or by a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import (
    Base,
    Batch,
    Example,
    ExampleRNG,
    Loss,
    Metric,
    ModelError,
    ModelSetup,
    Panel,
    Prediction,
    Rows,
    Task,
    hookimpl,
    option,
)
from hubtune_plugins.audio import panels
from hubtune_plugins.audio.characters import TEXT, error_rates, ids_of, in_case, processor_of, settled, spoken
from hubtune_plugins.audio.ctc import (
    crowded_rows,
    ctc_losses,
    heard,
    likeliest,
    refuse_crowded,
    refuse_empty,
    targets_of,
)
from hubtune_plugins.audio.sounds import AUDIO, SoundTask, augmentation, examples_of, frames_of, inputs_of

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class SpeechOptions:
    casing: str = option("auto", "how text is written; auto: with CTC as the vocabulary does, lower for a new one; else as it is",
                         choices=("auto", "lower", "upper", "keep"))
    punctuation: str = option("auto", "what becomes of punctuation; auto: dropped with CTC, kept by models with a decoder",
                              choices=("auto", "drop", "keep"))
    language: str = option("", "for models with a decoder: the language of the texts, such as de; multilingual Whisper needs it")
    task: str = option("auto", "what Whisper does: transcribe, or translate to English; auto: as its generation "
                       "configuration says, else transcribe", choices=("auto", "transcribe", "translate"))
    max_new_tokens: int = option(440, "for models with a decoder: the longest text that is written, in tokens")
    num_beams: int = option(1, "for models with a decoder: how many beginnings are kept while a text is written; 1: greedy")


class SpeechRecognition(SoundTask):
    """Speech as text, by CTC over characters, or over the tokens that the model came with; `DecoderRecognition` for the others."""

    contract = 2
    name = "automatic-speech-recognition"
    summary = "speech as text, by CTC or a decoder such as Whisper's"
    model = "AutoModelForCTC"
    pipeline_tag = "automatic-speech-recognition"
    fixture = "hubtune_plugins.audio.fixtures:Transcripts"
    metric = Metric("wer", higher_is_better=False)
    requires = ("soundfile", "soxr", "jiwer")
    Options = SpeechOptions
    columns = (AUDIO, TEXT)

    @classmethod
    def for_config(cls, config: Any) -> type[Task[Any]]:
        import transformers

        from hubtune_plugins.audio.decoder_recognition import DecoderRecognition

        return DecoderRecognition if type(config) in transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING else SpeechRecognition

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        texts = [spoken(row["text"], self.options.punctuation) for row in splits["train"]]
        refuse_empty(texts)
        crowded = crowded_rows(texts, frames_of([row["audio"] for row in splits["train"]], 16000))
        return {"characters": sorted(set("".join(texts)) - {" "}), **({"crowded": crowded} if crowded else {})}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        if self.options.language or self.options.task != "auto":
            raise ModelError("it writes characters by CTC, and takes neither a language nor a task.", where=base.repo,
                             hint="Leave task.language and task.task out, or take a Whisper kind of model.")
        refuse_crowded(dataset_info.get("crowded"))
        tokenizer, self.case, size = settled(base, dataset_info, self.options.casing)
        self.blank = tokenizer.pad_token_id
        head = {"pad_token_id": self.blank, "vocab_size": size}
        return ModelSetup({**head, **augmentation(base.config)}, processor_of(base, tokenizer))

    def written(self, text: str) -> Any:
        return in_case(spoken(text, self.options.punctuation), self.case)  # as the model is to write it

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        for row, example in zip(rows, examples_of(rows, base), strict=True):
            if row.get("text") is not None:
                example["ids"] = ids_of(base.processor.tokenizer, self.written(row["text"]))
            yield [example]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        """Its loss is in nats per character, whatever the length of the texts."""
        targets = targets_of(examples)
        counts = {} if targets is None else {"loss": float(targets["lengths"].sum())}
        return Batch(inputs_of(examples, base, rngs), targets, len(examples), counts)

    def forward(self, model: Module, batch: Batch) -> Any:
        return heard(model, super().forward(model, batch).logits, batch.inputs.get("attention_mask"))

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        return Loss(ctc_losses(outputs, batch.targets, self.blank).sum())

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        return [{"text": base.processor.tokenizer.decode(ids)} for ids in likeliest(outputs)]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return error_rates([self.written(row["text"]) for row in rows], [one["text"] for one in predictions])

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        return panels.of_texts([self.written(row["text"]) for row in rows], [one["text"] for one in predictions],
                               [row["audio"] for row in rows])


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [SpeechRecognition]
