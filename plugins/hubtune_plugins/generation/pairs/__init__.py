"""Pairs of answers to a prompt, of which one was chosen: their losses and scores."""
