"""Shared by the audio tasks: any sound to samples, samples to a model's inputs, and models that feel no padding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune import (
    Base,
    Batch,
    Column,
    DataError,
    Example,
    ExampleRNG,
    Row,
    Rows,
    Task,
    UserCall,
    enumerate_rows,
    row_numbers,
)
from hubtune_plugins.audio.padding import masked

if TYPE_CHECKING:
    from torch.nn import Module

FRAMES = 50
"""Frames of a second, as wav2vec 2.0 and its kin make them: one every 20 ms."""
PROVEN = 30
"""Seconds of a sound that the published model is asked about in the proof."""
SHORTEST = 0.025
"""Seconds that one frame covers; shorter sounds are filled with silence up to here."""


AUDIO = Column(
    "audio", ("audio", "sound", "speech", "recording", "file_name", "filename", "file", "path", "wav"), kind="audio"
)


class SoundTask(Task[Any]):
    """Base class of all tasks over sound: rows hold a sound under `audio`, and cost its length in frames."""

    processor = "AutoFeatureExtractor"
    unit = "frames"
    input = "audio"
    requires: ClassVar[tuple[str, ...]] = ("soundfile", "soxr")
    extra = "hubtune[audio]"

    def num_tokens(self, example: Example) -> int:
        return int(example["size"])

    def forward(self, model: Module, batch: Batch) -> Any:
        """The model's output, in which no sound feels the silence that it was padded with."""
        with masked(model, batch.inputs.get("attention_mask")):
            return super().forward(model, batch)

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        rate = extractor_of(base).sampling_rate
        return UserCall("processor", [decode(row["audio"], rate)[: PROVEN * rate]], {"sampling_rate": rate})

    def usage(self, repo: str, base: Base) -> str:
        rate = extractor_of(base).sampling_rate
        return (
            "import soundfile\nimport soxr\nfrom transformers import pipeline\n\n"
            f'pipe = pipeline("{self.pipeline_tag}", model="{repo}")\n'
            'sound, rate = soundfile.read("sound.wav", dtype="float32", always_2d=True)\n'
            f"print(pipe(soxr.resample(sound.mean(1), rate, {rate})))  # one channel at {rate} Hz"
        )


def extractor_of(base: Base) -> Any:
    """The feature extractor, which may stand inside of a processor."""
    return getattr(base.processor, "feature_extractor", base.processor)


def opened(value: Any, rate: float) -> tuple[Any, Any, Any]:
    """A value as (file, None, None) or (None, array, its rate); an array that says no rate has the model's."""
    if isinstance(value, Mapping):
        if value.get("array") is not None:
            return None, value["array"], int(value.get("sampling_rate") or rate)
        value = BytesIO(value["bytes"]) if value.get("bytes") else value.get("path")
    if isinstance(value, BytesIO):
        return value, None, None
    if isinstance(value, str | PathLike):
        return str(value), None, None
    if value is None:
        raise ValueError("there is no sound")
    return None, value, rate


def seconds(value: Any, rate: float) -> Any:
    """Return how long a sound is; of a file only the header is read."""
    import numpy as np
    import soundfile

    file, array, own = opened(value, rate)
    return max(np.shape(array)) / own if file is None else soundfile.info(file).duration


def decode(value: Any, rate: float, row: int | None = None) -> Any:
    """A sound as float32 samples (samples,) in [-1, 1] at a rate in Hz: the mean of its channels, resampled by soxr."""
    import numpy as np
    import soundfile
    import soxr

    try:
        file, array, own = opened(value, rate)
        if file is None:
            wave = np.asarray(array)
            wave = wave / 32768 if wave.dtype.kind == "i" else wave  # 16-bit samples
            wave = wave if wave.ndim < 2 else wave.mean(int(np.argmin(wave.shape)))
        else:
            wave, own = soundfile.read(file, dtype="float32", always_2d=True)
            wave = wave.mean(1)
        if not wave.size or not np.isfinite(wave).all():
            raise ValueError("it has no samples" if not wave.size else "it has samples that are no numbers")
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # soundfile's are RuntimeErrors
        raise unreadable([] if row is None else [row], value, error) from error
    wave = soxr.resample(wave.astype(np.float32), own, rate) if own != rate else wave.astype(np.float32)
    return np.pad(wave, (0, max(0, math.ceil(SHORTEST * rate) - len(wave))))


def unreadable(rows: Sequence[int], value: Any, error: Any) -> Any:
    """The error for sounds that cannot be read: which rows, the first one's name, what the library said."""
    name = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str | PathLike) else None
    where = f"{row_numbers(rows)}: " if rows else ""
    return DataError(
        f"{where}the sound {repr(str(name)) if name else 'in memory'} cannot be read: {getattr(error, 'error_string', error)}",
        hint="Sounds are wav, flac, ogg or mp3 files, or {'array': ..., 'sampling_rate': ...}. "
        "Repair these rows or take them out, and run the same command again.",
    )


