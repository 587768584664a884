"""Bottleneck adapters of our own, found a place in any architecture by its structure."""
