"""Feature extractors of tiny models, where zoo.py writes one that does not fit the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hubtune.models.heads.structure import BINS, PLACES, values_of

LIKE_WHISPER = ("audioflamingo3_encoder", "glmasr_encoder", "qwen2_audio_encoder", "voxtral_encoder")
"""Encoders whose sounds are Whisper's features, also on the Hub."""


def fitted(folder: Path, scratch: Path) -> Path:
    """Return the folder of a model whose extractor makes the features that it takes: the same, or a changed copy."""
    from transformers import AutoConfig

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return folder
    said = json.loads(path.read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder)
    bins, places = values_of(config, BINS), values_of(config, PLACES)
    wanted = dict(said)
    if config.model_type in LIKE_WHISPER and bins:
        frames = 2 * places[0][0] if places else 100
        wanted = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": bins[0][0], "chunk_length": frames // 100,
                  "sampling_rate": 16000, "return_attention_mask": True}
    elif "feature_size" in said and "input_values" not in said.get("model_input_names", ()) and bins and said["feature_size"] > 1:
        wanted["feature_size"] = bins[0][0]
    if wanted == said:
        return folder
    copied = scratch / f"{folder.name}-fitted"
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    (copied / path.name).write_text(json.dumps(wanted), encoding="utf-8")
    return copied
