"""Checks and measurements for a machine with one NVIDIA GPU, beside the peers."""
