"""Tiny pretrained vision-language models with processors, made in a second and without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SIDE, PATCH = 32, 8
"""Pixels of a side that a vision tower sees, and of a side of its patches."""


@dataclass(frozen=True)
class Family:
    """A tiny model of one type.

    words: special tokens of images, by the key of the tokenizer's configuration. image: the word that stands for an image in a text.
    images: settings of its image processor. more: settings of its processor. ids: keys of the configuration with the id of a word.
    """

    processor: str
    images: dict[str, Any]
    image: str
    words: dict[str, str]
    vision: dict[str, Any]
    ids: dict[str, str]
    more: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)


_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
           "patch_size": PATCH}
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 8, "max_position_embeddings": 256}
_SQUARE = {"size": {"height": SIDE, "width": SIDE}}
_SPLITS = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]

FAMILIES = {
    "idefics3": Family(  # the type of SmolVLM
        "Idefics3Processor", {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 2 * SIDE},
                              "max_image_size": {"longest_edge": SIDE}, "do_image_splitting": True, "do_pad": True}, "<image>",
        {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
         "end_of_utterance_token": "<end_of_utterance>"},
        _VISION, {"image_token_id": "<image>"}, {"image_seq_len": 4}, {"scale_factor": 2}, {"model_type": "llama"},
    ),
    "llava": Family(
        "LlavaProcessor", {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE},
                           "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True}, "<image>", {"image_token": "<image>"},
        {**_VISION, "model_type": "clip_vision_model", "projection_dim": 32}, {"image_token_index": "<image>"},
        {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        {"vision_feature_layer": -2}, {"model_type": "llama"},
    ),
    "gemma3": Family(
        "Gemma3Processor", {"image_processor_type": "Gemma3ImageProcessor", **_SQUARE}, "<start_of_image>",
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        {**_VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        {"image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>", "eoi_token_index": "<end_of_image>"},
        {"image_seq_length": 4}, {"mm_tokens_per_image": 4}, {"sliding_window": 64, "query_pre_attn_scalar": 8},
    ),
    "qwen2_5_vl": Family(
        "Qwen2_5_VLProcessor", {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": PATCH, "merge_size": 2,
                                "temporal_patch_size": 2, "size": {"shortest_edge": 256, "longest_edge": 1024}}, "<|image_pad|>",
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
         "vision_eos_token": "<|vision_end|>"},
        {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": PATCH,
         "window_size": 32, "fullatt_block_indexes": [1]},
        {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
         "vision_end_token_id": "<|vision_end|>"},
        {}, {}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}},
    ),
}

MODEL_TYPES = tuple(FAMILIES)
"""The model types that `tiny_vision_language` makes; the first one is the type of SmolVLM."""


def template(image: str) -> str:
    """Return a chat template over parts, with the word of an image in its place; every answer is closed by the end token."""
    return ("{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: {% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}"
            "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}Assistant: {% endif %}")


def tiny_vision_language(model_type: str, folder: str | Path, *, texts: Iterable[str] = (), seed: int = 0, **config: Any) -> Path:
    """Make a pretrained model of random weights, with its processor, in a folder, and return it.

    model_type: one of `MODEL_TYPES`. texts: what the vocabulary is learnt from. seed: of the weights; the generator of the caller is
    left as it was. config: changes of the configuration. The folder is what the Hub would have.
    """
    if model_type not in FAMILIES:
        raise ValueError(f"no tiny model of type '{model_type}'; there are: {', '.join(MODEL_TYPES)}")
    import torch
    import transformers

    from hubtune.testing.models import TEXTS, tiny_tokenizer

    family, folder = FAMILIES[model_type], Path(folder)
    tokenizer = tiny_tokenizer("llama", list(texts) or TEXTS)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "extra_special_tokens": [
        *family.words.values(), *(_SPLITS if model_type == "idefics3" else ())]})
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**_TEXT, **family.text, **ids, "vocab_size": len(tokenizer)}
    made = transformers.AutoConfig.for_model(
        model_type, **{"text_config": text, "vision_config": family.vision, "tie_word_embeddings": False, **family.config, **config,
                       **{key: tokenizer.convert_tokens_to_ids(word) for key, word in family.ids.items()}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(made)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_processor(family, folder)
    return folder


def save_processor(family: Family, folder: Path) -> None:
    """Write the files of a processor: not by its class, which may need a package that is missing to read films."""
    images = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
              "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "processor_class": family.processor, **family.images}
    path = folder / "tokenizer_config.json"
    said = {**json.loads(path.read_text(encoding="utf-8")), **family.words, "processor_class": family.processor,
            "model_max_length": 256, "extra_special_tokens": family.words}
    for name, value in ((path.name, said), ("preprocessor_config.json", images),
                        ("processor_config.json", {"processor_class": family.processor, **family.more})):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    word = f"<|vision_start|>{family.image}<|vision_end|>" if "vision_bos_token" in family.words else family.image
    (folder / "chat_template.jinja").write_text(template(word), encoding="utf-8")
