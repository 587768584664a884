"""Metrics that a recipe chooses beside a task's own."""
