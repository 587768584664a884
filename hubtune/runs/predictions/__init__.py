"""Predictions of a tuned model: its weights, rows in windows, parts that are kept, and files of every format."""
