"""Pretrained models: configuration, loading, saving and library quirks."""
