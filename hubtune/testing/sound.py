"""Tiny pretrained models that listen, with their feature extractors, made in a second and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_WAVE = {
    **_BODY, "conv_dim": [32] * 7, "num_feat_extract_layers": 7, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 32, "vocab_size": 32,
}
_RAW = {"feature_size": 1, "sampling_rate": 16000, "do_normalize": True}

_FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    # As the base models on the Hub: normalised over time, and padded without a mask.
    "wav2vec2": ("Wav2Vec2", _WAVE, "Wav2Vec2FeatureExtractor", {**_RAW, "return_attention_mask": False}),
    "wavlm": (
        "WavLM", {**_WAVE, "num_buckets": 32}, "Wav2Vec2FeatureExtractor", {**_RAW, "return_attention_mask": False},
    ),
    # As the large models on the Hub: normalised per step, and padded with a mask.
    "hubert": (
        "Hubert", {**_WAVE, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
        "Wav2Vec2FeatureExtractor", {**_RAW, "return_attention_mask": True},
    ),
    "wav2vec2-bert": (
        "Wav2Vec2Bert",
        {**_BODY, "feature_projection_input_dim": 160, "vocab_size": 32, "classifier_proj_size": 32},
        "SeamlessM4TFeatureExtractor", {"feature_size": 80, "num_mel_bins": 80},
    ),
    "audio-spectrogram-transformer": (
        "AST",
        {**_BODY, "max_length": 128, "num_mel_bins": 32, "patch_size": 16, "frequency_stride": 16, "time_stride": 16},
        "ASTFeatureExtractor", {"max_length": 128, "num_mel_bins": 32},
    ),
    "whisper": (
        "Whisper",
        {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 80,
         "max_source_positions": 50, "max_target_positions": 32, "vocab_size": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        "WhisperFeatureExtractor", {"feature_size": 80, "chunk_length": 1},
    ),
}

MODEL_TYPES = tuple(_FAMILIES)
"""The model types that `tiny_sound` makes; all of them classify, and those with raw waves or `bert` do CTC."""


def tiny_sound(model_type: str, folder: str | Path, *, seed: int = 0, **config: Any) -> Path:
    """Make a model of a few thousand random weights that takes sound at 16 kHz, in a folder, and return it.

    model_type: one of `MODEL_TYPES`. seed: of the weights; the caller's generator is left as it was. config: changes
    of the configuration, such as `hidden_dropout=0.0`. The folder is what the Hub would have, without a tokenizer.
    """
    if model_type not in _FAMILIES:
        raise ValueError(f"no tiny model of type '{model_type}'; there are: {', '.join(MODEL_TYPES)}")
    import torch
    import transformers

    name, sizes, extractor, settings = _FAMILIES[model_type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**{**sizes, **config}))
    made.save_pretrained(folder)
    getattr(transformers, extractor)(**settings).save_pretrained(folder)
    return Path(folder)
