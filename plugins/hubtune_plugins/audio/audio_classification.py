"""Audio classification: one label per sound, such as a keyword, a speaker, a language or an instrument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    ModelSetup,
    Row,
    Rows,
    Task,
    UserCall,
    hookimpl,
    option,
)
from hubtune_plugins.audio import panels
from hubtune_plugins.audio.sounds import AUDIO, FRAMES, SoundTask, augmentation, examples_of, inputs_of
from hubtune_plugins.classification.labelled import Labelled, LabelOptions


@dataclass(frozen=True)
class AudioOptions(LabelOptions):
    max_seconds: float = option(30.0, "longer sounds are cut, in training anywhere, else in the middle; 0: never")


class AudioClassification(Labelled, SoundTask):
    """One label per sound."""

    name = "audio-classification"
    summary = "a label for a sound: keyword, speaker, emotion, instrument"
    model = "AutoModelForAudioClassification"
    pipeline_tag = "audio-classification"
    fixture = "hubtune_plugins.audio.fixtures:SoundLabels"
    Options = AudioOptions
    columns = (
        AUDIO,
        Column("label", ("label", "labels", "class", "category", "target", "command", "keyword", "intent", "emotion",
                         "genre", "language", "speaker", "speaker_id", "y"), kind="label", needed="train"),
    )

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        return super().model_config(dataset_info, base) | ModelSetup(augmentation(base.config))

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        limits = [round(self.options.max_seconds * FRAMES), base.max_length]
        for row, example in zip(rows, examples_of(rows, base, min(filter(None, limits), default=None)), strict=True):
            yield [self.with_target(example, row, base)]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        return self.batch(inputs_of(examples, base, rngs), examples)

    def media(self, row: Row) -> str | None:
        return panels.media(row["audio"])

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        call = super().user_call(row, base)
        return call and UserCall("pipeline", call.inputs[0], {"top_k": base.config.num_labels})


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [AudioClassification]
