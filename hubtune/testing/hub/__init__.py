"""A Hub on loopback: a real HTTP server that huggingface_hub, transformers and datasets can use unchanged."""

from hubtune.testing.hub.server import LoopbackHub

__all__ = ["LoopbackHub"]
