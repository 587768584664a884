"""A run from its recipe to a published model."""
