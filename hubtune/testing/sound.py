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

_DECODER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}

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
        "Whisper", {**_DECODER, "num_mel_bins": 80, "max_source_positions": 50, "max_target_positions": 32,
                    "begin_suppress_tokens": None},
        "WhisperFeatureExtractor", {"feature_size": 80, "chunk_length": 1},
    ),
    "speech_to_text": (
        "Speech2Text", {**_DECODER, "input_feat_per_channel": 80, "max_source_positions": 200, "conv_channels": 32,
                        "max_target_positions": 32},
        "Speech2TextFeatureExtractor", {"feature_size": 80, "num_mel_bins": 80},
    ),
    "moonshine": (
        "Moonshine",
        {"hidden_size": 32, "intermediate_size": 64, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2,
         "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "max_position_embeddings": 32},
        "Wav2Vec2FeatureExtractor", {**_RAW, "do_normalize": False, "return_attention_mask": True},
    ),
}

WRITING_TYPES = ("whisper", "speech_to_text", "moonshine")
"""The model types with a decoder, which are made whole and with a tokenizer that spells in bytes."""
MODEL_TYPES = tuple(name for name in _FAMILIES if name not in WRITING_TYPES[1:])
"""The model types that `tiny_sound` makes and that have a class to classify; those with raw waves or `bert` do CTC."""
WORDS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|de|>", "<|translate|>", "<|transcribe|>",
         "<|notimestamps|>")
"""Special tokens of the models with a decoder: Whisper's, where an id behind `<|notimestamps|>` is a time."""


def tiny_sound(model_type: str, folder: str | Path, *, seed: int = 0, **config: Any) -> Path:
    """Make a model of a few thousand random weights that takes sound at 16 kHz, in a folder, and return it.

    model_type: one of `MODEL_TYPES`. seed: of the weights; the caller's generator is left as it was. config: changes
    of the configuration, such as `hidden_dropout=0.0`. The folder is what the Hub would have, without a tokenizer.
    """
    if model_type not in _FAMILIES:
        raise ValueError(f"no tiny model of type '{model_type}'; there are: {', '.join(_FAMILIES)}")
    import torch
    import transformers

    name, sizes, extractor, settings = _FAMILIES[model_type]
    kind = f"{name}Model"
    if model_type in WRITING_TYPES:
        kind = f"{name}ForConditionalGeneration"
        tokenizer = spelling_tokenizer(model_type)
        tokenizer.save_pretrained(folder)
        start, end = (tokenizer.convert_tokens_to_ids(word) for word in WORDS[1::-1])
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": end, "bos_token_id": start, "eos_token_id": end,
                 "decoder_start_token_id": start, **sizes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**{**sizes, **config}))
    made.save_pretrained(folder)
    getattr(transformers, extractor)(**settings).save_pretrained(folder)
    return Path(folder)


def spelling_tokenizer(model_type: str) -> Any:
    """Make a tokenizer with an id per byte: Whisper's own class with `WORDS` behind the bytes, or a plain one with these first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, WhisperTokenizer

    spelt = sorted(pre_tokenizers.ByteLevel.alphabet())
    ordered = [*spelt, *WORDS] if model_type == "whisper" else [*WORDS, *spelt]
    words = {word: number for number, word in enumerate(ordered)}
    more = {"additional_special_tokens": list(WORDS[1:]), "pad_token": WORDS[0], "eos_token": WORDS[0]}
    if model_type == "whisper":
        return WhisperTokenizer(vocab=words, merges=[], **more)
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=WORDS[1], **more)
