"""Losses, scores and files of sentence similarity."""
