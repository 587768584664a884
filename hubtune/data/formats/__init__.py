"""Readers of files and folders that `datasets` does not read."""
