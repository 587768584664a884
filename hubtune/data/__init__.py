"""Rows to batches: sources, columns, splits, encoding and batching."""
