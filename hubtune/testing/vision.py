"""Tiny pretrained vision models with image processors, made in a second and without a network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SIZE = 32
"""Pixels of a side that a tiny model sees; convolutional ones take more."""


@dataclass(frozen=True)
class Family:
    """Sizes of a tiny model of one type.

    processor: its image processor without the ending of a backend. size: what it resizes to. more: its other settings.
    """

    config: str
    model: str
    sizes: dict[str, Any]
    processor: str
    size: dict[str, int] = field(default_factory=lambda: {"height": SIZE, "width": SIZE})
    more: dict[str, Any] = field(default_factory=dict)


_VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}
_RESNET = {
    "model_type": "rt_detr_resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"],
}
_DETR = {
    "backbone_config": _RESNET, "encoder_hidden_dim": 32, "encoder_in_channels": [16, 16, 16], "encoder_layers": 1,
    "encoder_ffn_dim": 32, "encoder_attention_heads": 4, "d_model": 32, "num_queries": 12, "decoder_layers": 2,
    "decoder_in_channels": [32, 32, 32], "decoder_ffn_dim": 32, "decoder_attention_heads": 4, "num_denoising": 8,
    "hidden_expansion": 1.0,
}

FAMILIES = {
    "vit": Family("ViTConfig", "ViTModel", {**_VIT, "image_size": SIZE, "patch_size": 8}, "ViTImageProcessor"),
    "convnext": Family(
        "ConvNextConfig", "ConvNextModel", {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "image_size": SIZE},
        "ConvNextImageProcessor", {"shortest_edge": SIZE}, {"crop_pct": 0.875},
    ),
    "mobilenet_v2": Family(
        "MobileNetV2Config", "MobileNetV2Model", {"depth_multiplier": 0.25, "image_size": SIZE},
        "MobileNetV2ImageProcessor", {"shortest_edge": 40},
        {"do_center_crop": True, "crop_size": {"height": SIZE, "width": SIZE}},
    ),
    "yolos": Family(
        "YolosConfig", "YolosForObjectDetection",
        {**_VIT, "image_size": [SIZE * 2, SIZE * 2], "patch_size": 8, "num_detection_tokens": 12,
         "use_mid_position_embeddings": False},
        "YolosImageProcessor", {"shortest_edge": SIZE * 2, "longest_edge": SIZE * 3},
    ),
    "rt_detr": Family(
        "RTDetrConfig", "RTDetrForObjectDetection", _DETR, "RTDetrImageProcessor", {"height": SIZE * 2, "width": SIZE * 2},
        {"do_normalize": False},
    ),
    "segformer": Family(
        "SegformerConfig", "SegformerForSemanticSegmentation",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 1, 2, 4],
         "sr_ratios": [4, 2, 1, 1], "decoder_hidden_size": 32},
        "SegformerImageProcessor", {"height": SIZE * 2, "width": SIZE * 2}, {"do_reduce_labels": True},
    ),
    "dpt": Family(
        "DPTConfig", "DPTForSemanticSegmentation",
        {**_VIT, "num_hidden_layers": 4, "image_size": SIZE, "patch_size": 8, "backbone_out_indices": [0, 1, 2, 3],
         "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16, "use_auxiliary_head": False, "is_hybrid": False},
        "DPTImageProcessor", more={"keep_aspect_ratio": True, "ensure_multiple_of": 8},
    ),
}

MODEL_TYPES = tuple(FAMILIES)
"""The model types that `tiny_vision` makes."""


def tiny_vision(model_type: str, folder: str | Path, *, seed: int = 0, **config: Any) -> Path:
    """Make a pretrained model of random weights, with its image processor, in a folder, and return it.

    model_type: one of `MODEL_TYPES`. seed: of the weights; the generator of the caller is left as it was. config: changes
    of the configuration. The folder is what the Hub would have: config, safetensors and preprocessor_config.json.
    """
    if model_type not in FAMILIES:
        raise ValueError(f"no tiny model of type '{model_type}'; there are: {', '.join(MODEL_TYPES)}")
    import torch
    import transformers

    family, folder = FAMILIES[model_type], Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family.model)(getattr(transformers, family.config)(**{**family.sizes, **config}))
        draw_tokens(model)
    model.save_pretrained(folder)
    settings = {
        "image_processor_type": family.processor, "do_resize": True, "size": family.size, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **family.more,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def draw_tokens(model: Any) -> None:
    """Draw tokens and positions that transformers leaves at zero, as YOLOS' own code does (Fang et al., arXiv:2106.00666).

    Detection tokens that are all alike answer alike, and a model needs hundreds of steps to tell them apart.
    """
    import torch

    for name, parameter in model.named_parameters():
        if not name.endswith("weight") and parameter.ndim > 1 and not parameter.any():
            torch.nn.init.trunc_normal_(parameter, std=0.02)
