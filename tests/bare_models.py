"""Tiny pretrained models of architectures for which transformers has no classification class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubtune.testing.models import LENGTH, tiny_tokenizer

WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_T5 = {"d_model": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4, "d_ff": 64, "d_kv": 8, "decoder_start_token_id": 0}
_BART = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in {"layers": 1, "attention_heads": 4, "ffn_dim": 64}.items()}
_SIGHT = {**WIDE, "image_size": 32, "patch_size": 8}

TEXTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    # a state space model, as it is saved with its language model's head
    "mamba": ("Mamba", "MambaForCausalLM", "gpt2", {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "time_step_rank": 8}),
    # a decoder with rotary positions
    "codegen": ("CodeGen", "CodeGenForCausalLM", "gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": LENGTH, "n_ctx": LENGTH}),
    # a mixture of experts
    "olmoe": ("Olmoe", "OlmoeForCausalLM", "llama", {**WIDE, "num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2,
                                                    "max_position_embeddings": LENGTH}),
    # encoder-decoders, of which the encoder is used
    "longt5": ("LongT5", "LongT5ForConditionalGeneration", "t5", {**_T5, "local_radius": 7}),
    "m2m_100": ("M2M100", "M2M100ForConditionalGeneration", "bart", {"d_model": 32, **_BART, "max_position_embeddings": LENGTH}),
    # an encoder without a class
    "bert-generation": ("BertGeneration", "BertGenerationEncoder", "bert", {**WIDE, "max_position_embeddings": LENGTH}),
    # a dual encoder, of which the text tower is used; it is causal and does not say so in its layers
    "clip": ("CLIP", "CLIPModel", "bert", {"projection_dim": 16, "text_config": {**WIDE, "max_position_embeddings": LENGTH}, "vision_config": _SIGHT}),
}
"""By model type: the beginning of the configuration's name, the class that is saved, its tokenizer, its sizes."""
IMAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "clip_vision_model": ("CLIPVision", "CLIPVisionModel", _SIGHT),
    "siglip_vision_model": ("SiglipVision", "SiglipVisionModel", _SIGHT),
    "vit_mae": ("ViTMAE", "ViTMAEForPreTraining", {**_SIGHT, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
                                                   "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}),
    "dinov3_vit": ("DINOv3ViT", "DINOv3ViTModel", {**_SIGHT, "num_register_tokens": 2}),
    "glpn": ("GLPN", "GLPNModel", {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 4],
                                   "decoder_hidden_size": 16}),
}
SOUNDS: dict[str, tuple[str, str, dict[str, Any], str, dict[str, Any]]] = {
    "speech_to_text": ("Speech2Text", "Speech2TextForConditionalGeneration",
                       {"d_model": 32, **_BART, "input_feat_per_channel": 16, "conv_channels": 32, "vocab_size": 64, "max_source_positions": 512,
                        "max_target_positions": 32, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2},
                       "Speech2TextFeatureExtractor", {"feature_size": 16, "num_mel_bins": 16}),
    "moonshine": ("Moonshine", "MoonshineForConditionalGeneration",
                  {"hidden_size": 32, "intermediate_size": 64, "encoder_num_hidden_layers": 1, "decoder_num_hidden_layers": 1,
                   "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "encoder_num_key_value_heads": 4,
                   "decoder_num_key_value_heads": 4, "vocab_size": 64, "pad_token_id": 2},
                  "Wav2Vec2FeatureExtractor", {"feature_size": 1, "sampling_rate": 16000, "return_attention_mask": True}),
    "parakeet_encoder": ("ParakeetEncoder", "ParakeetEncoder",
                         {**WIDE, "num_mel_bins": 16, "subsampling_conv_channels": 16, "max_position_embeddings": 512, "dropout_positions": 0.0},
                         "ParakeetFeatureExtractor", {"feature_size": 16}),
}


def make(folder: Path, model_type: str, seed: int = 0) -> Path:
    """Save a tiny model with its tokenizer, image processor or feature extractor in a folder, and return it."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model_type in TEXTS:
            config, model, family, sizes = TEXTS[model_type]
            processor = tiny_tokenizer(family)
            ids = {f"{name}_token_id": found for name in ("bos", "eos", "pad")
                   if (found := getattr(processor, f"{name}_token_id")) is not None}
            words = {"vocab_size": len(processor), **ids}
            sizes = {**sizes, "text_config": {**sizes["text_config"], **words}} if "text_config" in sizes else {**sizes, **words}
        elif model_type in IMAGES:
            config, model, sizes = IMAGES[model_type]
            processor = None
        else:
            config, model, sizes, extractor, settings = SOUNDS[model_type]
            try:
                processor = getattr(transformers, extractor)(**settings)
            except ImportError as error:  # 5.6 reads sounds for parakeet with librosa
                pytest.skip(f"transformers {transformers.__version__}: {str(error).strip().splitlines()[0]}")
        made = getattr(transformers, model)(getattr(transformers, f"{config}Config")(**sizes))
    made.save_pretrained(folder)
    if processor is None:
        said = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 32, "width": 32},
                "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    else:
        processor.save_pretrained(folder)
    return folder
