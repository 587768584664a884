"""Shared by strategies that work on a model's blocks: find these, and unfreeze parts of a model."""
