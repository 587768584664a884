"""Tiny pretrained vision-language models with processors."""

from hubtune.testing.vision_language.families import MODEL_TYPES, tiny_vision_language

__all__ = ["MODEL_TYPES", "tiny_vision_language"]
