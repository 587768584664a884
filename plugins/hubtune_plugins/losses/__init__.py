"""Losses that a recipe chooses in place of a task's own."""