def frames_of(values: Any, rate: float) -> Any:
    """The frames of every sound: those that begin every 20 ms and end within it, so that sounds with equally many are
    equally long to most models. Raises DataError with the rows that cannot be read."""
    found, bad = [], []
    for row, value in enumerate(values):
        try:
            found.append(max(1, math.floor((seconds(value, rate) - SHORTEST) * FRAMES + 1e-6) + 1))
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            bad.append((row, value, error))
    if bad:
        raise unreadable([row for row, _, _ in bad], bad[0][1], bad[0][2])
    return found


def fixed_frames(extractor: Any) -> int:
    """Return the frames that an extractor makes of every sound; 0 where sounds keep their length.

    Two kinds make all equally long: Whisper's says the seconds, AST's counts steps of 10 ms.
    """
    return int(FRAMES * (getattr(extractor, "chunk_length", 0) or 0) or (getattr(extractor, "max_length", 0) or 0) // 2)


def examples_of(rows: Rows, base: Base, most: Any = None) -> Iterator[Any]:
    """One example per row, its sound not decoded yet. most: frames that longer sounds are to be cut to."""
    extractor = extractor_of(base)
    fixed = fixed_frames(extractor)
    all_frames = frames_of([row["audio"] for row in rows], extractor.sampling_rate)
    for (index, row), frames in zip(enumerate_rows(rows), all_frames, strict=True):
        frames = frames if most is None else min(frames, most)
        yield {"audio": row["audio"], "row": index, "frames": frames, "size": fixed or frames}


def inputs_of(examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None) -> Any:
    """Return what the model's forward takes, (examples, samples) or (examples, steps, features), and its mask if it has one.

    Sounds longer than their example says are cut: anywhere in training, in the middle otherwise.
    """
    extractor = extractor_of(base)
    rate = extractor.sampling_rate
    waves = []
    for index, example in enumerate(examples):
        wave = decode(example["audio"], rate, example["row"])
        most = example["frames"] * rate // FRAMES
        spare = len(wave) - most if len(wave) > most + 2 * rate // FRAMES else 0  # else it was not to be cut
        start = rngs[index].random().randint(0, spare) if rngs else spare // 2
        waves.append(wave[start : len(wave) - spare + start])
    return padded(extracted(extractor, waves), base.config if rngs else None)


def extracted(extractor: Any, waves: Any) -> dict[Any, Any]:
    """The feature extractor's tensors, padded to the longest, or to the one length that the model takes."""
    from inspect import signature

    names = extractor.model_input_names
    takes = signature(extractor.__call__).parameters
    padding = takes.get("padding")
    more: dict[str, Any] = {"padding": True} if padding is not None and padding.default is False else {}
    if "return_attention_mask" in takes or any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        more["return_attention_mask"] = "attention_mask" in names  # DAC's extractor takes none
    made = extractor(waves, sampling_rate=extractor.sampling_rate, return_tensors="pt", **more)
    return {name: made[name] for name in names if name in made}


def augmentation(config: Any) -> dict[str, Any]:
    """SpecAugment hides the share of frames that the configuration names, and no more: the library's least number of masks,
    two of ten frames each, would hide most of a spoken word, and a model would learn words with holes alone."""
    return {"mask_time_min_masks": 0} if hasattr(config, "mask_time_min_masks") else {}


def padded(inputs: Any, config: Any) -> Any:
    """In training, room for one of SpecAugment's masks, whose making raises an error where a batch is shorter."""
    from torch.nn import functional as F

    if getattr(config, "apply_spec_augment", False) and "attention_mask" in inputs:
        raw = "input_values" in inputs
        least = (config.mask_time_length + 2) * (config.inputs_to_logits_ratio if raw else 1)
        short = max(0, least - inputs["attention_mask"].shape[1])
        inputs = {name: F.pad(x, (0, short) if x.ndim == 2 else (0, 0, 0, short)) for name, x in inputs.items()}
    return inputs


def output_lengths(model: Module, mask: Any, steps: int) -> Any:
    """Return how many of a model's `steps` of output belong to each sound, (examples,); None where nothing is masked."""
    if mask is None:
        return None
    names = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")
    for module in model.modules():
        for name in names:
            if hasattr(module, name):
                return getattr(module, name)(mask.sum(1).long()).clamp(1, steps)
    return (mask.sum(1) * steps / mask.shape[1]).ceil().long()
